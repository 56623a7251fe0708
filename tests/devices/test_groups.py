"""Dynamic groups: rules, who is in them, and what is refused."""

import random
from typing import Any

import pytest
from django.db import connection
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from devices.models import Device, DeviceGroup
from devices.rules import Rule
from devices.selectors import (
    count_members,
    devices_of,
    facts_of,
    groups_of,
    rule_condition,
)
from devices.services import registry
from firmware.versions import TEXT_ORDERED, VersionScheme, version_key
from hotswap.common.models import AuditEvent
from tests.api import pointers, problem_of
from tests.callers import PersonCaller
from tests.devices.factories import DeviceFactory, GroupFactory
from tests.firmware.factories import DeviceModelFactory, FirmwareFactory
from tests.firmware.test_versions import RISING, SAME, WRONG, any_text, made_up

PLANT = {"tags": {"site": ["plant-7"]}}
OLD = {"firmwareVersion": {"below": "2.0.0"}}


@pytest.fixture(autouse=True)
def models(db: None) -> None:
    for name in ("sensor-v1", "sensor-v2"):
        DeviceModelFactory.create(name=name)


def make(caller: PersonCaller, rule: Any, **fields: Any) -> Any:
    return caller.post(
        "/device-groups", {"name": "g", "type": "Dynamic", "rule": rule} | fields
    )


def ids(rows: list[dict[str, Any]]) -> list[str]:
    return [row["deviceId"] for row in rows]


# --- Versions sort in the database as their scheme says ------------------------------


def keys_of(texts: list[str], scheme: VersionScheme) -> list[str]:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT hotswap_version_key(%s, version) FROM unnest(%s::text[]) "
            "WITH ORDINALITY AS t (version, place) ORDER BY place",
            [scheme, texts],
        )
        return [key for (key,) in cursor.fetchall()]


def key_or_none(text: str, scheme: VersionScheme) -> str:
    try:
        return version_key(text, scheme)
    except ValueError:
        return ""


@pytest.mark.parametrize("scheme", TEXT_ORDERED)
def test_the_database_makes_the_keys_of_the_tables(scheme: VersionScheme) -> None:
    texts = [
        *RISING[scheme],
        *(text for texts in SAME.get(scheme, ()) for text in texts),
        *(text for text in WRONG[scheme] if "\x00" not in text),
    ]

    assert keys_of(texts, scheme) == [key_or_none(text, scheme) for text in texts]


@settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)
@given(made_up, st.lists(any_text, max_size=10))
def test_the_database_makes_the_keys_of_any_text(
    made: tuple[VersionScheme, list[tuple[str, Any]]], others: list[str]
) -> None:
    scheme, versions = made
    texts = [text for text, _ in versions]
    texts += [text.replace("\x00", "") for text in others]

    assert keys_of(texts, scheme) == [key_or_none(text, scheme) for text in texts]


def test_the_database_has_no_key_for_an_opaque_text() -> None:
    assert keys_of(["1.0.0", "", "v2"], VersionScheme.OPAQUE) == ["", "", ""]


# --- The query means what the rule means -------------------------------------------


def _some(choice: random.Random, values: list[str]) -> list[str]:
    return choice.sample(values, choice.randint(1, 2))


def _random_rule(choice: random.Random) -> Rule:
    data: dict[str, Any] = {}
    if choice.random() < 0.4:
        data["region"] = _some(choice, ["EU", "APAC", "US-EAST"])
    if choice.random() < 0.3:
        data["model"] = _some(choice, ["sensor-v1", "sensor-v2", "pump", "lock"])
    if choice.random() < 0.5:
        data["tags"] = {
            name: _some(choice, ["", "1", "2"])
            for name in _some(choice, ["site", "it's %s", "n"])
        }
    if choice.random() < 0.6:
        data["firmwareVersion"] = {
            name: choice.choice(["1.0.0-rc.1", "1.0.0", "1.10.0", "1.9.0+b", "first"])
            for name in _some(choice, ["below", "atLeast"])
        }
        if choice.random() < 0.3:
            data["firmwareVersion"]["is"] = _some(choice, ["1.0.0", "1.9.0", "first"])
    return Rule.from_json(data)


def test_the_query_of_a_rule_finds_whom_the_rule_means() -> None:
    choice = random.Random(8)
    schemes = {"pump": VersionScheme.NUMERIC, "lock": VersionScheme.OPAQUE}
    images = {
        name: [
            FirmwareFactory.create(model_name=name, version=version)
            for version in ("1.0.0", "first", "1.10.0")
            if name == "lock" or version != "first"
        ]
        for name in ("sensor-v1", "sensor-v2", *schemes)
        if DeviceModelFactory.create(
            name=name, version_scheme=schemes.get(name, VersionScheme.SEMVER)
        )
    }
    for _ in range(80):
        model = choice.choice(["sensor-v1", "sensor-v2", "pump", "lock"])
        device = DeviceFactory.create(
            region=choice.choice(["EU", "APAC", "US-EAST"]),
            model_name=model,
            tags={
                n: choice.choice(["", "1", "2"]) for n in _some(choice, ["site", "n"])
            }
            | ({"it's %s": "1"} if choice.random() < 0.5 else {}),
            firmware_version=choice.choice(
                ["", "1.0.0-rc.1", "1.0.0-rc.2", "1.0.0", "1.9.0", "1.9.0+b", "1.10.0"]
            ),
        )
        if choice.random() < 0.4:
            image = choice.choice(images[model])
            registry.record_running_firmware(
                device=device,
                version=choice.choice([image.version, "1.9.0", "a wrong label"]),
                checksum=image.sha256,
                now=device.created_at,
            )
    devices = list(Device.objects.select_related("model"))

    found_any = 0
    for _ in range(150):
        rule = _random_rule(choice)
        found = set(
            Device.objects.filter(rule_condition(rule)).values_list("pk", flat=True)
        )
        assert found == {d.pk for d in devices if rule.holds_for(facts_of(d))}, rule
        found_any += 0 < len(found) < len(devices)

    assert found_any > 50


# --- Membership --------------------------------------------------------------------


def test_a_changed_device_is_in_or_out_at_once(operator: PersonCaller) -> None:
    group = GroupFactory.create(rule=PLANT | OLD)
    device = DeviceFactory.create(device_id="d-1", firmware_version="1.9.0")
    path = f"/device-groups/{group.pk}"

    before = operator.get(path).json()["deviceCount"]
    operator.patch("/devices/d-1", {"tags": {"site": "plant-7"}})
    tagged = operator.get(path).json()["deviceCount"]
    listed = ids(operator.get(f"{path}/devices").json()["results"])
    filtered = ids(operator.get(f"/devices?group={group.name}").json()["results"])
    registry.record_running_firmware(
        device=device, version="2.0.0", checksum="a" * 64, now=device.created_at
    )
    updated = operator.get(path).json()["deviceCount"]

    assert (before, tagged, updated) == (0, 1, 0)
    assert listed == filtered == ["d-1"]


def test_counts_of_many_groups_are_exact() -> None:
    here = DeviceFactory.create(tags={"site": "plant-7"}, region="EU")
    there = DeviceFactory.create(region="EU")
    groups = [
        GroupFactory.create(rule=PLANT),
        GroupFactory.create(rule={"region": ["EU"]}),
        GroupFactory.create(rule={"region": ["APAC"]}),
        GroupFactory.create(members=[there]),
        GroupFactory.create(),
    ]

    counts = count_members(groups)

    assert [counts[group.pk] for group in groups] == [1, 2, 0, 1, 0]
    assert set(devices_of(groups[0], groups[3])) == {here, there}
    assert [group.name for group in groups_of(there)] == sorted(
        [groups[1].name, groups[3].name]
    )


def test_a_page_of_groups_asks_the_same_questions_for_any_number(
    operator: PersonCaller, django_assert_max_num_queries: Any
) -> None:
    for _ in range(6):
        GroupFactory.create(rule=PLANT)
        GroupFactory.create()

    with django_assert_max_num_queries(5):
        operator.get("/device-groups")


# --- The API ------------------------------------------------------------------------


def test_a_dynamic_group_is_made_by_its_rule(operator: PersonCaller) -> None:
    rule = {
        "region": ["US-EAST"],
        "model": ["sensor-v1"],
        "tags": {"site": ["plant-7"]},
        "firmwareVersion": {"below": "2.0.0"},
    }
    DeviceFactory.create(tags={"site": "plant-7"}, firmware_version="1.0.0")
    DeviceFactory.create(tags={"site": "plant-7"})

    made = make(operator, rule)
    read = operator.get(f"/device-groups/{made.json()['id']}").json()

    assert made.status_code == 201
    assert made.json() == read
    assert (read["type"], read["rule"], read["deviceCount"]) == ("Dynamic", rule, 1)
    assert operator.get("/device-groups").json()["results"] == [read]
    assert AuditEvent.objects.get(verb="device-group.created").details["rule"] == rule


@pytest.mark.parametrize(
    ("rule", "pointer", "code"),
    [
        (None, "/rule", "required"),
        ({}, "/rule", "empty_rule"),
        ([], "/rule", None),
        ("region=EU", "/rule", None),
        ({"size": 5}, "/rule/size", "unknown"),
        ({"region": 5}, "/rule/region", "not_a_list"),
        ({"region": []}, "/rule/region", "min_length"),
        ({"region": ["MOON"]}, "/rule/region/0", "invalid_choice"),
        ({"region": ["EU", 5]}, "/rule/region/1", "invalid_choice"),
        ({"region": ["EU", "EU"]}, "/rule/region/1", "duplicate"),
        ({"model": ["sensor-v1", 5]}, "/rule/model/1", "invalid"),
        ({"model": [""]}, "/rule/model/0", "blank"),
        ({"model": [str(n) for n in range(51)]}, "/rule/model", "max_length"),
        ({"tags": []}, "/rule/tags", "not_a_dict"),
        ({"tags": {"site": 7}}, "/rule/tags/site", "not_a_list"),
        ({"tags": {"site": []}}, "/rule/tags/site", "min_length"),
        ({"tags": {"site": [5]}}, "/rule/tags/site/0", "invalid"),
        ({"tags": {"site": ["a", None]}}, "/rule/tags/site/1", "null"),
        ({"tags": {"site": ["x" * 257]}}, "/rule/tags/site/0", "max_length"),
        ({"tags": {"a:b": ["x"]}}, "/rule/tags", "invalid"),
        ({"tags": {"": ["x"]}}, "/rule/tags", "invalid"),
        ({"tags": {str(n): ["x"] for n in range(21)}}, "/rule/tags", "too_many"),
        ({"tags": {"a": [str(n) for n in range(101)]}}, "/rule/tags/a", "max_length"),
        ({"firmwareVersion": "1.0.0"}, "/rule/firmwareVersion", None),
        ({"firmwareVersion": {}}, "/rule/firmwareVersion", "required"),
        (
            {"firmwareVersion": {"above": "1.0.0"}},
            "/rule/firmwareVersion/above",
            "unknown",
        ),
        ({"firmwareVersion": {"below": "2"}}, "/rule/firmwareVersion/below", "invalid"),
        (
            {"firmwareVersion": {"is": ["a\tb"]}},
            "/rule/firmwareVersion/is/0",
            "invalid",
        ),
        ({"firmwareVersion": {"is": [2]}}, "/rule/firmwareVersion/is/0", "invalid"),
        (
            {"firmwareVersion": {"atLeast": "2.0.0", "below": "2.0.0"}},
            "/rule/firmwareVersion/below",
            "invalid",
        ),
    ],
    ids=lambda value: str(value)[:40],
)
@pytest.mark.parametrize("route", ["create", "preview"])
def test_a_rule_of_no_sense_is_refused_by_its_pointer(
    operator: PersonCaller, rule: Any, pointer: str, code: str | None, route: str
) -> None:
    if route == "create":
        response = make(operator, rule)
    else:
        response = operator.post("/device-groups/preview", {"rule": rule})

    found = pointers(problem_of(response, 400))

    assert set(found) == {pointer}
    if code is not None and not (rule is None and route == "preview"):
        assert found[pointer] == code
    assert not DeviceGroup.objects.exists()


@pytest.mark.parametrize("path", ["/device-groups", "/device-groups/preview"])
def test_an_unknown_model_of_a_rule_is_422(operator: PersonCaller, path: str) -> None:
    rule = {"model": ["sensor-v1", "toaster"]}
    body = {"rule": rule} | ({"name": "g"} if path == "/device-groups" else {})

    document = problem_of(
        operator.post(path, body | {"type": "Dynamic"}), 422, "unknown_model"
    )

    assert pointers(document) == {"/rule/model/1": "unknown_model"}


def test_a_static_group_takes_no_rule(operator: PersonCaller) -> None:
    response = make(operator, PLANT, type="Static")

    assert pointers(problem_of(response, 400)) == {"/rule": "foreign"}


@pytest.mark.parametrize("method", ["POST", "DELETE"])
def test_members_of_a_dynamic_group_are_not_listed_by_hand(
    operator: PersonCaller, method: str
) -> None:
    device = DeviceFactory.create()
    group = GroupFactory.create(rule=PLANT)

    response = operator.request(
        method, f"/device-groups/{group.pk}/devices", {"deviceIds": [device.device_id]}
    )

    problem_of(response, 409, "group_is_dynamic")
    assert not group.members.exists()


def test_a_preview_counts_shows_ten_and_writes_nothing(
    operator: PersonCaller,
) -> None:
    for number in range(12):
        DeviceFactory.create(device_id=f"d-{number:02}", tags={"site": "plant-7"})
    DeviceFactory.create(device_id="other")
    audited = AuditEvent.objects.count()

    body = operator.post("/device-groups/preview", {"rule": PLANT}).json()

    assert body["count"] == 12
    assert ids(body["sample"]) == [f"d-{number:02}" for number in range(10)]
    assert body["rule"] == PLANT
    assert body["inWords"] == "tag site is plant-7"
    assert not DeviceGroup.objects.exists()
    assert AuditEvent.objects.count() == audited


# --- Changing a group ---------------------------------------------------------------


def test_a_put_replaces_the_rule(operator: PersonCaller) -> None:
    group = GroupFactory.create(name="g", rule=PLANT)
    path = f"/device-groups/{group.pk}"

    changed = operator.put(path, {"name": "g", "rule": OLD})
    forgotten = operator.put(path, {"name": "g"})

    assert changed.json()["rule"] == OLD
    assert changed.json()["type"] == "Dynamic"
    assert pointers(problem_of(forgotten, 400)) == {"/rule": "required"}


def test_a_static_group_becomes_dynamic_only_when_it_is_empty(
    operator: PersonCaller,
) -> None:
    full = GroupFactory.create(members=[DeviceFactory.create()])
    empty = GroupFactory.create()
    body = {"name": "g", "type": "Dynamic", "rule": PLANT}

    refused = operator.put(f"/device-groups/{full.pk}", body)
    changed = operator.put(f"/device-groups/{empty.pk}", body)

    problem_of(refused, 409, "group_has_members")
    assert changed.json()["type"] == "Dynamic"
    assert full.members.count() == 1


def test_a_dynamic_group_that_becomes_static_keeps_its_devices(
    operator: PersonCaller,
) -> None:
    member = DeviceFactory.create(tags={"site": "plant-7"})
    group = GroupFactory.create(rule=PLANT)

    changed = operator.put(
        f"/device-groups/{group.pk}", {"name": "g", "type": "Static"}
    )
    DeviceFactory.create(tags={"site": "plant-7"})

    assert (changed.json()["type"], changed.json()["rule"]) == ("Static", None)
    assert list(group.members.all()) == [member]


# --- Members at creation ------------------------------------------------------------


def test_a_static_group_is_made_with_its_members(operator: PersonCaller) -> None:
    for name in ("a", "b", "c"):
        DeviceFactory.create(device_id=name)
    body = {"name": "g", "type": "Static", "deviceIds": ["b", "a", "b"]}

    made = operator.post("/device-groups", body)

    assert made.status_code == 201
    assert made.json()["deviceCount"] == 2
    members = operator.get(f"{made['Location']}/devices").json()["results"]
    assert ids(members) == ["a", "b"]
    event = AuditEvent.objects.get(verb="device-group.created")
    assert event.details["devices"] == 2


def test_a_group_with_an_unknown_member_is_not_made(operator: PersonCaller) -> None:
    DeviceFactory.create(device_id="a")
    body = {"name": "g", "deviceIds": ["a", "nobody", "b/../a"]}

    response = operator.post("/device-groups", body)

    found = problem_of(response, 422, "unknown_devices")
    assert set(pointers(found)) == {"/deviceIds/1", "/deviceIds/2"}
    assert not DeviceGroup.objects.exists()


def test_a_dynamic_group_takes_no_members(operator: PersonCaller) -> None:
    DeviceFactory.create(device_id="a")

    response = make(operator, PLANT, deviceIds=["a"])

    assert pointers(problem_of(response, 400)) == {"/deviceIds": "foreign"}
    assert not DeviceGroup.objects.exists()


def test_a_put_takes_no_members(operator: PersonCaller) -> None:
    group = GroupFactory.create(name="g")

    response = operator.put(
        f"/device-groups/{group.pk}", {"name": "g", "deviceIds": []}
    )

    assert pointers(problem_of(response, 400)) == {"/deviceIds": "unknown"}


def test_one_value_of_a_rule_may_stand_without_its_list(
    operator: PersonCaller,
) -> None:
    rule = {
        "region": "US-EAST",
        "model": "sensor-v1",
        "tags": {"site": "plant-7"},
        "firmwareVersion": {"is": "1.0.0"},
    }

    made = make(operator, rule)

    assert made.status_code == 201
    assert made.json()["rule"] == {
        "region": ["US-EAST"],
        "model": ["sensor-v1"],
        "tags": {"site": ["plant-7"]},
        "firmwareVersion": {"is": ["1.0.0"]},
    }
    assert operator.get(made["Location"]).json()["rule"] == made.json()["rule"]


@pytest.mark.parametrize(
    ("rule", "pointer"),
    [
        ({"region": "MOON"}, "/rule/region/0"),
        ({"region": ""}, "/rule/region/0"),
        ({"region": 5}, "/rule/region"),
        ({"model": True}, "/rule/model"),
        ({"tags": {"site": None}}, "/rule/tags/site"),
    ],
    ids=str,
)
def test_a_single_value_of_no_sense_is_refused(
    operator: PersonCaller, rule: Any, pointer: str
) -> None:
    assert set(pointers(problem_of(make(operator, rule), 400))) == {pointer}
