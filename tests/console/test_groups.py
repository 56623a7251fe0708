"""Groups in the console: the rule builder, and what is asked before a change."""

from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from deployments.services.requests import Selection
from devices.models import Device, DeviceGroup
from devices.services.groups import add_members
from hotswap.common.models import AuditEvent
from tests.console.conftest import ConsoleClient, Scene
from tests.devices.factories import GroupFactory

BASE = "/admin/devices/devicegroup/"
RULE = {"name": "east", "region": ["US-EAST"], "tags": "site: plant-7\nsite: plant-8"}


def schedule(scene: Scene, group: DeviceGroup) -> None:
    scene.world.launch(
        scene.approved,
        name="nightly",
        selection=Selection(group_ids=(group.pk,)),
        scheduled_at=scene.world.now + timedelta(hours=1),
    )


def test_a_rule_is_previewed_and_then_saved(
    operator_client: ConsoleClient, scene: Scene
) -> None:
    Device.objects.filter(device_id__in=["d-000", "d-001"]).update(
        tags={"site": "plant-7"}
    )
    url = f"{BASE}create-dynamic/"

    preview = operator_client.post(url, RULE | {"preview": "1"}).content.decode()
    written = DeviceGroup.objects.filter(name="east").exists()
    answer = operator_client.post(url, RULE | {"save": "1"})

    group = DeviceGroup.objects.get(name="east")
    page = operator_client.get(answer["Location"]).content.decode()
    listed = operator_client.get(BASE).content.decode()
    assert "region is US-EAST; tag site is plant-7 or plant-8" in preview
    assert "<dd><b>2</b></dd>" in preview
    assert "d-000" in preview
    assert not written
    assert group.rule == {
        "region": ["US-EAST"],
        "tags": {"site": ["plant-7", "plant-8"]},
    }
    assert "A device is in while region is US-EAST" in page
    assert "2 devices now" in page
    assert "tag site is plant-7 or plant-8" in listed


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"region": []} | {"tags": ""}, "An empty rule would mean the whole fleet"),
        ({"region": ["MOON"]}, "MOON"),
        ({"tags": "plant-7"}, "Line 1: write name: value"),
        ({"tags": ": plant-7"}, "The tag name"),
        ({"tags": "a: 1\na: 1"}, "is there twice"),
        ({"below": "two"}, "semantic version"),
        ({"versions": f"1.0.0, {'x' * 65}"}, "1 to 64 printable"),
        ({"atLeast": "2.0.0", "below": "1.0.0"}, "Must be higher than atLeast"),
    ],
    ids=lambda value: str(value)[:40],
)
@pytest.mark.parametrize("button", ["save", "preview"])
def test_a_rule_of_no_sense_is_refused_beside_its_field(
    operator_client: ConsoleClient, fields: dict[str, Any], said: str, button: str
) -> None:
    answer = operator_client.post(
        f"{BASE}create-dynamic/", RULE | fields | {button: "1"}
    )

    assert answer.status_code == 200
    assert said in answer.content.decode()
    assert not DeviceGroup.objects.exists()


def test_a_rule_is_tried_before_its_group_has_a_name(
    operator_client: ConsoleClient, scene: Scene
) -> None:
    url = f"{BASE}create-dynamic/"
    unnamed = RULE | {"name": ""}

    preview = operator_client.post(url, unnamed | {"preview": "1"})
    saved = operator_client.post(url, unnamed | {"save": "1"})

    shown = preview.content.decode()
    assert "Devices now" in shown
    assert f'formaction="{url}#hs-result"' in shown
    assert shown.count('id="hs-result"') == 1
    assert "This field is required." in saved.content.decode()
    assert not DeviceGroup.objects.filter(name__in=["", "-"]).exists()


@pytest.mark.parametrize(
    ("number", "said"), [("1", "site: plant-7"), ("2", "2.0.0"), ("3", "ring: pilot")]
)
def test_an_example_fills_the_form(
    operator_client: ConsoleClient, number: str, said: str
) -> None:
    page = operator_client.get(f"{BASE}create-dynamic/?example={number}")

    assert said in page.content.decode()


def test_a_rule_is_edited_from_what_it_was(
    operator_client: ConsoleClient, scene: Scene
) -> None:
    version = {"atLeast": "1.0.0", "is": ["1.0.0", "1.1.0"]}
    rule = {
        "model": ["sensor-v1"],
        "tags": {"site": ["plant-7", ""]},
        "firmwareVersion": version,
    }
    group = GroupFactory.create(name="mine", rule=rule)
    url = f"{BASE}{group.pk}/edit-rule/"

    form = operator_client.get(url).context["form"]
    operator_client.post(url, form.initial | {"below": "2.0.0", "save": "1"})

    group.refresh_from_db()
    assert group.rule == rule | {"firmwareVersion": version | {"below": "2.0.0"}}
    assert group.name == "mine"


def test_a_rule_that_alters_a_deployment_to_come_asks_for_a_tick(
    operator_client: ConsoleClient, scene: Scene
) -> None:
    group = GroupFactory.create(name="mine", rule={"region": ["EU"]})
    schedule(scene, group)
    url = f"{BASE}{group.pk}/edit-rule/"
    fields = {"name": "mine", "region": ["US-EAST"]}

    preview = operator_client.post(url, fields | {"preview": "1"}).content.decode()
    refused = operator_client.post(url, fields | {"save": "1"}).content.decode()
    group.refresh_from_db()
    before = group.rule
    operator_client.post(url, fields | {"save": "1", "acknowledge": "on"})

    group.refresh_from_db()
    for page in (preview, refused):
        assert "nightly" in page
        assert "0 -&gt; 4 devices (4 added, 0 removed)" in page
        assert 'name="acknowledge"' in page
    assert before == {"region": ["EU"]}
    assert group.rule == {"region": ["US-EAST"]}


def test_members_and_tags_ask_for_the_same_tick(
    operator_client: ConsoleClient, scene: Scene
) -> None:
    group = GroupFactory.create(rule={"tags": {"site": ["plant-7"]}})
    schedule(scene, scene.group)
    schedule(scene, group)
    places = [
        (f"{BASE}{scene.group.pk}/add-devices/", {"device_ids": "d-001"}),
        (f"{BASE}{scene.group.pk}/remove-devices/", {"device_ids": "d-000"}),
        (
            f"/admin/devices/device/{scene.device.pk}/edit/",
            {"region": "US-EAST", "tags": "site: plant-7", "metadata": ""},
        ),
    ]
    audited = AuditEvent.objects.count()

    plain = [operator_client.get(url).content.decode() for url, _ in places]
    refused = [operator_client.post(*place).content.decode() for place in places]
    unchanged = AuditEvent.objects.count()
    agreed = [
        operator_client.post(url, fields | {"acknowledge": "on"})
        for url, fields in places
    ]

    for before, after in zip(plain, refused, strict=True):
        assert 'name="acknowledge"' not in before
        assert 'name="acknowledge"' in after
        assert "nightly" in after
    assert unchanged == audited
    assert [answer.status_code for answer in agreed] == [302, 302, 302]
    assert list(scene.group.members.values_list("device_id", flat=True)) == ["d-001"]
    scene.device.refresh_from_db()
    assert scene.device.tags == {"site": "plant-7"}


def test_a_group_that_a_deployment_to_come_names_stays(
    operator_client: ConsoleClient, scene: Scene
) -> None:
    schedule(scene, scene.group)

    answer = operator_client.post(f"{BASE}{scene.group.pk}/remove/")

    assert "nightly" in answer.content.decode()
    assert DeviceGroup.objects.filter(pk=scene.group.pk).exists()


def test_a_device_page_names_its_dynamic_groups(
    operator_client: ConsoleClient, scene: Scene
) -> None:
    GroupFactory.create(name="all of the east", rule={"region": ["US-EAST"]})
    GroupFactory.create(name="all of the south", rule={"region": ["APAC"]})

    page = operator_client.get(f"/admin/devices/device/{scene.device.pk}/change/")

    assert b"all of the east" in page.content
    assert b"all of the south" not in page.content


def test_a_group_tells_what_is_new_since_yesterday(
    operator_client: ConsoleClient, scene: Scene
) -> None:
    url = f"{BASE}{scene.group.pk}/change/"
    before = operator_client.get(url).content.decode()
    Device.objects.filter(pk=scene.device.pk).update(
        created_at=timezone.now() - timedelta(days=3)
    )
    scene.device.firmware_runs.update(since=timezone.now() - timedelta(hours=2))
    add_members(
        actor=scene.world.admin, group_id=scene.group.pk, device_ids=["d-001", "d-002"]
    )

    after = operator_client.get(url).content.decode()

    assert "<span>count: 2</span>" not in before
    said = "2 of its devices were registered, 1 began to run what it runs now."
    assert said in after
    assert 'title="device-group.members-added">Device group members added<' in after
    assert "<span>count: 2</span>" in after


def test_a_list_of_groups_says_how_a_static_one_is_made_up(
    viewer_client: ConsoleClient, scene: Scene
) -> None:
    scene.group.description = ""
    scene.group.save()

    page = viewer_client.get("/admin/devices/devicegroup/").content.decode()

    assert "Devices listed one by one" in page
