"""A small world for tests of deployments: people, images, scripted devices, a clock.

Everything is made through the services, so that no impossible row exists. Time passes
only when a test says so.
"""

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from deployments.choices import AcknowledgedWarning, ReportStatus
from deployments.criteria import HealthCriteria, RollbackThresholds
from deployments.models import Deployment, Event, Target, Update
from deployments.protocols.native.instruction import instruction_of
from deployments.services.launch import create_deployment
from deployments.services.offers import poll
from deployments.services.preview import Preview, preview_deployment
from deployments.services.reports import DeviceReport, apply_report
from deployments.services.requests import DeploymentRequest, Selection
from deployments.services.tick import tick
from devices.models import Device
from devices.services.registry import register_device
from firmware.models import DeviceModel, Firmware
from firmware.services.approval import approve_firmware
from firmware.services.device_models import create_device_model
from firmware.services.keys import current_storage_key, ensure_firmware_keys
from firmware.services.uploads import register_firmware
from firmware.storage import ImageReceiver
from health.services.heartbeats import HeartbeatAnswer, record_heartbeat
from health.services.watching import sweep
from health.triggers import TRIGGERS
from hotswap.common.models import User
from hotswap.common.people import create_person
from hotswap.common.roles import Role
from tests.health.factories import HeartbeatFactory

MODEL = "sensor-v1"
START = datetime(2026, 3, 2, 12, 0, tzinfo=UTC)
CRITERIA = HealthCriteria(
    confirmation_duration=timedelta(seconds=10),
    heartbeats_required=2,
    watch_duration=timedelta(hours=1),
)
THRESHOLDS = RollbackThresholds.of(
    offline_after=timedelta(seconds=60),
    **{
        each.duration: timedelta(seconds=20)
        for each in TRIGGERS
        if each.default_duration
    },
)


# Named by launches that are not about them.
EVERY_WARNING = AcknowledgedWarning.values


@dataclass
class World:
    """The clock and the people; makes everything else."""

    now: datetime = START
    admin: User = field(init=False)
    devices: dict[str, "ScriptedDevice"] = field(default_factory=dict)

    def __post_init__(self) -> None:
        ensure_firmware_keys()
        self.admin = create_person(
            username=f"admin-{secrets.token_hex(3)}",
            password="x-Str0ng-enough",
            role=Role.ADMIN,
            actor=None,
        )

    def image(
        self,
        version: str,
        *,
        model: str = MODEL,
        content: bytes | None = None,
        approved: bool = True,
        **fields: Any,
    ) -> Firmware:
        """Upload an image of the version, and approve it."""
        if not DeviceModel.objects.filter(name=model).exists():
            create_device_model(actor=None, name=model)
        receiver = ImageReceiver(current_storage_key(), max_bytes=1 << 20)
        receiver.write(content or f"image of {model} {version}".encode())
        firmware, _ = register_firmware(
            actor=self.admin,
            model_name=model,
            version=version,
            staged=receiver.finish(),
            **fields,
        )
        receiver.discard()
        if approved:
            firmware = approve_firmware(actor=self.admin, firmware_id=firmware.pk)
        return firmware

    def fleet(
        self, count: int, runs: Firmware, *, region: str = "US-EAST", prefix: str = "d"
    ) -> list["ScriptedDevice"]:
        """Register devices that run an image and have said so."""
        made = []
        for index in range(count):
            name = f"{prefix}-{index:03}"
            device, _ = register_device(
                actor=self.admin,
                device_id=name,
                model_name=runs.model.name,
                region=region,
            )
            scripted = ScriptedDevice(self, device.pk, name, runs)
            scripted.beat()
            self.devices[name] = scripted
            made.append(scripted)
        return made

    def launch(
        self, firmware: Firmware, strategy: str = "Direct", **changes: Any
    ) -> Deployment:
        """Launch a deployment of the firmware, to everyone unless told otherwise."""
        deployment, _ = create_deployment(
            actor=self.admin,
            request=self.request(firmware, strategy, **changes),
            now=self.now,
        )
        self.tick()
        deployment.refresh_from_db()
        return deployment

    def launch_with_approvals(self) -> Deployment:
        """Launch a canary to ten devices, and let its first stage be proved.

        The next one waits for its approval.
        """
        old, new = self.image("1.0.0"), self.image("2.0.0")
        self.fleet(10, old)
        deployment = self.launch(
            new,
            "Canary",
            parameters={"wait_duration": 0.0},
            require_approval_per_stage=True,
        )
        self.update_offered()
        deployment.refresh_from_db()
        return deployment

    def preview(
        self, firmware: Firmware, strategy: str = "Direct", **changes: Any
    ) -> Preview:
        """Say what the same launch would do."""
        return preview_deployment(
            request=self.request(firmware, strategy, **changes), now=self.now
        )

    @staticmethod
    def request(
        firmware: Firmware, strategy: str = "Direct", **changes: Any
    ) -> DeploymentRequest:
        """Ask for a deployment to everyone, all warnings acknowledged, unless told
        otherwise.
        """
        fields: dict[str, Any] = {
            "selection": Selection(everyone=True),
            "parameters": {},
            "health_criteria": CRITERIA,
            "rollback_thresholds": THRESHOLDS,
            "device_timeout": timedelta(minutes=5),
            "acknowledge": frozenset(EVERY_WARNING),
        } | changes
        if strategy == "Canary":
            fields["parameters"] = {
                "initial_percentage": 10,
                "increments": [30, 100],
                "wait_duration": 60.0,
            } | fields["parameters"]
        return DeploymentRequest(firmware_id=firmware.pk, strategy=strategy, **fields)

    def tick(self, seconds: float = 0) -> None:
        """Let time pass, then run a sweep and a tick."""
        self.now += timedelta(seconds=seconds)
        sweep(now=self.now)
        tick(now=self.now)

    def live_on(self, seconds: int, *, step: int = 5, but: Any = ()) -> None:
        """Let time pass while all devices but some send healthy heartbeats."""
        silent = {device.name for device in but}
        for _ in range(0, seconds, step):
            self.now += timedelta(seconds=step)
            for device in self.devices.values():
                if device.name not in silent:
                    device.beat()
            sweep(now=self.now)
            tick(now=self.now)

    def update_offered(self, *, step: int = 5) -> list["ScriptedDevice"]:
        """Let every device that gets an order go through it to the proof."""
        took = [device for device in self.devices.values() if device.poll()]
        for device in took:
            device.go_through()
        self.live_on(CRITERIA.confirmation_duration.seconds + step, step=step)
        return took


@dataclass
class ScriptedDevice:
    """A device that does exactly what a test tells it, through the services."""

    world: World
    pk: UUID
    name: str
    runs: Firmware
    boot: int = 1
    order: dict[str, Any] | None = None
    sequence: int = 0

    @property
    def device(self) -> Device:
        return Device.objects.get(pk=self.pk)

    @property
    def boot_id(self) -> str:
        return f"{self.name}-boot-{self.boot}"

    def beat(self, **changes: Any) -> HeartbeatAnswer:
        """Send a heartbeat, a healthy one unless told otherwise."""
        fields: dict[str, Any] = {
            "boot_id": self.boot_id,
            "firmware_version": self.runs.version,
            "firmware_checksum": self.runs.sha256,
        } | changes
        return record_heartbeat(
            device=self.device,
            beat=HeartbeatFactory.create(**fields),
            now=self.world.now,
        )

    def poll(self) -> dict[str, Any] | None:
        """Ask for work and remember the order."""
        answer = poll(device=self.device, now=self.world.now)
        if answer.order is None:
            return None
        instruction = instruction_of(answer.order)
        known = self.order["updateId"] if self.order else None
        if instruction["updateId"] != known:
            self.order = instruction
            self.sequence = 0
        return instruction

    def report(
        self,
        status: str,
        *,
        sequence: int | None = None,
        body: Mapping[str, Any] | None = None,
        **fields: Any,
    ) -> bool:
        """Report on the order at hand; `body` is kept beside sequence and status."""
        assert self.order is not None
        fields.setdefault("boot_id", self.boot_id)
        if sequence is None:
            self.sequence += 1
            sequence = self.sequence
        return apply_report(
            device_id=self.pk,
            name=self.name,
            update_id=UUID(self.order["updateId"]),
            report=DeviceReport(
                sequence=sequence,
                status=ReportStatus(status),
                body={"sequence": sequence, "status": status, **(body or {})},
                **fields,
            ),
            now=self.world.now,
        )

    def ordered_image(self) -> Firmware:
        assert self.order is not None
        return Firmware.objects.select_related("model").get(
            pk=self.order["firmware"]["id"]
        )

    def reboot_into(self, firmware: Firmware) -> None:
        """Come back with a new boot id, running the firmware."""
        self.boot += 1
        self.runs = firmware

    def work(self, **fields: Any) -> None:
        """Report every step up to the reboot."""
        for status in ("downloading", "verifying", "installing"):
            self.report(status, **fields)
        if self.order and self.order["rebootRequired"]:
            self.report("rebooting", **fields)

    def go_through(self) -> None:
        """Carry the order out, honestly, up to the claim."""
        assert self.order is not None
        self.work()
        if self.order["rebootRequired"]:
            self.reboot_into(self.ordered_image())
        self.beat()
        self.report("confirming")
        self.beat()

    def target(self, deployment: Deployment) -> Target:
        return Target.objects.get(deployment=deployment, device_id=self.pk)

    def open_updates(self) -> int:
        return Update.objects.filter(device_id=self.pk, closed_at=None).count()


def statuses(deployment: Deployment) -> dict[str, int]:
    """Count the targets of a deployment by status, read from the rows."""
    found: dict[str, int] = {}
    for status in Target.objects.filter(deployment=deployment).values_list(
        "status", flat=True
    ):
        found[status] = found.get(status, 0) + 1
    return found


def events(deployment: Deployment) -> list[str]:
    """Return the names of the log lines, oldest first."""
    return list(
        Event.objects.filter(deployment=deployment)
        .order_by("id")
        .values_list("event", flat=True)
    )
