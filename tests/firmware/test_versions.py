"""Semantic versions."""

import random
from itertools import pairwise

import pytest

from firmware.versions import is_lower, parse_version, precedence_key

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


# Besides the list above: lists that end, signs around the separators, long numbers.
TRICKY = [
    "1.0.0-0",
    "1.0.0-9",
    "1.0.0-10",
    "1.0.0--",
    "1.0.0--.0",
    "1.0.0-0a",
    "1.0.0-A",
    "1.0.0-Z.z",
    "1.0.0-a",
    "1.0.0-a.0",
    "1.0.0-a.0.0",
    "1.0.0-a.a",
    "1.0.0-a-",
    "1.0.0-a0",
    "1.0.0-aa",
    "1.0.0-18446744073709551616",
    "1.0.18446744073709551616",
    "9.0.0",
    "11.0.0",
]


def test_keys_sort_as_versions_do() -> None:
    versions = [*RISING, *TRICKY]

    for left in versions:
        for right in versions:
            lower = precedence_key(left) < precedence_key(right)
            assert lower == is_lower(left, right), (left, right)


def test_keys_of_made_up_versions_sort_as_they_do() -> None:
    source = random.Random(7)

    def part() -> str:
        number = str(source.choice([0, 1, 9, 10, 99, 100]))
        word = "".join(source.choice("-0aZ") for _ in range(source.randint(1, 3)))
        return number if source.random() < 0.5 else f"{word}a"

    def version() -> str:
        core = ".".join(str(source.choice([0, 1, 9, 10])) for _ in range(3))
        parts = [part() for _ in range(source.randint(0, 3))]
        return f"{core}-{'.'.join(parts)}" if parts else core

    for _ in range(2000):
        left, right = version(), version()
        lower = precedence_key(left) < precedence_key(right)
        assert lower == is_lower(left, right), (left, right)


def test_versions_that_differ_in_their_build_have_one_key() -> None:
    assert precedence_key("1.0.0+1") == precedence_key("1.0.0+2.z")


def test_the_longest_version_has_a_key_that_fits_its_column() -> None:
    longest = "1.0.0-" + ".".join(["a"] * 29)

    assert len(longest) == 63
    assert len(precedence_key(longest)) <= 255
