"""The limit for idle transactions, and who is let off it."""

from typing import Any

from django.db import connection

from hotswap.common.idle_limit import no_idle_limit


def limit() -> str:
    with connection.cursor() as cursor:
        cursor.execute("SHOW idle_in_transaction_session_timeout")
        return str(cursor.fetchone()[0])


def set_limit() -> None:
    with connection.cursor() as cursor:
        cursor.execute("SET idle_in_transaction_session_timeout = '5s'")


def test_it_is_lifted_for_a_while(db: None) -> None:
    of_the_session = limit()
    set_limit()

    with no_idle_limit():
        lifted = limit()

    assert (lifted, limit()) == ("0", of_the_session)


def test_behind_a_pooler_it_stays(db: None, settings: Any) -> None:
    settings.DATABASE_IS_POOLED = True
    set_limit()

    with no_idle_limit():
        assert limit() == "5s"
