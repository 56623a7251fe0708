"""Times, spans and sizes in words."""

import json
import re
import shlex
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from django.utils import timezone
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString

from hotswap.common.audit import CHANGES
from hotswap.common.signatures import FIELD as SIGNATURE


def span_in_words(seconds: float) -> str:
    """Say how long a span is, in its largest unit: `3 min`."""
    for unit, length in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds // length:.0f} {unit}"
    return f"{max(0, seconds):.0f} s"


def age(at: datetime | None, now: datetime | None = None) -> SafeString:
    """Say how long ago it was, or until it is; the exact time is in the tooltip."""
    if at is None:
        return format_html('<span class="hs-subtle">{}</span>', "–")
    seconds = ((now or timezone.now()) - at).total_seconds()
    words = (
        f"{span_in_words(seconds)} ago"
        if seconds >= 0
        else f"in {span_in_words(-seconds)}"
    )
    return _time(at, words, _moving(seconds))


def estimated(at: datetime, now: datetime) -> SafeString:
    """Say when something is expected; what was expected by now may come any moment."""
    if at <= now:
        return _time(at, "any moment")
    seconds = (at - now).total_seconds()
    return _time(at, f"in {span_in_words(seconds)}", _moving(-seconds, "any moment"))


def _moving(seconds: float, past: str = "") -> SafeString:
    """Return by what the page says it anew while it is open (`live.js`).

    Args:
        seconds: how long ago it was; less than zero for what is to come.
        past: what is said instead once it has come.
    """
    moving = format_html(' data-hs-age="{}"', f"{seconds:.0f}")
    return moving + format_html(' data-hs-past="{}"', past) if past else moving


def _time(at: datetime, words: str, moving: SafeString | str = "") -> SafeString:
    return format_html(
        '<time datetime="{}" title="{} UTC"{}>{}</time>',
        at.isoformat(),
        f"{at:%Y-%m-%d %H:%M:%S}",
        moving,
        words,
    )


def event_in_words(name: str) -> str:
    """Say the name of an event as people would: `stage.opened` is "Stage opened"."""
    return re.sub(r"[._-]+", " ", name).strip().capitalize()


def event_pattern(written: str) -> str:
    """Return what finds an event by its words or by its name, in any database regex."""
    return re.sub(r"\\?[ ._-]", "[ ._-]", re.escape(written))


DIGEST = re.compile(r"\b([0-9a-f]{40,64})\b")
_UUID = r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"
ID = re.compile(rf"\b({_UUID})\b")
DIGEST_OR_ID = re.compile(rf"\b({_UUID}|[0-9a-f]{{40,64}})\b")
MOMENT = re.compile(r"^(\d{4}-\d\d-\d\d)T(\d\d:\d\d:\d\d)(?:\.\d+)?(?:Z|\+00:00)$")
SHOWN_OF_DIGEST = 12


def details_in_words(details: Mapping[str, Any]) -> str:
    """Show the details of a row of the audit trail: `reason: stolen; count: 2`."""
    return DIGEST.sub(lambda found: f"{found[1][:SHOWN_OF_DIGEST]}…", _joined(details))


def details_with_digests(
    details: Mapping[str, Any], names: Mapping[str, str] | None = None
) -> SafeString:
    """Show the same on a page, where the whole of a digest can be copied.

    Args:
        names: what is shown instead of ids; an id stays in the tooltip.
    """
    # Every second part is a digest or an id.
    parts = DIGEST_OR_ID.split(_joined(details))
    return format_html_join(
        "",
        "{}",
        (
            (_short_digest_or_name(part, names or {}) if number % 2 else part,)
            for number, part in enumerate(parts)
        ),
    )


def ids_in(details: Mapping[str, Any]) -> set[str]:
    """Return the UUIDs among the details of a row of the audit trail."""
    return set(ID.findall(json.dumps(details)))


def _joined(details: Mapping[str, Any]) -> str:
    shown = dict(details)
    if isinstance(changes := details.get(CHANGES), dict):
        shown[CHANGES] = {
            field: change
            for field, change in changes.items()
            if not _is_said(change, details)
        } or None
    return "; ".join(
        f"{name}: {_value_in_words(name, value)}"
        for name, value in shown.items()
        if value not in ("", None)
    )


def _is_said(change: dict[str, Any], details: Mapping[str, Any]) -> bool:
    """Tell whether a text that is new stands among the other details already."""
    new = change.get("to")
    return (
        isinstance(new, str)
        and change.get("from") in ("", None)
        and new in (value for name, value in details.items() if name != CHANGES)
    )


def _value_in_words(name: str, value: Any) -> str:
    if name == SIGNATURE and isinstance(value, dict):
        return (
            f"“{value['statement']}”, by {value['factor']}, "
            f"record {value['recordSha256']}"
        )
    if name == CHANGES and isinstance(value, dict):
        return ", ".join(f"{field} {_change(each)}" for field, each in value.items())
    if isinstance(value, list) and all(isinstance(each, str) for each in value):
        return ", ".join(value) or "none"
    return value if isinstance(value, str) else json.dumps(value)


def _change(change: dict[str, Any]) -> str:
    """Say what a value was and is: `Draft → Approved`."""
    if "withheld" in change:
        keys = ", ".join(change["withheld"])
        return f"changed ({keys})" if keys else "changed"
    before, after = (_short(change[side]) for side in ("from", "to"))
    return f"{before} → {after}"


def _short(value: Any) -> str:
    match value:
        case None | "":
            return "–"
        case str():
            return MOMENT.sub(r"\1 \2 UTC", value)
        case {"sha256": str(digest)}:
            return digest
        case _:
            return json.dumps(value)


def _short_digest_or_name(found: str, names: Mapping[str, str]) -> SafeString:
    if not ID.fullmatch(found):
        return _short_digest(found)
    name = names.get(found)
    if name is None:
        return format_html("{}", found)
    return format_html('<span title="{}">{}</span>', found, name)


def _short_digest(digest: str) -> SafeString:
    return format_html(
        '<code title="{0}">{1}…</code><button type="button" class="hs-icon-button" '
        'data-hs-copy="{0}" aria-label="Copy the digest {1}"><span '
        'class="material-symbols-outlined" aria-hidden="true">content_copy</span>'
        "</button>",
        digest,
        digest[:SHOWN_OF_DIGEST],
    )


def curl_command(url: str) -> str:
    """Return the command that reads an address of the API with a token."""
    return f'curl -s -H "Authorization: Bearer $TOKEN" {shlex.quote(url)}'


def in_bytes(size: int) -> str:
    """Show a size with its unit: `12.4 MB`."""
    for unit, length in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= length:
            return f"{size / length:.1f} {unit}"
    return f"{size} B"


def percent_in_words(value: float | None) -> str:
    """Write a percentage with two digits at most, rounded down; a dash for
    none.

    What is short of a target must not look as if it had met it: 99.996 is `99.99 %`.
    """
    return "–" if value is None else f"{int(value * 100 + 1e-9) / 100:g} %"
