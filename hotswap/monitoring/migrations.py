"""Whether the database has the tables that this program was written for."""

from django.db import connection
from django.db.migrations.executor import MigrationExecutor


class AppliedMigrations:
    """Asks until all are applied; then never again, as none is ever taken back."""

    def __init__(self) -> None:
        self._are_complete = False

    def are_complete(self) -> bool:
        """Tell whether every migration that this program knows is applied.

        Those of a newer program do no harm: tables are first widened, then used.

        Raises:
            DatabaseError: the database does not answer.
        """
        if not self._are_complete:
            executor = MigrationExecutor(connection)
            leaves = executor.loader.graph.leaf_nodes()
            self._are_complete = not executor.migration_plan(leaves)
        return self._are_complete


applied_migrations = AppliedMigrations()
"""Of this process."""
