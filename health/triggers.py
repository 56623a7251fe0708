"""The rollback triggers: what is measured of a device, and what may not exceed what.

Pure: standard library alone.

Rules:
- A trigger is written once, here. Heartbeats are read, judged, stored, shown and
  exported by walking over this table; so are limits, in their stored form, in the API
  and on the pages.
- What a row names has to exist: its columns of `health.models` and its outcome code in
  `deployments.rules.codes`. Tests compare.
- A device need not report what is optional: nothing said then is no excess.
- Being offline is a trigger, too, and has no measure: it is judged by silence
  (`health.services.watching.sweep`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from hotswap.common.wire import camelize

OFFLINE: Final = "offline"


@dataclass(frozen=True, slots=True)
class Trigger:
    """One measure with its limit.

    Attributes:
        name: as it is stored and on the wire, also as an outcome code.
        label: for people, in the middle of a sentence.
        limit, duration: the fields of the rollback thresholds: what the measure may
            not exceed, and for how long. In camelCase the limit is also how the
            measure is called in heartbeats and answers.
        default_limit, default_duration: of a deployment that says nothing else.
        maximum, minimum: of the measure: 100 and 0 of percents, 1 and 0 of ratios.
        unit: in which people read it. What is read as a percent is shown as the share
            of its maximum, anything else as it is.
        column: of the latest value in the state and of the value in the history.
        timer: the column of the state that says since when the limit is exceeded.
        baseline: the prefix of the columns that hold what is usual.
        baseline_samples: the column that counts the reports of the baseline.
        prior_spread: by how much healthy devices usually scatter.
        anomaly_floor: the least distance from what is usual that matters.
        is_anomalous_only_above: less than usual is good news.
        digits: to which a value is rounded.
        shown_digits: to which it is shown beside its baseline.
        is_application_metric: heartbeats have it among their `applicationMetrics`.
        is_optional: devices need not report it.
    """

    name: str
    label: str
    limit: str
    duration: str
    default_limit: float
    default_duration: timedelta
    maximum: float
    column: str
    timer: str
    baseline: str
    baseline_samples: str
    prior_spread: float
    anomaly_floor: float
    is_anomalous_only_above: bool
    digits: int
    shown_digits: int
    minimum: float = 0
    unit: str = "%"
    is_application_metric: bool = False
    is_optional: bool = False

    @property
    def field(self) -> str:
        """Its name on the wire, in heartbeats and answers."""
        return camelize(self.limit)

    @property
    def title(self) -> str:
        """Its label at the beginning of a line."""
        return self.label[:1].upper() + self.label[1:]

    @property
    def scale(self) -> float:
        """What makes a value in the shown unit of one in its own."""
        return 100 / self.maximum if self.unit == "%" else 1

    @property
    def reach(self) -> float:
        """How far its bounds lie apart, in its own unit."""
        return self.maximum - self.minimum

    def shown(self, value: float, digits: int = 1, sign: str = "") -> str:
        """Write a value, or a difference of two, for people.

        Args:
            sign: `+` for a difference, which then always has one.
        """
        return f"{value * self.scale:{sign}.{digits}f} {self.unit}"

    def shown_limit(self, value: float) -> str:
        """Write a limit for people, with as many digits as it was given with."""
        return f"{value * self.scale:g} {self.unit}"

    @property
    def mean(self) -> str:
        """The column of what is usual."""
        return f"{self.baseline}_mean"

    @property
    def variance(self) -> str:
        """The column of how much that varies."""
        return f"{self.baseline}_variance"


# In the order in which they are shown. Of several breaches at once the last one is
# named: it says most about the program itself.
TRIGGERS: Final = (
    Trigger(
        name="cpu",
        label="CPU",
        limit="cpu_usage",
        duration="cpu_duration",
        default_limit=95,
        default_duration=timedelta(minutes=5),
        maximum=100,
        column="cpu_percent",
        timer="cpu_since",
        baseline="baseline_cpu",
        baseline_samples="baseline_samples",
        prior_spread=10.0,
        anomaly_floor=20.0,
        is_anomalous_only_above=False,
        digits=2,
        shown_digits=1,
    ),
    Trigger(
        name="memory",
        label="memory",
        limit="memory_usage",
        duration="memory_duration",
        default_limit=90,
        default_duration=timedelta(minutes=5),
        maximum=100,
        column="memory_percent",
        timer="memory_since",
        baseline="baseline_memory",
        baseline_samples="baseline_samples",
        prior_spread=7.5,
        anomaly_floor=15.0,
        is_anomalous_only_above=False,
        digits=2,
        shown_digits=1,
    ),
    Trigger(
        name="error_rate",
        label="error rate",
        limit="error_rate",
        duration="error_duration",
        default_limit=0.10,
        default_duration=timedelta(0),
        maximum=1,
        column="error_ratio",
        timer="error_since",
        baseline="baseline_error",
        baseline_samples="baseline_error_samples",
        prior_spread=0.025,
        anomaly_floor=0.05,
        is_anomalous_only_above=True,
        digits=4,
        shown_digits=2,
        is_application_metric=True,
        is_optional=True,
    ),
)
BY_NAME: Final = {trigger.name: trigger for trigger in TRIGGERS}
# As the thresholds and the answers of the API call them.
MEASURES: Final = tuple(trigger.limit for trigger in TRIGGERS)
# By where a heartbeat has them, and whether it must.
FIELDS: Final = tuple(each for each in TRIGGERS if not each.is_application_metric)
APPLICATION_METRICS: Final = {
    each.field: each for each in TRIGGERS if each.is_application_metric
}
REQUIRED: Final = tuple(each for each in TRIGGERS if not each.is_optional)
# What a breach may be of, with its words in the admin.
BREACHES: Final = tuple(
    (name, name.replace("_", " ").title())
    for name in (OFFLINE, *(each.name for each in TRIGGERS))
)


def by_unit(
    triggers: Sequence[Trigger] = TRIGGERS,
) -> list[tuple[str, tuple[Trigger, ...]]]:
    """Return the units in which measures are shown, each with what has it: a chart."""
    units = dict.fromkeys(each.unit for each in triggers)
    return [
        (unit, tuple(each for each in triggers if each.unit == unit)) for unit in units
    ]
