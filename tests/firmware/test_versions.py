"""Versions by the scheme of their model, and the keys by which they sort."""

from datetime import date
from itertools import pairwise
from typing import Any

import pytest
import semver
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from firmware.versions import (
    TEXT_ORDERED,
    VersionScheme,
    check_version,
    upload_key,
    upload_number,
    version_key,
)

SEMVER, NUMERIC = VersionScheme.SEMVER, VersionScheme.NUMERIC
DATE, OPAQUE = VersionScheme.DATE, VersionScheme.OPAQUE

# SemVer 2.0.0, section 11, and the neighbours of its edges.
RISING = {
    SEMVER: [
        *("0.0.0-0", "0.0.0", "0.0.1", "0.9.0", "0.10.0"),
        *("1.0.0-0", "1.0.0-1", "1.0.0-9", "1.0.0-10", "1.0.0-10.0", "1.0.0--"),
        *("1.0.0--.0", "1.0.0-0a", "1.0.0-A", "1.0.0-Z.z", "1.0.0-a", "1.0.0-a.0"),
        *("1.0.0-a.0.0", "1.0.0-a.a", "1.0.0-a-", "1.0.0-a0", "1.0.0-aa"),
        *("1.0.0-alpha", "1.0.0-alpha.1", "1.0.0-alpha.beta", "1.0.0-beta"),
        *("1.0.0-beta.2", "1.0.0-beta.11", "1.0.0-rc.1", "1.0.0"),
        *("1.0.18446744073709551616", "1.2.0", "1.10.0", "2.0.0", "11.0.0"),
    ],
    NUMERIC: [
        *("0", "0.0.1", "0.1", "v1", "1.0.1", "1.1", "v1.2", "1.2.0.1", "1.2.3"),
        *("1.7.1.9", "1.7.1.10", "1.7.2", "1.10", "v2", "V9.9.9", "10", "20261129"),
        "18446744073709551616",
    ],
    DATE: [
        *("0001-01-01", "1999.12.31", "2026.01.05", "2026-01-05-1", "20260105.2"),
        *("2026.01.05.10", "2026-01-06", "20260228", "2026.03.01", "2027.01.01"),
        "9999-12-31-9",
    ],
}
# Written otherwise, each row is one version.
SAME = {
    NUMERIC: [
        ("1.2", "v1.2", "V1.2", "1.2.0", "1.2.0.0", "01.02", "v001.2.00"),
        ("0", "0.0", "v0", "000.0"),
        ("10", "10.0", "010"),
    ],
    DATE: [
        ("2026.01.05", "2026-01-05", "20260105", "2026.01.05.0", "20260105-00"),
        ("2026.01.05.2", "2026-01-05-2", "20260105.2", "2026-01-05.02"),
    ],
}
WRONG = {
    SEMVER: [
        *("", "1", "1.0", "v1.0.0", "1.0.0.0", "01.0.0", "1.00.0", "1.0.0-"),
        *("1.0.0-01", "1.0.0+", "1.0.0-a..b", "1.0.0 ", " 1.0.0", "1.0.0\n"),
        *("1.0.-1", "1.0.٣", "1.0.0-ä", "latest", "1.0.0" + "0" * 60),
    ],
    NUMERIC: [
        *("", "v", "1.", ".1", "1..2", "1.2-3", "1.2a", "vv1", "x1", "-1", "1,2"),
        *("1.2 ", " 1.2", "1.2\n", "1.٣", "v2.3-14-gabcdef", "1" * 65),
    ],
    DATE: [
        *("", "2026", "2026.01", "2026.1.5", "2026.13.01", "2026.00.10"),
        *("2026.02.29", "2026-02-30", "2026-04-31", "2026-01-32", "2026-01-00"),
        *("0000-01-01", "26.01.05", "2026.01-05", "2026-0105", "202601-05"),
        *("2026/01/05", "2026.01.05.", "2026.01.05-rc", "2026.01.05.1.2"),
        *("2026-01-05\n", "v2026.01.05", "2026.01.0٥", "2026.01.05." + "1" * 60),
    ],
    OPAQUE: ["", " ", " a", "a ", "a\n", "a\x00b", "a\tb", "a\u200bb", "x" * 65],
}


def cases(table: dict[VersionScheme, Any]) -> list[tuple[VersionScheme, Any]]:
    return [(scheme, each) for scheme, rows in table.items() for each in rows]


@pytest.mark.parametrize(("scheme", "versions"), RISING.items())
def test_keys_sort_as_versions_do(scheme: VersionScheme, versions: list[str]) -> None:
    keys = [version_key(version, scheme) for version in versions]

    assert all(low < high for low, high in pairwise(keys))


def test_the_table_of_semantic_versions_is_right() -> None:
    for low, high in pairwise(map(semver.Version.parse, RISING[SEMVER])):
        assert low < high


@pytest.mark.parametrize(("scheme", "texts"), cases(SAME))
def test_one_version_has_one_key(scheme: VersionScheme, texts: tuple[str, ...]) -> None:
    assert len({version_key(text, scheme) for text in texts}) == 1


def test_versions_that_differ_in_their_build_have_one_key() -> None:
    assert version_key("1.0.0+1", SEMVER) == version_key("1.0.0+2.z", SEMVER)
    assert version_key("1.0.0-rc.1+9", SEMVER) < version_key("1.0.0+1", SEMVER)


@pytest.mark.parametrize(("scheme", "text"), cases(WRONG))
def test_what_is_no_version_is_refused_with_an_example(
    scheme: VersionScheme, text: str
) -> None:
    with pytest.raises(ValueError, match=r"such as|at most"):
        check_version(text, scheme)


@pytest.mark.parametrize(
    "text",
    [
        *("v2.3-14-gabcdef", "1.7.1.10", "Sommer 2026 (ü)", "x" * 64),
        *(version for versions in RISING.values() for version in versions),
    ],
)
def test_any_text_is_an_opaque_version(text: str) -> None:
    check_version(text, OPAQUE)


def test_a_leap_day_is_a_date() -> None:
    check_version("2028-02-29", DATE)
    check_version("20000229.1", DATE)


def test_an_opaque_text_has_no_key_of_its_own() -> None:
    with pytest.raises(ValueError):
        version_key("v2.3-14-gabcdef", OPAQUE)


# --- Any versions -------------------------------------------------------------------

numbers = st.integers(0, 12) | st.integers(0, 10**12)
words = st.text(alphabet="-0aZ", min_size=1, max_size=4)
identifiers = numbers.map(str) | words.map(lambda word: f"{word}a")


@st.composite
def semantic_versions(draw: st.DrawFn) -> tuple[str, Any]:
    text = ".".join(str(draw(numbers)) for _ in range(3))
    if draw(st.booleans()):
        text += "-" + ".".join(draw(st.lists(identifiers, min_size=1, max_size=3)))
    if draw(st.booleans()):
        text += f"+build.{draw(numbers)}"
    assume(len(text) <= 64)
    return text, semver.Version.parse(text).replace(build=None)


@st.composite
def numeric_versions(draw: st.DrawFn) -> tuple[str, Any]:
    """A version in one of the ways to write it, and its numbers."""
    parts = draw(st.lists(numbers, min_size=1, max_size=4))
    zeros = [draw(st.sampled_from(["", "", "0", "00"])) for _ in parts]
    text = ".".join(zero + str(part) for zero, part in zip(zeros, parts, strict=True))
    while parts and parts[-1] == 0:
        parts.pop()
    return draw(st.sampled_from(["", "v", "V"])) + text, parts


@st.composite
def date_versions(draw: st.DrawFn) -> tuple[str, Any]:
    day = draw(st.dates() | st.dates(date(2026, 1, 1), date(2026, 3, 1)))
    sign = draw(st.sampled_from([".", "-", ""]))
    text = sign.join([f"{day.year:04}", f"{day.month:02}", f"{day.day:02}"])
    build = draw(st.none() | numbers)
    if build is not None:
        text += f"{draw(st.sampled_from('.-'))}{build}"
    return text, (day, build or 0)


MADE = {
    SEMVER: semantic_versions(),
    NUMERIC: numeric_versions(),
    DATE: date_versions(),
}
made_up = st.sampled_from(TEXT_ORDERED).flatmap(
    lambda scheme: st.tuples(
        st.just(scheme), st.lists(MADE[scheme], min_size=2, max_size=6)
    )
)
any_text = (
    st.text(max_size=70)
    | st.text(alphabet="0123456789.-+vVa \n", max_size=20)
    | st.tuples(st.integers(0, 99_999_999), st.sampled_from(["", ".", "-1", ".2"])).map(
        lambda parts: f"{parts[0]:08}{parts[1]}"
    )
)
fixed = settings(max_examples=150, deadline=None, derandomize=True, database=None)


@fixed
@given(made_up)
def test_keys_of_any_versions_sort_as_their_scheme_says(
    made: tuple[VersionScheme, list[tuple[str, Any]]],
) -> None:
    scheme, versions = made

    for text, value in versions:
        for other_text, other in versions:
            key, other_key = version_key(text, scheme), version_key(other_text, scheme)
            assert (key < other_key) == (value < other), (text, other_text)
            assert (key == other_key) == (value == other), (text, other_text)


@fixed
@given(MADE[NUMERIC])
def test_a_numeric_key_tells_the_numbers_of_its_version(made: tuple[str, Any]) -> None:
    text, numbers_of_it = made
    rest, found = version_key(text, NUMERIC)[1:], []

    while rest:
        end = 2 + int(rest[:2])
        found.append(int(rest[2:end]))
        rest = rest[end:]

    assert found == numbers_of_it


@fixed
@given(MADE[DATE])
def test_a_date_key_tells_the_day_and_the_build(made: tuple[str, Any]) -> None:
    text, (day, build) = made
    key = version_key(text, DATE)

    assert date.fromisoformat(key[1:9]) == day
    assert int(key[11:]) == build


@fixed
@given(any_text, st.sampled_from(VersionScheme))
def test_any_text_is_a_version_or_refused(text: str, scheme: VersionScheme) -> None:
    try:
        check_version(text, scheme)
    except ValueError:
        return

    assert 0 < len(text) <= 64
    check_version(text, OPAQUE)
    if scheme is not OPAQUE:
        first, end = scheme.key_range
        assert first <= version_key(text, scheme) < end
        assert len(version_key(text, scheme)) <= 255


@fixed
@given(st.integers(1, 10**6), st.integers(1, 10**6))
def test_keys_of_uploads_sort_as_they_came(first: int, second: int) -> None:
    low, high = OPAQUE.key_range

    assert (upload_key(first) < upload_key(second)) == (first < second)
    assert upload_number(upload_key(first)) == first
    assert low <= upload_key(first) < high


def test_ranges_of_keys_do_not_overlap() -> None:
    ranges = sorted(scheme.key_range for scheme in VersionScheme)

    assert all(end <= first for (_, end), (first, _) in pairwise(ranges))


@pytest.mark.parametrize(
    ("scheme", "longest"),
    [
        (SEMVER, "1.0.0-" + ".".join(["a"] * 29)),
        (SEMVER, "1.0.0-" + ".".join(["1"] * 29)),
        (NUMERIC, ".".join(["1"] * 32)),
        (DATE, "2026.01.05." + "9" * 53),
    ],
)
def test_the_longest_version_has_a_key_that_fits_its_column(
    scheme: VersionScheme, longest: str
) -> None:
    assert len(longest) in (63, 64)
    assert len(version_key(longest, scheme)) <= 255
