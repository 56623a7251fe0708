"""Django's `migrate` for a database that is in use.

Rules:
- It acts as the owner of the tables.
- One process at a time migrates; the others wait for it, and find nothing left to do.
- A migration may think for as long as it has to, but does not wait for a lock: behind
  the lock that it waits for everybody else would queue up. It gives up after two
  seconds, so that they go on, and tries again.
- An index that is made concurrently may wait: it holds nobody up, and a broken one
  would have to be removed by hand.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, Final

from django.conf import settings
from django.core.management.commands import migrate
from django.db import Error, OperationalError, connections
from django.db.migrations import Migration
from psycopg.errors import LockNotAvailable

from hotswap.common.idle_limit import no_idle_limit
from hotswap.common.locks import MIGRATIONS
from hotswap.common.postgresql.roles import as_owner

LOCK_SECONDS: Final = 2
PAUSE_SECONDS: Final = 3.0
MOST_ATTEMPTS: Final = 60
LOOK_SECONDS: Final = 0.5


class Command(migrate.Command):
    """Migrates without holding up those who use the database."""

    def handle(self, *args: Any, **options: Any) -> None:
        """Apply the migrations.

        Raises:
            OperationalError: a lock was not to be had in sixty attempts, five minutes.
        """
        using: str = options["database"]
        self._using = using
        with as_owner(using), no_idle_limit(using), _alone(using):
            for attempt in range(1, MOST_ATTEMPTS + 1):
                try:
                    super().handle(*args, **options)
                except OperationalError as error:
                    is_held = isinstance(error.__cause__, LockNotAvailable)
                    if not is_held or attempt == MOST_ATTEMPTS:
                        raise
                    self.stderr.write("A table is in use; the migration waits.")
                    time.sleep(PAUSE_SECONDS)
                else:
                    return

    def migration_progress_callback(
        self, action: str, migration: Migration | None = None, fake: bool = False
    ) -> None:
        """Limit how long the migration that begins may wait for a lock."""
        if action == "apply_start" and migration is not None:
            _limit_locks(self._using, is_limited=migration.atomic)
        elif action == "apply_success":
            _limit_locks(self._using, is_limited=False)
        super().migration_progress_callback(action, migration, fake)


def _limit_locks(using: str, *, is_limited: bool) -> None:
    # Behind a pooler the session is others' too.
    if not settings.DATABASE_IS_POOLED:
        with connections[using].cursor() as cursor:
            cursor.execute(
                f"SET lock_timeout = '{LOCK_SECONDS}s'"
                if is_limited
                else "RESET lock_timeout"
            )


@contextmanager
def _alone(using: str) -> Iterator[None]:
    """Wait until no other process migrates, and keep others from it.

    Whoever waited inside of a statement would hold up an index that is made
    concurrently, which waits for every older statement.
    """
    if settings.DATABASE_IS_POOLED:
        yield
        return
    with connections[using].cursor() as cursor:
        while True:
            cursor.execute("SELECT pg_try_advisory_lock(%s)", [MIGRATIONS])
            if cursor.fetchone()[0]:
                break
            time.sleep(LOOK_SECONDS)
    try:
        yield
    finally:
        # A session that has been lost holds nothing any more.
        with suppress(Error):
            _limit_locks(using, is_limited=False)
            with connections[using].cursor() as cursor:
                cursor.execute("SELECT pg_advisory_unlock(%s)", [MIGRATIONS])
