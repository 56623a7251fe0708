"""Connections: asked after their health, and statements that are prepared on them."""

from collections.abc import Iterator
from typing import Any

import pytest
from django.db import NotSupportedError, OperationalError, connection

from devices.selectors import ADMITTED
from hotswap.common.postgresql import base
from hotswap.common.rows import numbered, prepared_cursor

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def severed() -> Iterator[Any]:
    """Return a connection that its server has ended."""
    own: Any = connection.copy()
    own.health_check_enabled = True
    own.connect()
    own.health_check_done = False
    pid = own.connection.info.backend_pid
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_terminate_backend(%s, 5000)", [pid])
        assert cursor.fetchone() == (True,)
    yield own
    own.close()


def test_a_connection_that_was_not_asked_for_a_second_is_asked(
    severed: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(base, "TRUSTED_SECONDS", 0.0)

    with severed.cursor() as cursor:
        cursor.execute("SELECT 1")
        assert cursor.fetchone() == (1,)


def test_a_connection_that_breaks_within_the_second_costs_one_request(
    severed: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(base, "TRUSTED_SECONDS", 60.0)

    with pytest.raises(OperationalError), severed.cursor() as cursor:
        cursor.execute("SELECT 1")
    # As Django does at the end of a request.
    severed.close_if_unusable_or_obsolete()
    with severed.cursor() as cursor:
        cursor.execute("SELECT 1")
        assert cursor.fetchone() == (1,)


def test_what_a_migration_has_changed_is_prepared_anew() -> None:
    def ask() -> None:
        with prepared_cursor() as cursor:
            cursor.execute(ADMITTED, ["00000000-0000-4000-8000-000000000000"])

    other = connection.copy()
    ask()
    try:
        with other.cursor() as cursor:
            cursor.execute("ALTER TABLE devices_device ALTER region TYPE text")
            try:
                with pytest.raises(NotSupportedError):
                    ask()
                ask()
            finally:
                cursor.execute(
                    "ALTER TABLE devices_device ALTER region TYPE varchar(32)"
                )
    finally:
        other.close()


def test_statements_are_prepared() -> None:
    with prepared_cursor() as cursor:
        cursor.execute(ADMITTED, ["00000000-0000-4000-8000-000000000000"])
        cursor.execute("SELECT count(*) FROM pg_prepared_statements")
        assert cursor.fetchone()[0] >= 1


def test_places_of_a_statement_are_numbered_by_their_names() -> None:
    query = "SELECT %(a)s::int, %(b)s::text || '%%', %(a)s::int + 1"

    assert numbered(query) == (
        b"SELECT $1::int, $2::text || '%', $1::int + 1",
        ("a", "b"),
    )
    assert numbered("SELECT %s, %s") == (b"SELECT $1, $2", None)


def test_places_with_and_without_names_are_not_mixed() -> None:
    with pytest.raises(ValueError, match="with and without names"):
        numbered("SELECT %s, %(a)s")


def test_a_prepared_statement_gives_what_any_other_gives() -> None:
    query = "SELECT %(a)s::int, %(b)s::text || '%%', %(a)s::int + 1"
    values: dict[str, Any] = {"a": 7, "b": "50", "surplus": None}

    with prepared_cursor() as prepared, connection.cursor() as plain:
        prepared.execute(query, values)
        plain.execute(query, values)
        assert prepared.fetchone() == plain.fetchone() == (7, "50%", 8)
