"""The 30 days before the demo begins, lived through by the real services.

Rules:
- Every row is written by the service that would have written it, at the time of a clock
  that begins 30 days ago: there is nothing that a server could not have left.
- It ends with every device on the version with which the demo's devices are switched
  on, and with no deployment that a tick would still move.
- Whatever is drawn by chance is drawn the same each time.
"""

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from django.db import connection

from deployments.choices import DeploymentStatus, TargetStatus
from deployments.criteria import HealthCriteria, RollbackThresholds
from deployments.exceptions import AcknowledgementRequiredError
from deployments.models import Deployment, MailRecipient, Target
from deployments.services import operate
from deployments.services.launch import create_deployment
from deployments.services.receivers import create_receiver
from deployments.services.requests import DeploymentRequest, Selection
from deployments.services.tick import tick
from deployments.strategies.registry import STRATEGIES
from devices.models import DeviceGroup
from devices.rules import Rule
from devices.services.groups import add_members, create_group
from devices.services.registry import change_device, register_device
from firmware.models import Firmware
from firmware.services.approval import (
    approve_firmware,
    deprecate_firmware,
    reject_firmware,
)
from firmware.services.device_models import create_device_model
from firmware.services.keys import current_storage_key
from firmware.services.uploads import register_firmware
from firmware.storage import ImageReceiver
from health.services.history import make_partitions
from health.services.watching import sweep
from hotswap.common.models import User
from hotswap.common.trail import sealer
from hotswap.demo.clock import MovableClock
from hotswap.demo.fleet import (
    FACTORY_VERSION,
    GATEWAY,
    MODELS,
    REGIONS,
    SENSOR,
    TRACKER,
    DemoDevice,
    DemoFiles,
    Kind,
)
from hotswap.demo.past_fleet import PastDevice
from hotswap.demo.programs.build import build_program
from hotswap.demo.seed import GATEWAY_GROUP, LAB_GROUP, group_members

LENGTH = timedelta(days=30)
FIRST, SECOND, RECALLED = "2.2.0", "2.3.0", "2.3.1"
MAX_IMAGE_BYTES = 1 << 20
EARLY_SENSORS = 16
# Ticks further apart than 30 s count as an outage, after which clocks begin anew.
STEP_SECONDS = 25.0
QUIET_SECONDS = 270.0
MAX_STEPS = 200
HOUR_OF_ROLL_CALL = 8
MAIL_ADDRESS = "fleet-team@example.com"
CRITERIA = HealthCriteria(
    confirmation_duration=timedelta(seconds=45),
    heartbeats_required=2,
    watch_duration=timedelta(minutes=4),
)
THRESHOLDS = RollbackThresholds.of(
    offline_after=timedelta(minutes=5),
    error_rate=0.1,
    error_duration=timedelta(0),
    success_rate=50,
)


class HistoryStuckError(Exception):
    """A deployment of the past did not end; the text says which, and as what."""


def write_history(
    *, files: DemoFiles, roster: Sequence[DemoDevice], clock: MovableClock
) -> None:
    """Let 30 days pass; the clock stands at their beginning and ends short of now.

    Keeps the API keys of the devices, which are shown only once.

    Raises:
        HistoryStuckError: a deployment did not end.
    """
    Chronicle(files, roster, clock).write()


class Chronicle:
    """The people, the fleet and the days."""

    def __init__(
        self, files: DemoFiles, roster: Sequence[DemoDevice], clock: MovableClock
    ) -> None:
        self._files = files
        self._roster = roster
        self._clock = clock
        self._chance = random.Random("thirty days")
        self._began_at = clock()
        self._firmware: dict[tuple[str, str], Firmware] = {}
        self._fleet: dict[str, PastDevice] = {}
        self._keys: dict[str, str] = {}
        self._passed_days = 0
        people = {each.username: each for each in User.objects.all()}
        self._admin = people["admin"]
        self._operator = people["operator"]
        self._release = people["release"]

    # --- the days -------------------------------------------------------------

    def write(self) -> None:
        """Live through all of them."""
        with connection.cursor() as cursor:
            # Nothing of it is worth a wait for the disk: a crash starts the demo anew.
            cursor.execute("SET synchronous_commit = off")
        self._make_partitions()
        self._first_day()
        self._second_version()
        self._recalled_version()
        self._factory_version()
        self._growth()
        self._last_days()
        with connection.cursor() as cursor:
            cursor.execute("RESET synchronous_commit")

    def _make_partitions(self) -> None:
        at = self._began_at
        while at <= datetime.now(UTC):
            make_partitions(now=at)
            at += timedelta(days=7)

    def _first_day(self) -> None:
        for name, description in MODELS.items():
            create_device_model(actor=self._admin, name=name, description=description)
        for model in MODELS:
            self._publish(model, FIRST, "As delivered to the first plants.")
        sensors = [each for each in self._roster if each.model == SENSOR]
        others = [each for each in self._roster if each.model != SENSOR]
        self._register([*sensors[:EARLY_SENSORS], *others], FIRST)
        for name, description in (
            (LAB_GROUP, "A bit of everything, tried first."),
            (GATEWAY_GROUP, ""),
        ):
            create_group(actor=self._operator, name=name, description=description)
        create_group(
            actor=self._operator,
            name="plant-1",
            description="Whatever stands there.",
            type="Dynamic",
            rule=Rule(tags=(("site", ("plant-1",)),)),
        )
        self._fill_groups()

    def _second_version(self) -> None:
        self._days_until(3)
        firmware = self._publish(SENSOR, SECOND, "Readings are filtered.")
        self._play(self._canary(firmware, "2.3.0 for all sensors"))
        self._days_until(6)
        firmware = self._publish(GATEWAY, SECOND, "The cabinet's door is watched.")
        self._play(
            self._launch(
                firmware,
                "Rolling",
                "2.3.0 for the gateways",
                selection=self._group(GATEWAY_GROUP),
                batch_size=3,
                batch_wait_duration=180.0,
            )
        )
        deprecate_firmware(
            actor=self._admin,
            firmware_id=self._firmware[SENSOR, FIRST].pk,
            reason="2.3.0 has proved itself.",
        )

    def _recalled_version(self) -> None:
        self._days_until(13)
        firmware = self._publish(SENSOR, RECALLED, "Less traffic: readings in blocks.")
        self._play(
            self._canary(
                firmware,
                "2.3.1 for the laboratory",
                selection=self._group(LAB_GROUP),
            ),
            expected=DeploymentStatus.ROLLED_BACK,
        )
        self._clock.advance(2400)
        deprecate_firmware(
            actor=self._admin,
            firmware_id=firmware.pk,
            reason="Loses readings: 3 in 10 fail.",
        )
        rejected = self._upload(TRACKER, RECALLED, "Same change as for the sensors.")
        self._clock.advance(900)
        reject_firmware(
            actor=self._admin,
            firmware_id=rejected.pk,
            comment="It failed on the sensors.",
        )

    def _factory_version(self) -> None:
        self._days_until(17)
        sensors = self._publish(
            SENSOR, FACTORY_VERSION, "As delivered: the mean of each frame."
        )
        self._all_sensors(sensors)
        self._days_until(22)
        gateways = self._publish(GATEWAY, FACTORY_VERSION, "As delivered.")
        self._play(
            self._launch(
                gateways,
                "BlueGreen",
                "2.4.0 for the gateways",
                selection=self._group(GATEWAY_GROUP),
                verification_duration=240.0,
            )
        )
        self._days_until(26)
        trackers = self._publish(TRACKER, FACTORY_VERSION, "Survives long silences.")
        self._regions(trackers)

    def _growth(self) -> None:
        """Take in the sensors that are delivered with the version of the day."""
        self._days_until(27)
        self._register(
            [each for each in self._roster if each.device_id not in self._keys],
            FACTORY_VERSION,
        )
        self._fill_groups()

    def _all_sensors(self, firmware: Firmware) -> None:
        """Reach all sensors but one, which is tried again after somebody was there."""
        stubborn = next(
            device
            for device in self._fleet.values()
            if device.device.model == firmware.model and device.runs != firmware
        )
        stubborn.faults = 3
        deployment = self._launch(
            firmware, "Rolling", "2.4.0 for all sensors", batch_size=6
        )
        self._play(deployment)
        self._clock.advance(5400)
        self._roll_call()
        operate.retry_failed(
            actor=self._operator,
            deployment_id=deployment.pk,
            reason="Somebody was there and made room.",
        )
        self._play(deployment)

    def _regions(self, firmware: Firmware) -> None:
        """Go from region to region, with a pause in between by a person."""
        deployment = self._launch(
            firmware,
            "Regional",
            "2.4.0 for the trackers",
            selection=Selection(regions=REGIONS),
            regions=list(REGIONS),
            pause_duration=600.0,
        )
        self._play(deployment, until=lambda: _successes(deployment) > 1)
        operate.pause_deployment(
            actor=self._operator,
            deployment_id=deployment.pk,
            reason="The lorries of the next region are being loaded.",
        )
        self._clock.advance(3000)
        self._roll_call()
        operate.resume_deployment(
            actor=self._operator,
            deployment_id=deployment.pk,
            reason="They are on the road again.",
        )
        self._play(deployment)

    def _last_days(self) -> None:
        self._days_until(28)
        deployment = self._launch(
            self._firmware[SENSOR, SECOND],
            "Direct",
            "Back to 2.3.0, for a comparison",
            selection=Selection(device_ids=("sensor-004", "sensor-005")),
            scheduled_at=self._clock() + timedelta(hours=6),
        )
        self._clock.advance(1800)
        operate.cancel_deployment(
            actor=self._operator,
            deployment_id=deployment.pk,
            reason="The comparison was made on the bench.",
        )
        create_receiver(
            actor=self._admin,
            kind=MailRecipient,
            description="Those who look after the fleet",
            address=MAIL_ADDRESS,
        )
        self._days_until(29)
        self._last_hours()

    def _last_hours(self) -> None:
        """Let the devices that people look at first be heard until a moment ago."""
        end = datetime.now(UTC) - timedelta(minutes=5)
        watched = [
            device
            for each in self._roster
            if each.kind is Kind.AGENT
            for device in (self._fleet[each.device_id],)
        ]
        while self._clock() < end - timedelta(minutes=20):
            for device in watched:
                device.beat()
            self._clock.advance(1200)
        self._clock.set(max(end, self._clock()))
        self._roll_call()
        sealer.tend(now=self._clock())

    # --- what happens on them ---------------------------------------------------

    def _days_until(self, day: int) -> None:
        """Let mornings pass, on which every device is heard."""
        while self._passed_days < day:
            at = self._began_at + timedelta(
                days=self._passed_days, hours=HOUR_OF_ROLL_CALL
            )
            if at > self._clock():
                self._clock.set(at)
                self._roll_call()
            sealer.tend(now=self._clock())
            self._passed_days += 1
        self._clock.set(
            max(
                self._clock(),
                self._began_at
                + timedelta(days=day, hours=9, minutes=self._chance.randrange(60)),
            )
        )

    def _roll_call(self) -> None:
        for device in self._fleet.values():
            device.beat()

    def _upload(self, model: str, version: str, notes: str) -> Firmware:
        path = self._files.image(model, version)
        if not path.exists():
            build_program(version, model, path)
        receiver = ImageReceiver(current_storage_key(), max_bytes=MAX_IMAGE_BYTES)
        try:
            receiver.write(path.read_bytes())
            firmware, _ = register_firmware(
                actor=self._release,
                model_name=model,
                version=version,
                staged=receiver.finish(),
                release_notes=notes,
            )
        finally:
            receiver.discard()
        return firmware

    def _publish(self, model: str, version: str, notes: str) -> Firmware:
        """Upload an image as one person, approve it as another, an hour later."""
        firmware = self._upload(model, version, notes)
        self._clock.advance(self._chance.uniform(1200, 4800))
        firmware = approve_firmware(
            actor=self._admin,
            firmware_id=firmware.pk,
            comment="Tried on the bench.",
        )
        self._firmware[model, version] = firmware
        return firmware

    def _register(self, devices: Sequence[DemoDevice], version: str) -> None:
        for each in devices:
            device, self._keys[each.device_id] = register_device(
                actor=self._operator,
                device_id=each.device_id,
                model_name=each.model,
                region=each.region,
                tags={"site": each.site},
                metadata={"existsAs": each.kind.value},
            )
            if each.kind is Kind.SPARE:
                # Nothing runs it: a rollout to everyone must not wait for it.
                change_device(
                    actor=self._operator,
                    device_id=each.device_id,
                    changes={"enabled": False},
                    acknowledged=True,
                )
                continue
            past = PastDevice(
                device=device,
                runs=self._firmware[each.model, version],
                clock=self._clock,
                chance=self._chance,
                error_ratios={RECALLED: 0.31},
            )
            self._fleet[each.device_id] = past
            past.beat()
        self._files.write_api_keys(self._keys)

    def _fill_groups(self) -> None:
        for name, members in group_members(self._roster).items():
            add_members(
                actor=self._operator,
                group_id=DeviceGroup.objects.get(name=name).pk,
                device_ids=[
                    each.device_id for each in members if each.device_id in self._keys
                ],
                acknowledged=True,
            )

    def _group(self, name: str) -> Selection:
        return Selection(group_ids=(DeviceGroup.objects.get(name=name).pk,))

    def _canary(
        self, firmware: Firmware, name: str, selection: Selection | None = None
    ) -> Deployment:
        return self._launch(
            firmware,
            "Canary",
            name,
            selection=selection,
            initial_percentage=10,
            increments=[30, 100],
            wait_duration=240.0,
        )

    def _launch(
        self,
        firmware: Firmware,
        strategy: str,
        name: str,
        *,
        selection: Selection | None = None,
        scheduled_at: datetime | None = None,
        **parameters: Any,
    ) -> Deployment:
        self._roll_call()
        given: Mapping[str, Any] = {
            name: value
            for name, value in parameters.items()
            if name in STRATEGIES[strategy].defaults or name == "regions"
        }
        request = DeploymentRequest(
            name=name,
            firmware_id=firmware.pk,
            strategy=strategy,
            selection=selection or Selection(everyone=True),
            parameters={**STRATEGIES[strategy].defaults, **given},
            health_criteria=CRITERIA,
            rollback_thresholds=THRESHOLDS,
            health_threshold=90.0,
            offline_devices="exclude",
            scheduled_at=scheduled_at,
        )
        try:
            return self._create(request)
        except AcknowledgementRequiredError as refusal:
            # What is so of this launch, and nothing else.
            codes = frozenset(each.code for each in refusal.errors)
            return self._create(replace(request, acknowledge=codes))

    def _create(self, request: DeploymentRequest) -> Deployment:
        deployment, _ = create_deployment(
            actor=self._operator, request=request, now=self._clock()
        )
        return deployment

    def _play(
        self,
        deployment: Deployment,
        *,
        expected: DeploymentStatus = DeploymentStatus.COMPLETED,
        until: Callable[[], bool] | None = None,
    ) -> None:
        """Let the devices take a deployment to its end, or to an earlier moment.

        Raises:
            HistoryStuckError: it did not come, or another end did.
        """
        is_quiet = False
        for _ in range(MAX_STEPS):
            # After a long step, which counts as an outage, devices are heard again.
            is_quiet = not self._let_devices_work(deployment) and not is_quiet
            self._clock.advance(QUIET_SECONDS if is_quiet else STEP_SECONDS)
            sweep(now=self._clock())
            tick(now=self._clock())
            if until is not None and until():
                return
            if not Deployment.objects.moved_by_ticks().exists():
                break
        deployment.refresh_from_db()
        if deployment.status != expected or until is not None:
            raise HistoryStuckError(
                f"{deployment.name} is {deployment.status}, {expected} expected"
            )

    def _let_devices_work(self, deployment: Deployment) -> bool:
        """Let each device do what is its turn; tell whether any is in an update."""
        deployment.refresh_from_db()
        targets = Target.objects.filter(
            deployment=deployment, rank__lte=deployment.open_rank
        ).select_related("device")
        is_busy = False
        for target in targets.order_by("rank"):
            device = self._fleet[target.device.device_id]
            if target.status in (TargetStatus.PENDING, TargetStatus.ROLLING_BACK):
                is_busy = True
                device.work()
            elif target.status == TargetStatus.CONFIRMING:
                is_busy = True
            device.beat()
        return is_busy


def _successes(deployment: Deployment) -> int:
    return Target.objects.filter(
        deployment=deployment, status=TargetStatus.SUCCESS
    ).count()
