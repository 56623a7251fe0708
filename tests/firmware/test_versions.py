"""Semantic versions."""

from itertools import pairwise

import pytest

from firmware.versions import is_lower, parse_version

# SemVer 2.0.0, section 11, and the neighbours of its edges.
RISING = [
    "0.0.0-0",
    "0.0.0",
    "0.0.1",
    "0.9.9",
    "1.0.0-alpha",
    "1.0.0-alpha.1",
    "1.0.0-alpha.beta",
    "1.0.0-beta",
    "1.0.0-beta.2",
    "1.0.0-beta.11",
    "1.0.0-rc.1",
    "1.0.0",
    "1.2.0",
    "1.10.0",
    "2.0.0",
    "10.0.0",
]


@pytest.mark.parametrize(("left", "right"), list(pairwise(RISING)))
def test_precedence_rises(left: str, right: str) -> None:
    assert is_lower(left, right)
    assert not is_lower(right, left)


@pytest.mark.parametrize("version", [*RISING, "1.0.0+build.7", "1.0.0-a-b.-"])
def test_no_version_is_below_itself(version: str) -> None:
    assert not is_lower(version, version)
    assert str(parse_version(version)) == version


def test_builds_do_not_count() -> None:
    assert not is_lower("1.0.0+1", "1.0.0+2")
    assert not is_lower("1.0.0+2", "1.0.0+1")
    assert is_lower("1.0.0-rc.1+9", "1.0.0+1")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "1",
        "1.0",
        "v1.0.0",
        "1.0.0.0",
        "01.0.0",
        "1.00.0",
        "1.0.0-",
        "1.0.0-01",
        "1.0.0+",
        "1.0.0-a..b",
        "1.0.0 ",
        " 1.0.0",
        "1.0.0\n",
        "1.0.-1",
        "1.0.٣",
        "1.0.0-ä",
        "latest",
        "1.0.0" + "0" * 60,
    ],
)
def test_what_is_no_semantic_version_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        parse_version(text)
