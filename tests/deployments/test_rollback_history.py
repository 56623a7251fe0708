"""The rollbacks of all deployments in one list."""

from typing import Any
from urllib.parse import quote

import pytest

from deployments.models import Deployment
from deployments.services.operate import rollback_deployment
from tests.api import pointers, problem_of
from tests.callers import PersonCaller
from tests.deployments.world import World


def by_hand(world: World, deployment: Deployment) -> None:
    rollback_deployment(
        actor=world.admin,
        deployment_id=deployment.pk,
        reason="the valve sticks",
        now=world.now,
    )


@pytest.fixture
def history(world: World) -> tuple[Deployment, Deployment]:
    """Two deployments that went back: by a gate, and two minutes later by hand."""
    old = world.image("1.0.0")
    devices = world.fleet(4, old)
    failing = world.launch(world.image("2.0.0"), max_attempts=1)
    for device in devices:
        device.poll()
        device.report("failed", error_code="self_test_failed")
    world.tick(1)
    world.tick(1)
    failing.refresh_from_db()
    assert failing.rollback_started_at is not None
    world.live_on(120)
    other = world.launch(world.image("3.0.0"))
    world.update_offered()
    by_hand(world, other)
    return failing, other


def test_all_rollbacks_are_listed_newest_first(
    viewer: PersonCaller, history: tuple[Deployment, Deployment]
) -> None:
    failing, other = history

    found = viewer.get("/rollbacks").json()["results"]

    second, first = found
    assert second["deployment"]["id"] == str(other.pk)
    assert (second["trigger"], second["stage"]) == ("operator", None)
    assert second["reason"] == "by an operator: the valve sticks"
    assert second["firmware"]["version"] == "3.0.0"
    assert second["scope"] == {"level": "deployment"}
    assert second["finishedAt"] is None
    assert second["devices"] == {
        "total": 4,
        "exposed": 4,
        "succeeded": 4,
        "failed": 0,
    }
    assert first["deployment"]["name"] == failing.name
    assert (first["trigger"], first["stage"]) == ("gate", 1)
    assert first["devices"]["failed"] == 4
    assert first["reasons"] == [{"errorCode": "self_test_failed", "devices": 4}]
    assert first["startedAt"] < second["startedAt"]


def test_pages_follow_each_other(
    viewer: PersonCaller, history: tuple[Deployment, Deployment]
) -> None:
    first = viewer.get("/rollbacks?pageSize=1&count=true").json()
    second = viewer.get(first["next"].removeprefix("http://testserver/api/v1")).json()

    names = [page["results"][0]["firmware"]["version"] for page in (first, second)]
    assert (first["count"], names, second["next"]) == (2, ["3.0.0", "2.0.0"], None)


def test_rollbacks_are_found_by_firmware_time_and_trigger(
    viewer: PersonCaller, history: tuple[Deployment, Deployment]
) -> None:
    failing, other = history

    def versions(query: str) -> list[str]:
        rows = viewer.get(f"/rollbacks?{query}").json()["results"]
        return [row["firmware"]["version"] for row in rows]

    started = Deployment.objects.get(pk=other.pk).rollback_started_at
    assert started is not None
    moment = quote(started.isoformat())
    assert versions(f"firmware={failing.firmware_id}") == ["2.0.0"]
    assert versions(f"deployment={other.pk}") == ["3.0.0"]
    assert versions(f"from={moment}") == ["3.0.0"]
    assert versions(f"to={moment}") == ["2.0.0"]
    assert versions("trigger=gate") == ["2.0.0"]
    assert versions("trigger=operator") == ["3.0.0"]


@pytest.mark.parametrize(
    "query",
    [
        "trigger=fate",
        "firmware=2.0.0",
        "from=yesterday",
        "from=2026-11-29T12:00:00",
        "to=2026-11-29T12:00:00",
        "sort=reason",
    ],
)
def test_a_wrong_filter_is_named(viewer: PersonCaller, query: str) -> None:
    name = query.partition("=")[0]

    found: Any = problem_of(viewer.get(f"/rollbacks?{query}"), 400)

    assert set(pointers(found)) == {f"/{name}"}
