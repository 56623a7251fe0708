"""The command that migrates the database."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest
from django.core.management import call_command
from django.db import connection
from django.db.models.signals import pre_migrate

from hotswap.common.management.commands import migrate
from tests.waiting import wait_until


def show(name: str) -> str:
    with connection.cursor() as cursor:
        cursor.execute(f"SHOW {name}")
        return str(cursor.fetchone()[0])


def idle_limit() -> str:
    return show("idle_in_transaction_session_timeout")


def test_a_migration_may_think_for_as_long_as_it_has_to(db: None) -> None:
    of_the_session = idle_limit()
    with connection.cursor() as cursor:
        cursor.execute("SET idle_in_transaction_session_timeout = '5s'")
    seen = [idle_limit()]

    def note(**_: Any) -> None:
        seen.append(idle_limit())

    pre_migrate.connect(note)
    try:
        call_command("migrate", verbosity=0, interactive=False)
    finally:
        pre_migrate.disconnect(note)

    assert seen[0] == "5s"
    assert set(seen[1:]) == {"0"}
    assert idle_limit() == of_the_session


@contextmanager
def firmware_in_use() -> Iterator[psycopg.Connection[Any]]:
    """Read the table of firmware in a transaction that stays open."""
    with psycopg.connect(**connection.get_connection_params()) as reader:
        reader.execute("SELECT count(*) FROM firmware_firmware")
        yield reader


def migrate_firmware(errors: list[Exception]) -> None:
    try:
        call_command("migrate", "firmware", verbosity=0, interactive=False)
    except Exception as error:  # noqa: BLE001 - shown by the test
        errors.append(error)
    finally:
        connection.close()


def seconds_of_a_read(reader: psycopg.Connection[Any]) -> float:
    started = time.monotonic()
    reader.execute("SELECT count(*) FROM firmware_firmware")
    return time.monotonic() - started


@pytest.fixture
def narrow(transactional_db: None) -> Iterator[None]:
    """A database from before a column of the table of firmware."""
    call_command("migrate", "firmware", "0002", verbosity=0, interactive=False)
    yield
    call_command("migrate", "firmware", verbosity=0, interactive=False)


def test_a_migration_that_waits_lets_others_go_on(
    narrow: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(migrate, "PAUSE_SECONDS", 0.5)
    errors: list[Exception] = []
    thread = threading.Thread(target=migrate_firmware, args=[errors])
    with (
        firmware_in_use() as user,
        psycopg.connect(**connection.get_connection_params(), autocommit=True) as other,
    ):
        thread.start()
        wait_until(lambda: waits_for_firmware(other), what="the migration waits")

        # Behind the migration, which gives up after two seconds.
        assert seconds_of_a_read(other) < 30

        wait_until(lambda: waits_for_firmware(other), what="it tries again")
        user.rollback()
    thread.join()

    assert errors == []
    assert "removed_at" in columns_of_firmware()


def waits_for_firmware(observer: psycopg.Connection[Any]) -> bool:
    row = observer.execute(
        "SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted"
        " AND relation = 'firmware_firmware'::regclass)"
    ).fetchone()
    return bool(row and row[0])


def columns_of_firmware() -> set[str]:
    with connection.cursor() as cursor:
        found = connection.introspection.get_table_description(
            cursor, "firmware_firmware"
        )
    return {each.name for each in found}


def test_two_that_migrate_at_once_do_so_one_after_the_other(narrow: None) -> None:
    errors: list[Exception] = []
    threads = [
        threading.Thread(target=migrate_firmware, args=[errors]) for _ in range(3)
    ]

    for each in threads:
        each.start()
    for each in threads:
        each.join()

    assert errors == []
    assert "removed_at" in columns_of_firmware()
