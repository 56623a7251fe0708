"""Connections to the database that the threads of a web server share."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any

import psycopg
import pytest
from django.db import connection, connections, transaction

from hotswap.common.api.long_polls import LongPolls
from hotswap.common.postgresql import base
from hotswap.common.postgresql.sharing import release_connection, share_connections
from hotswap.common.slots import Slots

pytestmark = pytest.mark.django_db(transaction=True)
MOST = 2


@pytest.fixture
def shared() -> Iterator[None]:
    """This process's threads share two connections."""
    given = connections.settings["default"]
    before = {name: given[name] for name in ("CONN_MAX_AGE", "CONN_HEALTH_CHECKS")}
    connection.close()
    share_connections(MOST)
    yield
    connection.close()
    own: Any = connection
    own.close_pool()
    del given["OPTIONS"]["pool"]
    given.update(before)


def backend() -> int:
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_backend_pid()")
        found: int = cursor.fetchone()[0]
    return found


def test_many_threads_share_few_connections(shared: None) -> None:
    together = Barrier(8)

    def ask(_: int) -> int:
        together.wait(60)
        try:
            return backend()
        finally:
            release_connection()

    with ThreadPoolExecutor(8) as pool:
        used = set(pool.map(ask, range(8)))

    assert 1 <= len(used) <= MOST


def test_connection_is_given_back_before_a_wait_for_a_client(shared: None) -> None:
    backend()

    Slots(1).take()

    assert connection.connection is None


def test_connection_is_given_back_before_a_wait_for_news(shared: None) -> None:
    held: list[Any] = []

    def pause(_: float) -> None:
        held.append(connection.connection)

    def is_news() -> bool:
        return backend() > 0 and len(held) == 2

    LongPolls(1).wait(is_news, 60, pause=pause)

    assert held == [None, None]


def test_transaction_keeps_its_connection(shared: None) -> None:
    with transaction.atomic():
        own = backend()

        Slots(1).take()

        assert backend() == own


def test_connection_that_the_server_has_closed_is_not_handed_out(
    shared: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(base, "TRUSTED_SECONDS", 0.0)
    ended = backend()
    release_connection()
    address = connections.settings["default"]
    with psycopg.connect(
        dbname=address["NAME"],
        user=address["USER"],
        password=address["PASSWORD"],
        host=address["HOST"],
        port=address["PORT"],
    ) as other:
        other.execute("SELECT pg_terminate_backend(%s, 60000)", [ended])

    assert backend() != ended


def test_threads_have_their_own_where_nothing_is_shared() -> None:
    share_connections(0)

    own = backend()
    release_connection()

    assert backend() == own
    assert "pool" not in connection.settings_dict["OPTIONS"]
