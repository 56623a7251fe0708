"""Heartbeats of a healthy device."""

from typing import Any

import factory

from health.heartbeat import Heartbeat, known_measures
from health.triggers import FIELDS

HEALTHY = {"cpu_usage": 5.0, "memory_usage": 20.0}


class HeartbeatFactory(factory.Factory[Heartbeat]):
    """What is measured is given by the names of the limits, as in `cpu_usage=95.0`."""

    class Meta:
        model = Heartbeat

    uptime = 100
    boot_id = "boot-1"
    firmware_version = "1.0.0"
    firmware_checksum = "a" * 64
    application_metrics = factory.LazyFunction(lambda: {"errorRate": 0.0})
    secure_boot = "unknown"

    @classmethod
    def _adjust_kwargs(cls, **given: Any) -> dict[str, Any]:
        said = {
            each.name: given.pop(each.limit, HEALTHY.get(each.limit)) for each in FIELDS
        }
        measures = known_measures(said, given["application_metrics"])
        return {"measures": measures, **given}
