"""What to do next, as the answers say it."""

import re
from collections.abc import Callable
from typing import Any

import pytest

from deployments.choices import AcknowledgedWarning
from deployments.criteria import RollbackThresholds
from deployments.reads.devices import way_to_try_again
from deployments.rules.codes import next_step
from deployments.services.operate import (
    cancel_deployment,
    pause_deployment,
    rollback_deployment,
)
from tests.callers import PersonCaller
from tests.deployments.world import World


class Story:
    """A device that failed in a deployment of two, in each status of this."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.old, self.new = world.image("1.0.0"), world.image("1.1.0")
        self.failing, self.other = world.fleet(2, self.old)
        self.deployment = world.launch(
            self.new,
            rollback_thresholds=RollbackThresholds(success_rate=0),
            health_threshold=0,
        )
        self.other.poll()
        self.failing.poll()
        self.failing.report("failed", error_code="unknown_key", message="not pinned")
        world.tick()

    def act(self, verb: Callable[..., Any]) -> None:
        verb(
            actor=self.world.admin,
            deployment_id=self.deployment.pk,
            reason="test",
            now=self.world.now,
        )

    def prove_other(self) -> None:
        if self.other.order is None or self.other.poll():
            self.other.go_through()
        self.world.live_on(15)

    def running(self) -> None:
        """It runs as it is."""

    def paused(self) -> None:
        self.act(pause_deployment)

    def completed(self) -> None:
        self.prove_other()

    def rolling_back(self) -> None:
        self.prove_other()
        self.act(rollback_deployment)

    def rolled_back(self) -> None:
        self.rolling_back()
        self.prove_other()

    def failed(self) -> None:
        self.other.report("failed", error_code="unknown_key", message="not pinned")
        self.act(rollback_deployment)
        self.world.tick()

    def cancelling(self) -> None:
        self.other.work()
        self.act(cancel_deployment)

    def cancelled(self) -> None:
        self.act(cancel_deployment)
        self.world.tick()


@pytest.mark.parametrize(
    ("way", "status", "action"),
    [
        ("running", "Running", "retry-failed"),
        ("paused", "Paused", "retry-failed"),
        ("completed", "Completed", "retry-failed"),
        ("rolling_back", "RollingBack", "copy"),
        ("rolled_back", "RolledBack", "copy"),
        ("failed", "Failed", "copy"),
        ("cancelling", "Running", "copy"),
        ("cancelled", "Cancelled", "copy"),
    ],
)
def test_what_a_next_step_names_is_accepted_in_every_status(
    world: World, operator: PersonCaller, way: str, status: str, action: str
) -> None:
    story = Story(world)
    getattr(story, way)()
    name = story.failing.name
    path = f"/deployments/{story.deployment.pk}"

    row = operator.get(f"{path}/devices/{name}").json()
    report = operator.get(f"{path}/health-report").json()
    body: dict[str, Any] = {"reason": "as it was told"}
    if action == "copy":
        body |= {"targetDevices": [name], "offlineDevices": "wait"}
        body["acknowledge"] = [warning.value for warning in AcknowledgedWarning]
    answer = operator.post(f"{path}/{action}", body)

    assert report["deployment"]["status"] == status
    assert row["status"] == "failed"
    assert re.findall("`([a-z-]+)`", row["nextStep"]) == [action]
    assert report["failures"][0]["nextStep"] == row["nextStep"]
    assert answer.status_code in (200, 201), answer.content


def test_a_device_on_its_way_back_is_retried_once_it_is_there(world: World) -> None:
    deployment = Story(world).deployment

    again = way_to_try_again(deployment, "rolling_back")

    assert next_step("unknown_key", again).endswith(
        "then retry it (`retry-failed`) once it is back on its former image."
    )
