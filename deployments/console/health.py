"""The health of a deployment as both its live page and its report show it."""

from typing import Any

from django.utils import timezone

from deployments.models import Deployment
from deployments.reads.metrics import (
    DeploymentHealth,
    Distance,
    MeasureSummary,
    deployment_health,
    running_versions,
)
from health.triggers import TRIGGERS, Trigger
from hotswap.common.console.text import age
from hotswap.common.pluralize import counted

SHOWN_ANOMALIES = 50
SHOWN_VERSIONS = 3
# Every exposed device is looked at for each answer, so that many are asked less often.
MANY_DEVICES = 1000
POLL_SECONDS, POLL_SECONDS_OF_MANY = 4, 10

BY_FIELD = {each.field: each for each in TRIGGERS}


def poll_seconds(deployment: Deployment) -> int:
    """Return how often the live page asks for the health."""
    is_big = deployment.target_count > MANY_DEVICES
    return POLL_SECONDS_OF_MANY if is_big else POLL_SECONDS


def health_panel(deployment: Deployment) -> dict[str, Any]:
    """Return what the panel of the live page shows, counted for this answer."""
    now = timezone.now()
    metrics = deployment_health(deployment, now)
    return health_context(metrics, running_versions(deployment)) | {
        "counted_at": f"{now:%H:%M:%S} UTC"
    }


def health_context(
    metrics: DeploymentHealth, versions: list[tuple[str, int]]
) -> dict[str, Any]:
    """Put the health into words: its score with the parts, measures, anomalies.

    Args:
        versions: what the devices run now, with how many they are, the most first.
    """
    return {
        "health": metrics,
        "versions": versions[:SHOWN_VERSIONS],
        "other_versions": sum(number for _, number in versions[SHOWN_VERSIONS:]),
        "measures": [
            _measure(each, metrics.measures.by_name[each.limit]) for each in TRIGGERS
        ],
        "anomalies": [
            {
                "device_id": device.device_id,
                "stage": device.stage,
                "heard": age(device.at),
                "said": "; ".join(_distance(each) for each in device.measures),
            }
            for device in metrics.anomalies.devices[:SHOWN_ANOMALIES]
        ],
    }


def _shown(trigger: Trigger, value: float | None, sign: str = "") -> str:
    return "–" if value is None else trigger.shown(value, sign=sign)


def _distance(found: Distance) -> str:
    trigger = BY_FIELD[found.measure]
    return (
        f"{trigger.title} {_shown(trigger, found.value)}, "
        f"{found.direction} its baseline {_shown(trigger, found.usual)} "
        f"({found.confidence} confidence, "
        f"{counted(found.baseline_samples, 'report')})"
    )


def _measure(trigger: Trigger, values: MeasureSummary) -> dict[str, Any]:
    usual = values.baseline
    return {
        "name": trigger.title,
        "devices": values.devices,
        "mean": _shown(trigger, values.mean),
        "median": _shown(trigger, values.p50),
        "high": _shown(trigger, values.p95),
        "highest": _shown(trigger, values.max),
        "usual": _shown(trigger, usual.mean),
        "usual_devices": usual.devices,
        # The difference of two shares is none of one.
        "change": _shown(trigger, usual.mean_change, "+").replace("%", "points"),
    }
