"""Django's PostgreSQL, with each connection asked after its health once a second.

Django asks before the first statement of every request, which for a poll is as much
work as the poll. Where the server has restarted within the second, the one request is
told to come again, and Django drops the connection.
"""

import time

from django.db.backends.postgresql import base

TRUSTED_SECONDS = 1.0


class DatabaseWrapper(base.DatabaseWrapper):
    _proved_at = float("-inf")

    def is_usable(self) -> bool:
        now = time.monotonic()
        # After an error Django asks because it has reason to.
        if not self.errors_occurred and now - self._proved_at < TRUSTED_SECONDS:
            return True
        usable = bool(super().is_usable())
        if usable:
            self._proved_at = now
        return usable

    def connect(self) -> None:
        super().connect()
        self._proved_at = time.monotonic()
