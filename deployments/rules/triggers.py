"""The rollback triggers as deployments ask for them.

The table is `health.triggers`: health reads, stores and judges what is measured and
does not know what follows from it. Here stands, in SQL and in Python, what follows.

In SQL `s` is the state of a device, perhaps missing.
"""

from datetime import datetime, timedelta
from typing import Final

from health.models import DeviceState
from health.triggers import TRIGGERS

# A limit is exceeded and its time runs: the last heartbeat is recent. While that is so,
# nothing else fails the device.
IS_BREACHING: Final = f"""(
    COALESCE({", ".join(f"s.{each.timer}" for each in TRIGGERS)}) IS NOT NULL
    AND s.last_heartbeat_at + make_interval(secs => s.offline_after_seconds)
        > %(now)s
)"""


def is_breaching(state: DeviceState, now: datetime) -> bool:
    """Tell whether a limit is exceeded and its time runs."""
    if not state.timers or state.last_heartbeat_at is None:
        return False
    if state.offline_after_seconds is None:
        return False
    silence = timedelta(seconds=state.offline_after_seconds)
    return state.last_heartbeat_at + silence > now
