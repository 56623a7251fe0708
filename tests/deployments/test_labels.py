"""Names, tags and the archive of deployments."""

from typing import Any

import pytest

from deployments.models import Deployment, Event
from hotswap.common.models import AuditEvent
from tests.api import pointers
from tests.callers import PersonCaller
from tests.deployments.world import World

pytestmark = pytest.mark.django_db


@pytest.fixture
def deployment() -> Deployment:
    world = World()
    world.fleet(2, world.image("1.0.0"))
    return world.launch(world.image("2.0.0"), name="first")


def test_name_and_tags_change_while_it_runs_and_the_trail_says_so(
    deployment: Deployment, operator: PersonCaller
) -> None:
    path = f"/deployments/{deployment.pk}"

    answer = operator.patch(path, {"name": "pilot", "tags": ["b", "a", "b"]})

    assert answer.status_code == 200, answer.content
    found = operator.get(path).json()
    assert (found["name"], found["tags"]) == ("pilot", ["a", "b"])
    assert found["status"] == "Running"
    event = AuditEvent.objects.get(verb="deployment.labelled")
    assert event.actor == operator.person.pseudonym
    assert event.details["changes"] == {
        "name": {"from": "first", "to": "pilot"},
        "tags": {"from": [], "to": ["a", "b"]},
    }


def test_another_name_is_in_the_log(
    deployment: Deployment, operator: PersonCaller
) -> None:
    operator.patch(f"/deployments/{deployment.pk}", {"name": "pilot", "tags": ["a"]})
    operator.patch(f"/deployments/{deployment.pk}", {"tags": ["b"]})

    event = Event.objects.get(event="deployment.edited")
    assert event.message == "changed: name first -> pilot"


def test_the_same_again_changes_nothing(
    deployment: Deployment, operator: PersonCaller
) -> None:
    path = f"/deployments/{deployment.pk}"
    before = operator.get(path)["ETag"]

    assert operator.patch(path, {"name": "first", "tags": []}).status_code == 200

    assert operator.get(path)["ETag"] == before
    assert not AuditEvent.objects.filter(verb="deployment.labelled").exists()


def test_what_is_stale_is_refused(
    deployment: Deployment, operator: PersonCaller
) -> None:
    path = f"/deployments/{deployment.pk}"
    stale = {"If-Match": operator.get(path)["ETag"]}
    operator.patch(path, {"name": "second"})

    assert operator.patch(path, {"name": "third"}, headers=stale).status_code == 412
    assert operator.get(path).json()["name"] == "second"


def test_only_what_has_ended_is_archived(
    deployment: Deployment, operator: PersonCaller
) -> None:
    path = f"/deployments/{deployment.pk}"
    refused = operator.patch(path, {"archived": True, "name": "x"})
    assert refused.status_code == 409
    assert refused.json()["code"] == "wrong_status"
    assert operator.get(path).json()["name"] == "first"
    Deployment.objects.filter(pk=deployment.pk).update(status="Cancelled")

    since = operator.patch(path, {"archived": True}).json()["archivedAt"]

    assert since is not None
    assert operator.patch(path, {"archived": True}).json()["archivedAt"] == since
    assert operator.patch(path, {"archived": False}).json()["archivedAt"] is None


def test_lists_are_filtered_by_tag_and_archive(
    deployment: Deployment, operator: PersonCaller
) -> None:
    Deployment.objects.filter(pk=deployment.pk).update(status="Cancelled")
    path = f"/deployments/{deployment.pk}"
    operator.patch(path, {"tags": ["pilot"], "archived": True})

    def count(query: str) -> int:
        return len(operator.get(f"/deployments{query}").json()["results"])

    assert count("") == count("?tag=pilot") == count("?archived=true") == 1
    assert count("?tag=pil") == count("?archived=false") == 0
    assert operator.get("/deployments?archived=perhaps").status_code == 400


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"name": ""}, "/name"),
        ({"name": "x" * 129}, "/name"),
        ({"name": 7}, "/name"),
        ({"tags": "pilot"}, "/tags"),
        ({"tags": [""]}, "/tags/0"),
        ({"tags": ["x" * 33]}, "/tags/0"),
        ({"tags": [str(n) for n in range(17)]}, "/tags"),
        ({"archived": "yes"}, "/archived"),
        ({"status": "Completed"}, "/status"),
    ],
    ids=str,
)
def test_bad_labels_are_refused_by_field(
    deployment: Deployment, operator: PersonCaller, body: Any, pointer: str
) -> None:
    answer = operator.patch(f"/deployments/{deployment.pk}", body)

    assert answer.status_code == 400
    assert set(pointers(answer.json())) == {pointer}
