"""What to do next, as the documentation and the answers say it."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings

from deployments.choices import (
    FINAL_ERRORS,
    IMAGE_FAULTS,
    PATH_ERRORS,
    SERVER_ERRORS,
    AcknowledgedWarning,
)
from deployments.criteria import RollbackThresholds
from deployments.next_steps import NEXT_STEPS, NOTHING_TO_DO, OTHERWISE, next_step
from deployments.reads.devices import way_to_try_again
from deployments.services.operate import (
    cancel_deployment,
    pause_deployment,
    rollback_deployment,
)
from deployments.services.progress import NEUTRAL_CODES
from devices.agent.protocol import ErrorCode
from tests.callers import PersonCaller
from tests.deployments.world import World


def test_the_documentation_says_the_same() -> None:
    page = (Path(settings.BASE_DIR) / "docs" / "monitoring.md").read_text()
    section = page.split("## What to do next")[1].split("|---|---|")[1]

    rows = dict(re.findall(r"^\| `(\w+)` \| (.+) \|$", section, re.MULTILINE))
    (otherwise,) = re.findall(r"^\| any other \| (.+) \|$", section, re.MULTILINE)

    assert rows == NEXT_STEPS
    assert otherwise == OTHERWISE


def test_every_code_of_the_server_has_a_step_of_its_own_or_needs_none() -> None:
    codes = {
        *SERVER_ERRORS,
        *FINAL_ERRORS,
        *IMAGE_FAULTS,
        *PATH_ERRORS,
        *NEUTRAL_CODES,
    }

    assert codes - NEXT_STEPS.keys() == NOTHING_TO_DO


def test_a_device_that_needs_nothing_is_told_nothing() -> None:
    assert next_step("already_installed") == ""


def test_the_agent_and_the_server_have_the_same_words_for_the_path() -> None:
    of_the_agent = {code.value for code in ErrorCode if code.name.startswith("PATH_")}

    assert of_the_agent == set(PATH_ERRORS)
    assert not of_the_agent & {*FINAL_ERRORS, *IMAGE_FAULTS, *SERVER_ERRORS}


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
