"""Launching a deployment again, with the same settings or some others."""

from datetime import timedelta
from typing import Any

import pytest

from deployments.copying import copied_body, launch_body
from deployments.criteria import HealthCriteria, RollbackThresholds
from deployments.inputs import DeploymentInput, to_request
from deployments.models import Deployment
from deployments.services.requests import DeploymentRequest, Selection
from deployments.strategies.registry import STRATEGIES
from devices.services.groups import add_members, create_group
from firmware.models import Firmware
from hotswap.common.models import AuditEvent
from tests.api import pointers, problem_of
from tests.callers import PersonCaller
from tests.deployments.world import World, events

SETTINGS: dict[str, Any] = {
    "health_criteria": HealthCriteria(timedelta(seconds=90), 3, timedelta(hours=2)),
    "rollback_thresholds": RollbackThresholds.of(
        offline_after=timedelta(minutes=3), cpu_usage=80, minimum_sample=2
    ),
    "health_threshold": 97.5,
    "on_warning": "pause",
    "offline_devices": "exclude",
    "busy_devices": "exclude",
    "offline_deadline": timedelta(hours=6),
    "device_timeout": timedelta(minutes=7),
    "max_attempts": 2,
    "require_approval_per_stage": True,
    "maintenance_window": {
        "days": ["MO"],
        "start": "10:00",
        "end": "14:00",
        "timezone": "UTC",
    },
    "max_devices_per_minute": 30,
    "start_spread": timedelta(minutes=5),
}


@pytest.fixture
def old(world: World) -> Firmware:
    return world.image("1.0.0")


@pytest.fixture
def new(world: World, old: Firmware) -> Firmware:
    return world.image("2.0.0")


def asked_again(deployment: Deployment) -> DeploymentRequest:
    serializer = DeploymentInput(data=launch_body(deployment))
    serializer.is_valid(raise_exception=True)
    return to_request(serializer.validated_data)


@pytest.mark.parametrize("strategy", sorted(STRATEGIES))
def test_the_body_of_a_deployment_asks_for_the_same_again(
    world: World, old: Firmware, new: Firmware, strategy: str
) -> None:
    world.fleet(10, old)
    parameters = dict(STRATEGIES[strategy].defaults)
    selection = Selection(everyone=True)
    if strategy == "Regional":
        parameters |= {"regions": ["US-EAST"], "pause_duration": 60.0}
        selection = Selection(regions=("US-EAST",))
    asked = {"parameters": parameters, "selection": selection, **SETTINGS}
    deployment = world.launch(new, strategy, **asked)

    assert asked_again(deployment) == DeploymentRequest(
        firmware_id=new.pk,
        strategy=strategy,
        **(asked | {"parameters": deployment.parameters}),
    )


def test_other_devices_replace_those_of_the_original() -> None:
    original = {"strategy": "Direct", "targetAll": True, "maxAttempts": 2}

    body = copied_body(original, {"targetDevices": ["d-1"]})

    assert body == {"strategy": "Direct", "targetDevices": ["d-1"], "maxAttempts": 2}


def test_another_strategy_comes_without_the_fields_of_the_former_one() -> None:
    original = {
        "strategy": "Canary",
        "increments": [100],
        "initialPercentage": 5,
        "healthThreshold": 99.0,
        "targetAll": True,
    }

    body = copied_body(original, {"strategy": "BlueGreen"})

    assert body == {"strategy": "BlueGreen", "targetAll": True}


def test_an_operator_copies_a_deployment_and_says_why(
    world: World, old: Firmware, new: Firmware, operator: PersonCaller
) -> None:
    fleet = world.fleet(10, old)
    first = world.launch(new, "Canary", name="the first", max_attempts=2)
    group = create_group(actor=world.admin, name="lab")
    add_members(
        actor=world.admin,
        group_id=group.pk,
        device_ids=[device.name for device in fleet[:3]],
    )

    answer = operator.post(
        f"/deployments/{first.pk}/copy",
        {
            "reason": "the lab once more",
            "targetGroups": [str(group.pk)],
            "rollbackThresholds": {"cpuUsage": 50},
        },
    )

    assert answer.status_code == 201, answer.content
    body = answer.json()
    assert body["copiedFrom"] == str(first.pk)
    assert answer.headers["Location"] == f"/api/v1/deployments/{body['id']}"
    copy = Deployment.objects.get(pk=body["id"])
    assert copy.target_count == 3
    assert copy.max_attempts == 2
    assert copy.thresholds.limits.by_name["cpu"].value == 50
    assert (
        copy.thresholds.limits.by_name["memory"]
        == first.thresholds.limits.by_name["memory"]
    )
    created = copy.events.get(event="deployment.created")
    assert created.message.endswith("as a copy of the first: the lab once more")
    assert events(copy)[:2] == ["deployment.created", "deployment.started"]
    trail = AuditEvent.objects.get(object_id=copy.pk)
    assert trail.details["reason"] == "the lab once more"


def test_a_deployment_shows_the_request_that_asks_for_it_again(
    world: World, old: Firmware, new: Firmware, operator: PersonCaller
) -> None:
    world.fleet(2, old)
    first = world.launch(new)

    shown = operator.get(f"/deployments/{first.pk}").json()

    again = operator.post(
        "/deployments", shown["request"] | {"acknowledge": ["whole_fleet"]}
    )
    assert again.status_code == 201, again.content


@pytest.mark.parametrize(
    ("body", "pointer", "code"),
    [
        ({}, "/reason", "required"),
        ({"reason": 5}, "/reason", "invalid"),
        ({"reason": "x", "batchSize": 5}, "/batchSize", "foreign"),
        ({"reason": "x", "nonsense": 5}, "/nonsense", "unknown"),
        ({"reason": "x", "maxAttempts": 0}, "/maxAttempts", "min_value"),
        ({"reason": "x", "healthCriteria": 7}, "/healthCriteria", "invalid"),
        (["reason"], "", "invalid"),
    ],
)
def test_what_does_not_fit_is_named_and_nothing_is_copied(
    world: World,
    old: Firmware,
    new: Firmware,
    operator: PersonCaller,
    body: Any,
    pointer: str,
    code: str,
) -> None:
    world.fleet(2, old)
    first = world.launch(new)

    answer = operator.post(f"/deployments/{first.pk}/copy", body)

    assert pointers(problem_of(answer, 400)).get(pointer) == code
    assert Deployment.objects.count() == 1
