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
from hotswap.common.console.text import age
from hotswap.common.wire import camelize
from hotswap.common.words import counted

SHOWN_ANOMALIES = 50
SHOWN_VERSIONS = 3
# Every exposed device is looked at for each answer, so that many are asked less often.
MANY_DEVICES = 1000
POLL_SECONDS, POLL_SECONDS_OF_MANY = 4, 10

MEASURE_BADGES = {
    "cpu_usage": ("CPU", "%", 1),
    "memory_usage": ("Memory", "%", 1),
    "error_rate": ("Error rate", "%", 100),
}
# By the words of the API.
NAMES = {camelize(name): name for name in MEASURE_BADGES}


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
            _measure(name, getattr(metrics.measures, name)) for name in MEASURE_BADGES
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


def _shown(name: str, value: float | None, sign: str = "") -> str:
    _, unit, scale = MEASURE_BADGES[name]
    return "–" if value is None else f"{value * scale:{sign}.1f} {unit}"


def _distance(found: Distance) -> str:
    name = NAMES[found.measure]
    return (
        f"{MEASURE_BADGES[name][0]} {_shown(name, found.value)}, "
        f"{found.direction} its usual {_shown(name, found.usual)} "
        f"({found.confidence} confidence, "
        f"{counted(found.baseline_samples, 'report')})"
    )


def _measure(name: str, values: MeasureSummary) -> dict[str, Any]:
    usual = values.baseline
    return {
        "name": MEASURE_BADGES[name][0],
        "devices": values.devices,
        "mean": _shown(name, values.mean),
        "median": _shown(name, values.p50),
        "high": _shown(name, values.p95),
        "highest": _shown(name, values.max),
        "usual": _shown(name, usual.mean),
        "usual_devices": usual.devices,
        "change": _shown(name, usual.mean_change, "+"),
    }
