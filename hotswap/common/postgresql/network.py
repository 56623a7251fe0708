"""How soon a connection to the database notices that its other end has gone.

A host that loses its power, or a network that is cut, says nothing. The system's own
limits would let a request wait for two hours, and a tick with it. Over Unix sockets,
which end with their server, none of this counts.
"""

from typing import Final

NOTICED: Final[dict[str, str]] = {
    # Where several hosts are named, the next one is tried.
    "connect_timeout": "5",
    # While an answer is waited for: 3 + 2 x 2 s.
    "keepalives_idle": "3",
    "keepalives_interval": "2",
    "keepalives_count": "2",
    # While what was sent is not acknowledged; in milliseconds.
    "tcp_user_timeout": "7000",
}
"""Parameters of libpq; those of the address itself come first."""
