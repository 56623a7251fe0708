"""What rules of dynamic groups mean: tables of literals, no database."""

from typing import Any

import pytest

from devices.rules import DeviceFacts, Rule

DEVICE = DeviceFacts(
    region="EU",
    model="sensor-v1",
    tags={"site": "plant-7", "line": ""},
    firmware_version="2.0.0-rc.1",
)


@pytest.mark.parametrize(
    ("rule", "holds"),
    [
        ({"region": ["EU"]}, True),
        ({"region": ["APAC", "EU"]}, True),
        ({"region": ["APAC"]}, False),
        ({"model": ["sensor-v1"]}, True),
        ({"model": ["sensor-v2"]}, False),
        ({"tags": {"site": ["plant-7"]}}, True),
        ({"tags": {"site": ["plant-1", "plant-7"]}}, True),
        ({"tags": {"site": ["plant"]}}, False),
        ({"tags": {"site": [""]}}, False),
        ({"tags": {"line": [""]}}, True),
        ({"tags": {"rack": [""]}}, False),
        ({"tags": {"site": ["plant-7"], "line": ["", "1"]}}, True),
        ({"tags": {"site": ["plant-7"], "line": ["1"]}}, False),
        ({"region": ["EU"], "model": ["sensor-v1"]}, True),
        ({"region": ["EU"], "model": ["sensor-v2"]}, False),
        ({"firmwareVersion": {"below": "2.0.0"}}, True),
        ({"firmwareVersion": {"below": "2.0.0-rc.1"}}, False),
        ({"firmwareVersion": {"below": "2.0.0-rc.1+build"}}, False),
        ({"firmwareVersion": {"atLeast": "2.0.0-rc.1+build"}}, True),
        ({"firmwareVersion": {"atLeast": "1.10.0", "below": "2.0.0"}}, True),
        ({"firmwareVersion": {"atLeast": "2.0.0"}}, False),
        ({"firmwareVersion": {"is": ["1.0.0", "2.0.0-rc.1"]}}, True),
        ({"firmwareVersion": {"is": ["2.0.0-rc.1+build"]}}, False),
        ({"firmwareVersion": {"is": ["2.0.0-rc.1"], "below": "1.0.0"}}, False),
    ],
)
def test_a_rule_holds_when_all_its_conditions_do(
    rule: dict[str, Any], holds: bool
) -> None:
    assert Rule.from_json(rule).holds_for(DEVICE) is holds


@pytest.mark.parametrize("version", ["", "latest", "2.0", "v1.0.0", "01.0.0"])
@pytest.mark.parametrize(
    "condition", [{"below": "9.0.0"}, {"atLeast": "0.0.0-0"}, {"is": ["1.0.0"]}]
)
def test_an_unknown_version_matches_no_condition_on_versions(
    version: str, condition: dict[str, Any]
) -> None:
    device = DeviceFacts("EU", "sensor-v1", {}, version)

    assert not Rule.from_json({"firmwareVersion": condition}).holds_for(device)
    assert Rule.from_json({"region": ["EU"]}).holds_for(device)


@pytest.mark.parametrize(
    "data",
    [
        {},
        {"region": ["EU", "APAC"], "tags": {"a": ["1", ""]}},
        {"model": ["m"], "firmwareVersion": {"atLeast": "1.0.0", "is": ["1.0.0"]}},
    ],
)
def test_a_rule_survives_being_written_and_read(data: dict[str, Any]) -> None:
    assert Rule.from_json(data).to_json() == data


def test_empty_conditions_are_no_conditions() -> None:
    empty = Rule.from_json({"region": [], "tags": {}, "firmwareVersion": {}})

    assert empty.is_empty
    assert empty.to_json() == {}


def test_a_rule_is_said_in_words() -> None:
    rule = Rule.from_json(
        {
            "region": ["EU", "APAC", "US-EAST"],
            "model": ["sensor-v1"],
            "tags": {"site": ["plant-7", ""]},
            "firmwareVersion": {"atLeast": "1.0.0", "below": "2.0.0", "is": ["1.5.0"]},
        }
    )

    assert rule.in_words() == (
        "region is EU, APAC or US-EAST; model is sensor-v1; "
        "tag site is plant-7 or (empty); firmware is 1.0.0 or higher; "
        "firmware is below 2.0.0; firmware is 1.5.0"
    )
