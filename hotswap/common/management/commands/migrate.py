"""Django's `migrate`, which may think for as long as it has to."""

from typing import Any

from django.core.management.commands import migrate
from django.db import connections


class Command(migrate.Command):
    """Migrates without the limit for idle transactions.

    On a slow or busy machine more than its few seconds may lie between two statements
    of one migration, which the database would then break off.
    """

    def handle(self, *args: Any, **options: Any) -> None:
        """Apply the migrations."""
        self._execute(options, "SET idle_in_transaction_session_timeout = 0")
        try:
            super().handle(*args, **options)
        finally:
            self._execute(options, "RESET idle_in_transaction_session_timeout")

    def _execute(self, options: dict[str, Any], statement: str) -> None:
        with connections[options["database"]].cursor() as cursor:
            cursor.execute(statement)
