"""What rules of dynamic groups mean: tables of literals, no database."""

from collections.abc import Mapping
from typing import Any

import pytest

from devices.rules import DeviceFacts, Rule
from firmware.versions import VersionScheme, upload_key, version_key

SEMVER, DATE = VersionScheme.SEMVER, VersionScheme.DATE
OPAQUE = VersionScheme.OPAQUE
ORDINALS = ("first", "second", "third")


def device(
    version: str,
    key: str = "",
    scheme: VersionScheme = SEMVER,
    uploads: Mapping[str, str] | None = None,
) -> DeviceFacts:
    return DeviceFacts(
        region="EU",
        model="sensor-v1",
        tags={"site": "plant-7", "line": ""},
        firmware_version=version,
        version_key=key,
        scheme=scheme,
        uploads=uploads or {},
    )


DEVICE = device("2.0.0-rc.1", version_key("2.0.0-rc.1", SEMVER))


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
def test_a_device_without_an_order_is_neither_below_nor_above(
    version: str, condition: dict[str, Any]
) -> None:
    unordered = device(version)

    assert not Rule.from_json({"firmwareVersion": condition}).holds_for(unordered)
    assert Rule.from_json({"region": ["EU"]}).holds_for(unordered)


@pytest.mark.parametrize(
    ("condition", "holds"),
    [
        ({"below": "third"}, True),
        ({"below": "second"}, False),
        ({"atLeast": "second"}, True),
        ({"atLeast": "third"}, False),
        ({"below": "unheard of"}, False),
        ({"atLeast": "unheard of"}, False),
        ({"is": ["a wrong label"]}, True),
        ({"is": ["second"]}, False),
    ],
)
def test_opaque_versions_compare_by_their_uploads(
    condition: dict[str, Any], holds: bool
) -> None:
    uploads = {name: upload_key(n) for n, name in enumerate(ORDINALS, 1)}
    second = device("a wrong label", uploads["second"], OPAQUE, uploads)

    assert Rule.from_json({"firmwareVersion": condition}).holds_for(second) is holds


def test_a_bound_of_another_scheme_holds_for_nobody() -> None:
    dated = device("2026.01.05", version_key("2026.01.05", DATE), DATE)

    assert not Rule(below="9.0.0").holds_for(dated)
    assert not Rule(at_least="0.0.0").holds_for(dated)
    assert Rule(below="2026-01-06").holds_for(dated)


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
