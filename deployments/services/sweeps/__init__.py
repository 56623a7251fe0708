"""What the tick finds out about devices, each by one statement.

Rules:
- A device is proved by what it shows after its claim, never by the claim.
- Bad news is looked at before good news.
- Where the server hears a device and understands nothing, it knows nothing of its
  image: that waits for a person, and nothing is taken back.
- Orders that a device is reporting on right now are skipped and found a second later.
- A device that fails goes back if it runs, or may run, the new image; one whose
  heartbeats show its former image stays where it is, and so does one that would have
  to refuse its former image (`rollback_forbidden`).

The statements are written out in SQL, because they move up to 100,000 rows and write
the log in the same breath.
"""

from datetime import datetime

from deployments.models import Deployment
from deployments.services.sweeps.erasures import end_erased, end_targets_of
from deployments.services.sweeps.failure import (
    fail_breached,
    fail_fallen_back,
    fail_reported,
    fail_timed_out,
    fail_unproved,
    find_departed,
    unwatch_moved_on,
)
from deployments.services.sweeps.plans import (
    fail_vanished,
    quarantined,
    retriable,
    retry,
    retry_unreached,
    skip_unseen,
    stop_unstarted,
)
from deployments.services.sweeps.proof import prove
from deployments.services.sweeps.renewal import order_anew
from deployments.services.sweeps.returning import (
    ROLLBACK_TIMEOUT,
    give_up_returns,
    return_late_installs,
    send_back,
)
from deployments.services.sweeps.unreadable import find_unreadable

__all__ = [
    "ROLLBACK_TIMEOUT",
    "end_erased",
    "end_targets_of",
    "fail_breached",
    "fail_fallen_back",
    "fail_reported",
    "fail_timed_out",
    "fail_unproved",
    "fail_vanished",
    "find_departed",
    "find_unreadable",
    "give_up_returns",
    "order_anew",
    "prove",
    "quarantined",
    "retriable",
    "retry",
    "retry_unreached",
    "return_late_installs",
    "send_back",
    "skip_unseen",
    "stop_unstarted",
    "sweep_devices",
    "unwatch_moved_on",
]


def sweep_devices(deployment: Deployment, now: datetime, awake_since: datetime) -> None:
    """Find out what has become of the devices of a deployment, proved or not.

    Args:
        awake_since: as in `deployments.services.tick.advance_deployment`.
    """
    # First: what is gone is neither at fault nor proved.
    end_erased(deployment, now)
    departed = find_departed(deployment)
    unwatch_moved_on(deployment, departed, now)
    fail_breached(deployment, now)
    fail_fallen_back(deployment, departed, now)
    prove(deployment, now)
    fail_timed_out(deployment, now, awake_since)
    fail_unproved(deployment, now, awake_since)
    return_late_installs(deployment, now)
    give_up_returns(deployment, now, awake_since)
