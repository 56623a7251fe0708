"""What the agent says of a system that it cannot measure."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import pytest

from devices.agent import system
from devices.agent.backoff import Backoff
from devices.agent.clock import StoppableClock
from devices.agent.heartbeat import Heart
from devices.agent.installer import UNKNOWN_IMAGE
from devices.agent.protocol import HeartbeatAnswer
from devices.agent.system import SystemApplication
from devices.agent.transport import Transport


class Wire:
    """Keeps what is sent."""

    def __init__(self) -> None:
        self.sent: list[Mapping[str, Any]] = []

    def send_heartbeat(self, heartbeat: Mapping[str, Any]) -> HeartbeatAnswer:
        self.sent.append(heartbeat)
        return HeartbeatAnswer(False, None)


def beat() -> Mapping[str, Any]:
    """Return the heartbeat of a device whose system runs the application."""
    wire = Wire()
    application = SystemApplication()
    application.start(cast(Any, None))
    Heart(
        transport=cast(Transport, wire),
        application=application,
        clock=StoppableClock(),
        boot_id="boot",
        interval_seconds=60,
        stale_metrics_seconds=30,
        backoff=Backoff(1, 60),
        running=lambda: UNKNOWN_IMAGE,
        restarts=lambda: 0,
        uptime_seconds=lambda: 5.0,
    ).beat_if_due()
    return wire.sent[0]


def test_what_is_measured_is_said() -> None:
    said = beat()

    assert 0 <= said["cpuUsage"] <= 100
    assert 0 < said["memoryUsage"] <= 100


def test_what_cannot_be_read_is_left_out_and_not_said_to_be_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(system, "_STAT", tmp_path / "none")
    monkeypatch.setattr(system, "_MEMINFO", tmp_path / "none")

    said = beat()

    assert said["bootId"] == "boot"
    assert not {"cpuUsage", "memoryUsage"} & said.keys()
