"""Django's `migrate`, as the owner of the tables and for as long as it has to."""

from typing import Any

from django.core.management.commands import migrate

from hotswap.common.idle_limit import no_idle_limit
from hotswap.common.postgresql.roles import as_owner


class Command(migrate.Command):
    """Migrates as the owner of the tables, without the limit for idle transactions."""

    def handle(self, *args: Any, **options: Any) -> None:
        """Apply the migrations."""
        database = options["database"]
        with as_owner(database), no_idle_limit(database):
            super().handle(*args, **options)
