"""The counters of this app, by process."""

from prometheus_client import Counter

HEARTBEATS_REFUSED = Counter(
    "hotswap_heartbeats_refused", "Heartbeats of which nothing could be used"
)
FIELDS_IGNORED = Counter(
    "hotswap_heartbeat_fields_ignored",
    "Fields that were left out of heartbeats",
    ["code"],
)
