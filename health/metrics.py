"""The counters of this app, by process, and its gauges."""

from typing import Final

from prometheus_client import Counter

from devices.admission import IS_ADMITTED
from hotswap.common.metrics import Gauge

HEARTBEATS_REFUSED = Counter(
    "hotswap_heartbeats_refused", "Heartbeats of which nothing could be used"
)
FIELDS_IGNORED = Counter(
    "hotswap_heartbeat_fields_ignored",
    "Fields of heartbeats that were ignored",
    ["code"],
)

_COUNT_DEVICES = f"""
    SELECT d.region, count(*) FILTER (WHERE s.online_until > now()),
           count(*) FILTER (WHERE s.online_until <= now())
    FROM health_devicestate s JOIN devices_device d ON d.id = s.device_id
    WHERE {IS_ADMITTED}
    GROUP BY 1
"""  # noqa: S608
DEVICES_ONLINE = Gauge(
    "hotswap_devices_online",
    "devices.online",
    "Devices that are heard",
    {"region": ()},
    _COUNT_DEVICES,
)
DEVICES_OFFLINE = Gauge(
    "hotswap_devices_offline",
    "devices.offline",
    "Devices that were heard once and are silent now",
    {"region": ()},
    _COUNT_DEVICES,
    column=1,
)
GAUGES: Final = (DEVICES_ONLINE, DEVICES_OFFLINE)
