"""Django's PostgreSQL, with each connection asked after its health once a second.

Django asks before the first statement of every request, which for a poll is as much
work as the poll. Where the server has restarted within the second, the one request is
told to come again, and Django drops the connection. Connections that threads share
(`sharing.py`) are asked as often, each where it is handed out.
"""

import time
from typing import Any
from weakref import WeakKeyDictionary

from django.db.backends.postgresql import base
from psycopg import Connection, Error

TRUSTED_SECONDS = 1.0


# When each connection of a pool was last known to be good.
_proved_at: WeakKeyDictionary[Connection[Any], float] = WeakKeyDictionary()


class DatabaseWrapper(base.DatabaseWrapper):
    _proved_at = float("-inf")

    def get_new_connection(self, conn_params: dict[str, Any]) -> Connection[Any]:
        """Return a new connection, or one of the pool that is good.

        Those that the server has closed meanwhile are dropped, one after the other.
        """
        while True:
            found: Connection[Any] = super().get_new_connection(conn_params)
            if self.pool is None or self._is_good(found):
                return found
            self.pool.putconn(found)

    @staticmethod
    def _is_good(connection: Connection[Any]) -> bool:
        # Web servers alone have a pool; the others need not load it.
        from psycopg_pool import ConnectionPool

        now = time.monotonic()
        if now - _proved_at.get(connection, now) >= TRUSTED_SECONDS:
            try:
                ConnectionPool.check_connection(connection)
            except Error:
                connection.close()
                return False
        elif connection in _proved_at:
            return True
        _proved_at[connection] = now
        return True

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
