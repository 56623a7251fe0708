"""Heartbeats of a healthy device."""

from collections.abc import Mapping

import factory

from health.heartbeat import Heartbeat, known_measures
from health.triggers import FIELDS


def measures_of(
    fields: Mapping[str, float | None], metrics: Mapping[str, float]
) -> dict[str, float]:
    """Return the measures of a heartbeat, by the names of their limits given."""
    said = {each.name: fields.get(each.limit) for each in FIELDS}
    return known_measures(said, metrics)


class HeartbeatFactory(factory.Factory[Heartbeat]):
    class Meta:
        model = Heartbeat

    class Params:
        cpu_usage = 5.0
        memory_usage = 20.0

    uptime = 100
    boot_id = "boot-1"
    firmware_version = "1.0.0"
    firmware_checksum = "a" * 64
    application_metrics = factory.LazyFunction(lambda: {"errorRate": 0.0})
    secure_boot = "unknown"
    measures = factory.LazyAttribute(
        lambda made: measures_of(
            {"cpu_usage": made.cpu_usage, "memory_usage": made.memory_usage},
            made.application_metrics,
        )
    )
