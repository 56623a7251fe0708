"""Versions of firmware, read by the scheme of their device model.

Standard library and `semver` only.

Rules:
- Each scheme tells which texts are versions and which of two is lower. A text key says
  the same to the database: keys sort, byte by byte, as the versions do, and begin with
  the letter of their scheme, so that versions of two schemes are never compared.
- `semver`: SemVer 2, section 11. `1.0.0-rc.1` is below `1.0.0`. Versions that differ in
  build metadata alone (`+7`) are two versions of equal precedence.
- `numeric`: numbers separated by dots, compared one after the other. Neither a leading
  `v`, nor zeros before a number, nor `.0` at the end counts: `v1.02.0` is `1.2`.
- `date`: a day of the calendar, then a build number; none is build 0. The separators do
  not count: `2026-01-05-2` is `2026.01.05.2`.
- `opaque`: any text; what was uploaded later is higher. Its text alone has no order.
- A device may say anything. What is no version of its model's scheme has no key: it is
  neither below nor above any version.
"""

import re
from calendar import monthrange
from enum import StrEnum

import semver

MAX_LENGTH = 64

_NUMERIC = re.compile(r"[vV]?([0-9]+(?:\.[0-9]+)*)")
_DATE = re.compile(r"([0-9]{4})([.-]?)([0-9]{2})\2([0-9]{2})(?:[.-]([0-9]+))?")


class VersionScheme(StrEnum):
    """How the versions of a device model are written and ordered."""

    SEMVER = "semver"
    NUMERIC = "numeric"
    DATE = "date"
    OPAQUE = "opaque"

    @property
    def expected(self) -> str:
        """What a version looks like, with an example; as the end of a sentence."""
        return _EXPECTED[self]

    @property
    def key_range(self) -> tuple[str, str]:
        """The lowest text a key of the scheme can be, and one that is above all."""
        letter = _LETTERS[self]
        return letter, chr(ord(letter) + 1)


_EXPECTED = {
    VersionScheme.SEMVER: "a semantic version such as 2.5.0 or 2.5.0-rc.1",
    VersionScheme.NUMERIC: "numbers separated by dots such as 1.7.1.10 or v1.2",
    VersionScheme.DATE: "a date such as 2026.01.05, 2026-01-05 or 20260105, "
    "with a build number if there is one: 2026.01.05.2",
    VersionScheme.OPAQUE: "1 to 64 printable characters without blanks at the ends "
    "such as v2.3-14-gabcdef",
}
_LETTERS = {
    VersionScheme.SEMVER: "s",
    VersionScheme.NUMERIC: "n",
    VersionScheme.DATE: "d",
    VersionScheme.OPAQUE: "o",
}
# Their keys follow from the text alone.
TEXT_ORDERED = (VersionScheme.SEMVER, VersionScheme.NUMERIC, VersionScheme.DATE)
# Of these, two versions of a model never have the same key.
ONE_TEXT_A_VERSION = (VersionScheme.NUMERIC, VersionScheme.DATE)


def check_version(text: str, scheme: VersionScheme) -> None:
    """Refuse what is no version of the scheme.

    Raises:
        ValueError: with what is expected, and an example.
    """
    if scheme is VersionScheme.OPAQUE:
        if not (0 < len(text) <= MAX_LENGTH and text.isprintable()) or (
            text != text.strip()
        ):
            raise ValueError(f"must be {scheme.expected}")
    else:
        version_key(text, scheme)


def version_key(text: str, scheme: VersionScheme) -> str:
    """Return a string that sorts, byte by byte, as the version does in its scheme.

    Numbers are led by their number of digits, so that longer ones come later. A
    semantic release (`~`) comes after all of its pre-releases; an identifier that is a
    number (`0`) before any other (`1`); a list that ends (`!`) before one that goes on.
    Versions of equal precedence get equal strings. The database makes the same keys:
    `hotswap_version_key` (`firmware/migrations/sql/version_key.sql`).

    Args:
        scheme: one of `TEXT_ORDERED`.

    Raises:
        ValueError: the text is no version of the scheme, or longer than 64 characters.
    """
    if len(text) > MAX_LENGTH:
        raise ValueError(f"must have {MAX_LENGTH} characters at most")
    match scheme:
        case VersionScheme.SEMVER:
            key = _semver_key(text)
        case VersionScheme.NUMERIC:
            key = _numeric_key(text)
        case VersionScheme.DATE:
            key = _date_key(text)
        case VersionScheme.OPAQUE:
            key = None
    if key is None:
        raise ValueError(f"must be {scheme.expected}")
    return _LETTERS[scheme] + key


def upload_key(number: int) -> str:
    """Return the key of the version of an opaque model that was uploaded as this one.

    Args:
        number: 1 or more; rises with each upload.
    """
    return _LETTERS[VersionScheme.OPAQUE] + _number_key(str(number))


def upload_number(key: str) -> int:
    """Return the number of a key that `upload_key` made."""
    return int(key[3:])


def _semver_key(text: str) -> str | None:
    try:
        version = semver.Version.parse(text)
    except ValueError:
        return None
    key = "".join(_number_key(str(part)) for part in version.to_tuple()[:3])
    if version.prerelease is None:
        return f"{key}~"
    parts = version.prerelease.split(".")
    return key + "".join(map(_identifier_key, parts)) + "!"


def _identifier_key(part: str) -> str:
    return f"0{_number_key(part)}" if part.isdigit() else f"1{part}!"


def _numeric_key(text: str) -> str | None:
    match = _NUMERIC.fullmatch(text)
    if match is None:
        return None
    numbers = [number.lstrip("0") for number in match[1].split(".")]
    while numbers and not numbers[-1]:
        numbers.pop()
    return "".join(map(_number_key, numbers))


def _date_key(text: str) -> str | None:
    match = _DATE.fullmatch(text)
    if match is None:
        return None
    year, _, month, day, build = match.groups(default="0")
    if year == "0000" or not 1 <= int(month) <= 12:
        return None
    if not 1 <= int(day) <= monthrange(int(year), int(month))[1]:
        return None
    return f"{year}{month}{day}{_number_key(build)}"


def _number_key(digits: str) -> str:
    digits = digits.lstrip("0") or "0"
    return f"{len(digits):02}{digits}"
