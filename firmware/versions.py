"""Semantic versions (SemVer 2). Standard library and `semver` only.

Rules:
- Precedence is that of SemVer 2, section 11: `1.0.0-rc.1` is below `1.0.0`.
- Versions that differ in build metadata alone are two versions of equal precedence:
  each has its own image, and neither is newer than the other.
"""

import semver

MAX_LENGTH = 64


def parse_version(text: str) -> semver.Version:
    """Read a semantic version such as `2.5.0-rc.1+build.7`.

    Raises:
        ValueError: not SemVer 2, or longer than 64 characters.
    """
    if len(text) > MAX_LENGTH:
        raise ValueError(f"a version has {MAX_LENGTH} characters at most")
    try:
        return semver.Version.parse(text)
    except (ValueError, TypeError):
        raise ValueError(
            "must be a semantic version such as 2.5.0 or 2.5.0-rc.1"
        ) from None


def is_lower(left: str, right: str) -> bool:
    """Compare by precedence: `1.0.0-rc.1` is below `1.0.0`; builds do not count."""
    return parse_version(left).compare(parse_version(right)) < 0


def precedence_key(text: str) -> str:
    """Return a string that sorts, byte by byte, as the version does by precedence.

    Numbers are led by their number of digits, so that longer ones come later. A
    release (`~`) comes after all of its pre-releases; an identifier that is a number
    (`0`) before any other (`1`); a list that ends (`!`) before one that goes on. No
    sign of a version is below `!`, and versions of equal precedence get equal strings.

    Raises:
        ValueError: not SemVer 2.

    Source: SemVer 2, section 11.
    """
    version = parse_version(text)
    key = "".join(_number_key(part) for part in version.to_tuple()[:3])
    if version.prerelease is None:
        return f"{key}~"
    parts = version.prerelease.split(".")
    return key + "".join(map(_identifier_key, parts)) + "!"


def _number_key(number: int | str) -> str:
    digits = str(number)
    return f"{len(digits):02}{digits}"


def _identifier_key(part: str) -> str:
    return f"0{_number_key(part)}" if part.isdigit() else f"1{part}!"
