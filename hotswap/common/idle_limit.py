"""The limit for idle transactions, lifted for work that waits for nobody.

A process that freezes inside a transaction loses it after five seconds, so that others
go on. What prepares a database is alone: on a slow or busy machine more than that may
lie between two of its statements.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from django.conf import settings
from django.db import DEFAULT_DB_ALIAS, connections


@contextmanager
def no_idle_limit(using: str = DEFAULT_DB_ALIAS) -> Iterator[None]:
    """Lift the limit for this process's connection.

    Behind a pooler it stays: the connection is others' too.
    """
    if settings.DATABASE_IS_POOLED:
        yield
        return
    _execute(using, "SET idle_in_transaction_session_timeout = 0")
    try:
        yield
    finally:
        _execute(using, "RESET idle_in_transaction_session_timeout")


def _execute(using: str, statement: str) -> None:
    with connections[using].cursor() as cursor:
        cursor.execute(statement)
