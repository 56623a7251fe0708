"""Connections to the database that the threads of a web server share.

Rules:
- A thread has a connection from its first statement to the end of its request. Before
  it waits for a client, it gives it back, unless it is amid a transaction: all such
  waits take a slot (`hotswap.common.slots`).
- Web servers alone share. Each thread of a worker keeps its own: Celery would close
  the pool with every task.
"""

from typing import Final

from django.db import connection, connections

# A request that finds no connection for so long is told to come again.
PATIENCE_SECONDS: Final = 10.0
KEPT_SECONDS: Final = 600.0
POOL: Final = "pool"


def share_connections(most: int) -> None:
    """Let the threads of this process share so many connections from now on.

    Args:
        most: 0 gives each thread its own.
    """
    if most:
        given = connections.settings["default"]
        given["OPTIONS"][POOL] = {
            "min_size": 1,
            "max_size": most,
            "timeout": PATIENCE_SECONDS,
            "max_idle": KEPT_SECONDS,
        }
        given["CONN_MAX_AGE"] = 0
        # `DatabaseWrapper` asks after the health of what the pool gives.
        given["CONN_HEALTH_CHECKS"] = False


def release_connection() -> None:
    """Give this thread's connection back to those that share it."""
    if POOL in connection.settings_dict["OPTIONS"] and not connection.in_atomic_block:
        connection.close()
