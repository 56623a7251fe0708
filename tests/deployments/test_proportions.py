"""Each trigger at each moment of a rollout, in the proportions of the specification.

One healthy canary is lived through from launch to the end of its watch. At each moment
of the table it is tried what a fault that begins there brings about, and undone again.
Devices do what they are told and nothing else; the clock is the test's.
"""

from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import pytest

from deployments.criteria import HealthCriteria, RollbackThresholds
from deployments.models import Deployment, Event, Quarantine
from deployments.services.operate import rollback_deployment
from health.triggers import OFFLINE
from tests.deployments.obedient import SILENCE, Fault, ObedientDevice, ObedientFleet
from tests.deployments.world import World, statuses

MANUAL = "manual"


@dataclass(frozen=True)
class Profile:
    """The waits and limits of a rollout.

    Attributes:
        parameters: of a canary on four devices in four stages.
        tolerance: beyond the time that a trigger takes by itself: the pace of
            heartbeats, and the reboot.
    """

    parameters: dict[str, Any]
    criteria: HealthCriteria
    thresholds: RollbackThresholds
    tolerance: timedelta

    @property
    def wait(self) -> timedelta:
        return timedelta(seconds=self.parameters["wait_duration"])


DEFAULTS = Profile(
    {"initial_percentage": 25, "increments": [50, 75, 100], "wait_duration": 3600.0},
    HealthCriteria(),
    RollbackThresholds(),
    timedelta(seconds=100),
)
SHORTENED = Profile(
    {"initial_percentage": 25, "increments": [50, 75, 100], "wait_duration": 120.0},
    HealthCriteria(
        confirmation_duration=timedelta(seconds=10),
        watch_duration=timedelta(minutes=8),
    ),
    RollbackThresholds.of(
        offline_after=timedelta(seconds=30),
        cpu_duration=timedelta(seconds=20),
        memory_duration=timedelta(seconds=20),
    ),
    # After the end a device is heard every minute, and its silence is judged after two
    # and a half of them, whatever `offline_after` says.
    timedelta(seconds=150),
)
FAULTS: dict[str, Fault] = {
    "cpu": {"cpu_usage": 99.0},
    "memory": {"memory_usage": 96.0},
    "error_rate": {"application_metrics": {"errorRate": 0.2}},
    OFFLINE: SILENCE,
}
# What a fault of the first canary brings about: the code of its device, and how the
# deployment reads once that is judged. A device that is silent cannot come home; the
# others do. The rollback of the specification is the same at every moment.
WITHIN = ("from boot", "after the proof", "after its gate", "in hour three")
TABLE: dict[tuple[str, str], tuple[str, str]] = {
    (trigger, moment): (trigger, "RollingBack")
    for trigger in FAULTS
    for moment in (*WITHIN, "after Completed")
} | {(MANUAL, moment): ("", "RollingBack") for moment in (*WITHIN, "after Completed")}


def window_of(trigger: str, profile: Profile) -> timedelta:
    """Return how long a fault lasts before it is a breach."""
    limits = profile.thresholds.limits.by_name
    return {
        **{name: limit.duration for name, limit in limits.items()},
        OFFLINE: profile.thresholds.offline_after,
        MANUAL: timedelta(0),
    }[trigger]


@dataclass
class Rollout:
    """A canary that is under way, and what is expected at its moments."""

    fleet: ObedientFleet
    deployment: Deployment
    profile: Profile
    verdicts: dict[tuple[str, str], tuple[str, str]]

    @property
    def canary(self) -> ObedientDevice:
        return min(
            self.fleet.devices,
            key=lambda each: each.scripted.target(self.deployment).rank,
        )

    def status(self) -> str:
        self.deployment.refresh_from_db()
        return self.deployment.status

    def try_each(self, moment: str) -> None:
        """Let each fault begin now, and note the verdict."""
        world = self.fleet.world
        for trigger in (*FAULTS, MANUAL):
            with self.fleet.what_if():
                canary, began = self.canary, world.now
                if trigger == MANUAL:
                    rollback_deployment(
                        actor=world.admin,
                        deployment_id=self.deployment.pk,
                        reason="tried",
                        now=world.now,
                    )
                else:
                    canary.fault = FAULTS[trigger]
                start = {
                    "from boot": timedelta(seconds=60),
                }.get(moment, timedelta(0))
                limit = window_of(trigger, self.profile) + self.profile.tolerance
                self.fleet.live_until(
                    began + start + limit,
                    until=lambda: self.status() == "RollingBack",
                )
                code = canary.scripted.target(self.deployment).error_code
                self.verdicts[trigger, moment] = (code, self.status())
                if trigger != "offline":
                    self.assert_home(trigger, moment)

    def assert_home(self, trigger: str, moment: str) -> None:
        """See everybody on the former image, with one failure and no other attempt."""
        world = self.fleet.world
        self.fleet.live_until(
            world.now + timedelta(minutes=10),
            until=lambda: self.status() == "RolledBack",
        )
        case = (trigger, moment)
        assert self.status() == "RolledBack", case
        assert set(statuses(self.deployment)) <= {"rolled_back", "cancelled"}, case
        runs = {each.scripted.device.firmware_version for each in self.fleet.devices}
        assert runs == {"1.0.0"}, case
        attempts = Event.objects.filter(
            deployment=self.deployment,
            device=self.canary.scripted.pk,
            event="device.notified",
        )
        assert attempts.count() == 1, case
        expected = 0 if trigger == MANUAL else 1
        marks = Quarantine.objects.filter(device=self.canary.scripted.pk)
        assert sum(each.failures for each in marks) == expected, case


def begin(world: World, profile: Profile) -> Rollout:
    """Launch a canary on four devices that have lived for a while."""
    old, new = world.image("1.0.0"), world.image("2.0.0")
    fleet = ObedientFleet(world, bad_checksum=new.sha256)
    fleet.add(world.fleet(4, old))
    fleet.live_until(world.now + timedelta(minutes=1))
    deployment = world.launch(
        new,
        "Canary",
        parameters=profile.parameters,
        health_criteria=profile.criteria,
        rollback_thresholds=profile.thresholds,
    )
    return Rollout(fleet, deployment, profile, {})


@pytest.mark.parametrize(
    "profile", [DEFAULTS, SHORTENED], ids=["defaults", "shortened"]
)
def test_each_trigger_takes_back_whenever_it_begins(
    world: World, profile: Profile
) -> None:
    rollout = begin(world, profile)
    fleet, deployment = rollout.fleet, rollout.deployment
    stages = deployment.stages
    hour = profile.wait

    fleet.live_until(
        world.now + 5 * hour, until=lambda: "rebooting" in statuses(deployment)
    )
    rollout.try_each("from boot")
    fleet.live_until(world.now + hour, until=lambda: "success" in statuses(deployment))
    rollout.try_each("after the proof")
    fleet.live_until(
        world.now + 2 * hour,
        until=lambda: stages.filter(number=1, status="passed").exists(),
    )
    rollout.try_each("after its gate")
    fleet.live_until(world.now + 1.5 * hour)
    assert rollout.status() == "Running"
    rollout.try_each("in hour three")
    fleet.live_until(
        world.now + 3 * hour, until=lambda: rollout.status() == "Completed"
    )
    ended_at = world.now
    fleet.live_until(world.now + profile.criteria.watch_duration / 8)
    rollout.try_each("after Completed")

    assert rollout.verdicts == TABLE
    # Nobody was taken back from the healthy rollout that all of this was tried on.
    fleet.live_until(ended_at + profile.criteria.watch_duration + timedelta(minutes=1))
    assert rollout.status() == "Completed"
    assert not Deployment.objects.filter(watching_until__isnull=False).exists()
    assert statuses(deployment) == {"success": 4}
    assert not deployment.events.filter(event="device.failed").exists()


def test_a_late_breach_takes_one_device_back_where_that_is_wanted(
    world: World,
) -> None:
    rollout = begin(world, replace(SHORTENED))
    Deployment.objects.update(on_late_breach="device")
    fleet, deployment = rollout.fleet, rollout.deployment
    fleet.live_until(
        world.now + timedelta(hours=1), until=lambda: rollout.status() == "Completed"
    )
    canary = rollout.canary

    canary.fault = FAULTS["cpu"]
    fleet.live_until(
        world.now + timedelta(minutes=10),
        until=lambda: statuses(deployment) == {"success": 3, "rolled_back": 1},
    )

    assert statuses(deployment) == {"success": 3, "rolled_back": 1}
    assert canary.scripted.target(deployment).error_code == "cpu"
    assert rollout.status() == "Completed"


def test_watching_goes_on_every_minute_for_an_hour_after_the_end(world: World) -> None:
    rollout = begin(world, DEFAULTS)
    deployment = rollout.deployment
    deployment.stages.update(wait_seconds=0)
    fleet = rollout.fleet
    fleet.live_until(
        world.now + timedelta(hours=1), until=lambda: rollout.status() == "Completed"
    )
    ended_at, until = deployment.finished_at, deployment.watching_until
    assert ended_at is not None
    assert until == ended_at + timedelta(hours=1)
    device = rollout.canary.scripted
    world.tick()

    late = device.beat().next_heartbeat_seconds
    fleet.live_until(ended_at + timedelta(hours=1, minutes=1))

    assert late == 60
    assert rollout.status() == "Completed"
    assert not Deployment.objects.filter(watching_until__isnull=False).exists()
    assert deployment.events.filter(event="watch.ended").count() == 1
    assert device.beat().next_heartbeat_seconds == 300
