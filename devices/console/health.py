"""What a device last said of its health, and how far that is from its baseline."""

from typing import Any

from django.utils.html import format_html

from devices.console.badges import VERDICT_BADGES
from hotswap.common.console.badges import badge
from hotswap.common.console.text import age, span_in_words

NOT_REPORTED = "not reported"


def baseline_rows(state: Any) -> list[dict[str, str]]:
    """Return what is usual for a device, and how far its latest values are from it."""
    return [
        _against_usual(
            each.title,
            state.measured(each),
            state.usual(each),
            each.to_percent,
            each.percent_digits,
        )
        for each in state.triggers
    ]


def _against_usual(
    name: str, value: float | None, usual: Any, scale: int, digits: int
) -> dict[str, str]:
    """Put a value beside what is usual; both times `scale` are percent."""
    row = {"name": name, "latest": NOT_REPORTED, "reports": "0"}
    if value is not None:
        row["latest"] = f"{scale * value:.{digits}f} %"
    if not usual.is_known:
        return {**row, "unknown": "not known: no healthy report yet"}
    distance = "–"
    if value is not None:
        spreads = usual.distance(value)
        distance = (
            f"{scale * (value - usual.mean):+.{digits}f} points; it never varied"
            if spreads is None
            else f"{spreads:+.1f} spreads"
        )
    return {
        **row,
        "reports": f"{usual.samples:,}"
        + ("" if usual.is_certain else f", {usual.confidence} confidence"),
        "mean": f"{scale * usual.mean:.{digits}f} %",
        "spread": f"± {scale * usual.spread:.{digits}f} %",
        "distance": distance,
    }


def _percent(value: float | None, *, scale: int = 1) -> str:
    return NOT_REPORTED if value is None else f"{scale * value:.1f} %"


def health_rows(state: Any, now: Any) -> list[tuple[str, Any]]:
    """Return what a device last said of its health, line by line."""
    if state.last_heartbeat_at is None:
        return [("Verdict", badge("unknown", *VERDICT_BADGES["unknown"]))]
    verdict, reason = state.verdict, state.verdict_reason
    if state.online_until <= now:
        verdict, reason = "unknown", "it is offline"
    elif state.refused_count:
        verdict, reason = "unknown", "its heartbeats are refused"
    return [
        (
            "Verdict",
            format_html(
                '{} <span class="hs-hint">{} heartbeat {}</span>',
                badge(verdict, *VERDICT_BADGES[verdict]),
                f"{reason};" if reason else "",
                age(state.last_heartbeat_at, now),
            ),
        ),
        *(
            (each.title, _percent(state.measured(each), scale=each.to_percent))
            for each in state.triggers
        ),
        (
            "Up for",
            NOT_REPORTED
            if state.uptime_seconds is None
            else span_in_words(state.uptime_seconds),
        ),
        ("Boot id", state.boot_id or NOT_REPORTED),
        ("Secure boot", state.secure_boot),
    ]
