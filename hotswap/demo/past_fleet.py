"""Devices of the past: they speak to the server's services in the place of agents.

Each beats, takes its orders and reports its steps as an agent does, at the time of the
clock that it shares with the server.
"""

import math
import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from deployments.choices import ReportStatus
from deployments.protocols.native.fast_path import plain_heartbeat
from deployments.protocols.native.messages import read_plain_heartbeat
from deployments.services.offers import Order, poll
from deployments.services.reports import DeviceReport, apply_report
from devices.models import Device
from firmware.models import Firmware
from health.services.heartbeats import take_in_heartbeat
from hotswap.demo.clock import MovableClock

DAY_SECONDS = 86_400.0
STEP_SECONDS = 0.8
USUAL_ERROR_RATIO = 0.004


@dataclass(slots=True)
class PastDevice:
    """One device and what it runs.

    Attributes:
        error_ratios: share of errors (0-1) of images that err, by their versions.
        faults: how often its next installations fail.
    """

    device: Device
    runs: Firmware
    clock: MovableClock
    chance: random.Random
    error_ratios: Mapping[str, float] = field(default_factory=dict)
    boots: int = 1
    faults: int = 0
    _booted_at: float = 0.0
    _sequence: int = 0

    @property
    def pk(self) -> UUID:
        return self.device.pk

    @property
    def boot_id(self) -> str:
        return f"{self.device.device_id}-{self.boots}"

    def beat(self) -> None:
        """Send a heartbeat: what it runs, and how it is by the hour of the day."""
        now = self.clock()
        hour = math.sin(now.timestamp() / DAY_SECONDS * math.tau)
        seconds = now.timestamp()
        is_first = not self._booted_at
        if is_first:
            self._booted_at = seconds
        errors = self.error_ratios.get(self.runs.version, USUAL_ERROR_RATIO)
        body = {
            "cpuUsage": round(24 + 9 * hour + self.chance.uniform(-4, 4), 1),
            "memoryUsage": round(41 + 3 * hour + self.chance.uniform(-2, 2), 1),
            "uptime": int(seconds - self._booted_at),
            "bootId": self.boot_id,
            "firmwareVersion": self.runs.version,
            "firmwareChecksum": self.runs.sha256,
            "applicationMetrics": {
                "errorRate": round(errors * self.chance.uniform(0.8, 1.2), 4),
                "temperatureCelsius": round(
                    61 + 6 * hour + self.chance.uniform(-1, 1), 2
                ),
            },
        }
        plain = None if is_first else read_plain_heartbeat(body)
        if plain is None or not plain_heartbeat(
            self.device.device_id, self.pk, plain, now
        ):
            take_in_heartbeat(device=self.device, body=body, now=now)

    def work(self) -> bool:
        """Carry an order out up to the claim; tell whether there was one."""
        order = poll(device=self.device, now=self.clock()).order
        if order is None:
            return False
        self._sequence = 0
        self._report(order, ReportStatus.DOWNLOADING, progress_percent=0.0)
        self._report(order, ReportStatus.VERIFYING)
        self._report(order, ReportStatus.INSTALLING)
        if self.faults:
            self.faults -= 1
            self._report(
                order,
                ReportStatus.FAILED,
                error_code="install_failed",
                message="no space is left in the other slot",
            )
            return True
        self._report(order, ReportStatus.REBOOTING)
        self._reboot_into(order)
        self.beat()
        self._report(order, ReportStatus.CONFIRMING)
        return True

    def _reboot_into(self, order: Order) -> None:
        self.boots += 1
        self._booted_at = 0.0
        self.runs = Firmware.objects.get(
            model_id=self.device.model_id, sha256=order.checksum
        )

    def _report(self, order: Order, status: ReportStatus, **more: Any) -> None:
        self._sequence += 1
        self.clock.advance(STEP_SECONDS * self.chance.uniform(0.5, 1.5))
        apply_report(
            device_id=self.pk,
            name=self.device.device_id,
            update_id=order.update_id,
            report=DeviceReport(
                sequence=self._sequence,
                status=status,
                body={"sequence": self._sequence, "status": status.value},
                boot_id=self.boot_id,
                **more,
            ),
            now=self.clock(),
        )
