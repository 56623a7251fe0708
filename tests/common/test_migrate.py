"""The command that migrates the database."""

from typing import Any

from django.core.management import call_command
from django.db import connection
from django.db.models.signals import pre_migrate


def idle_limit() -> str:
    with connection.cursor() as cursor:
        cursor.execute("SHOW idle_in_transaction_session_timeout")
        return str(cursor.fetchone()[0])


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
