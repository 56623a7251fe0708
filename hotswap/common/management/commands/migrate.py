"""Django's `migrate`, which may think for as long as it has to."""

from typing import Any

from django.core.management.commands import migrate

from hotswap.common.idle_limit import no_idle_limit


class Command(migrate.Command):
    """Migrates without the limit for idle transactions."""

    def handle(self, *args: Any, **options: Any) -> None:
        """Apply the migrations."""
        with no_idle_limit(options["database"]):
            super().handle(*args, **options)
