"""Colours and icons of the health of devices."""

from hotswap.common.console.badges import DONE, FAILED, NOT_STARTED, WAITS

VERDICT_BADGES = {
    "healthy": (DONE, "check"),
    "degraded": (WAITS, "warning"),
    "unhealthy": (FAILED, "error"),
    "unknown": (NOT_STARTED, "help"),
}
