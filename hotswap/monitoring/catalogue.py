"""Every metric that is kept in the database or read from it, of all apps."""

from typing import Final

from deployments import metrics as deployments
from devices import metrics as devices
from firmware import metrics as firmware
from health import metrics as health
from hotswap.common.metrics import Counter, Gauge, Histogram

WORK_AGE: Final = Gauge(
    "hotswap_periodic_work_age_seconds",
    "",
    "How long ago periodic work last ran",
    {"work": ()},
    "SELECT name, extract(epoch FROM clock_timestamp() - noted_at)::float8 "
    "FROM common_jobrun",
)
CONNECTIONS: Final = Gauge(
    "hotswap_database_connections",
    "",
    "Connections to the database, by what they do",
    {"state": ()},
    """
    SELECT COALESCE(state, 'unknown'), count(*) FROM pg_stat_activity
    WHERE datname = current_database() AND backend_type = 'client backend'
    GROUP BY 1
    """,
)
CONNECTIONS_MAX: Final = Gauge(
    "hotswap_database_connections_max",
    "",
    "Connections that the database server accepts",
    {},
    "SELECT current_setting('max_connections')::int",
)
COUNTERS: Final[tuple[Counter, ...]] = deployments.COUNTERS
HISTOGRAMS: Final[tuple[Histogram, ...]] = deployments.HISTOGRAMS
GAUGES: Final[tuple[Gauge, ...]] = (
    *(*deployments.GAUGES, *health.GAUGES, *devices.GAUGES, *firmware.GAUGES),
    *(WORK_AGE, CONNECTIONS, CONNECTIONS_MAX),
)
NAMES: Final = tuple(
    [each.name for each in COUNTERS]
    + [each.name for each in HISTOGRAMS]
    + [each.name for each in GAUGES]
)
