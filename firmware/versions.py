"""Semantic versions (SemVer 2). Standard library and `semver` only."""

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
