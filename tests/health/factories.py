"""Heartbeats of a healthy device."""

import factory

from health.services.heartbeats import Heartbeat


class HeartbeatFactory(factory.Factory[Heartbeat]):
    class Meta:
        model = Heartbeat

    cpu_usage = 5.0
    memory_usage = 20.0
    uptime = 100
    boot_id = "boot-1"
    firmware_version = "1.0.0"
    firmware_checksum = "a" * 64
    application_metrics = factory.LazyFunction(lambda: {"errorRate": 0.0})
    secure_boot = "unknown"
