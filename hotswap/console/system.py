"""The page "System": how each part of the server fares, and the version."""

from django.contrib import admin
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse

from hotswap.common.console.badges import DONE, FAILED, WAITS, badge
from hotswap.common.console.text import age, span_in_words
from hotswap.monitoring.status import VERSION, Part, ServerStatus, State, cached_status

NAMES = {
    "database": "Database",
    "keys": "Key files",
    "redis": "Redis",
    "store": "Store of images",
    "disk": "Disk",
    "tick": "Last tick",
    "sweep": "Last sweep",
    "queue": "Queue",
    "outbox": "Outbox",
    "copies": "Copies of images",
    "certificate": "Certificate",
}
STATES = {
    State.OK: ("Works", DONE, "check_circle"),
    State.WARNING: ("Warning", WAITS, "warning"),
    State.DOWN: ("Down", FAILED, "error"),
}
RUNBOOKS = "docs/operate/runbooks.md"


def system_view(request: HttpRequest) -> HttpResponse:
    """Show how each part fares; people alone get here."""
    found = cached_status()
    return TemplateResponse(
        request,
        "console/system.html",
        {
            **admin.site.each_context(request),
            "title": "System",
            "heading": "System",
            "verdict": _verdict(found),
            "version": VERSION,
            "checked": age(found.checked_at),
            "parts": [_row(part) for part in found.parts],
            "runbooks": RUNBOOKS,
        },
    )


def _verdict(found: ServerStatus) -> dict[str, str]:
    down = [NAMES[each.name] for each in found.parts if each.state == State.DOWN]
    warned = [NAMES[each.name] for each in found.parts if each.state == State.WARNING]
    if not found.is_serving:
        return {
            "tone": "red",
            "icon": "error",
            "words": "The fleet is not being served.",
            "detail": f"Down: {', '.join(down)}.",
        }
    if down or warned:
        return {
            "tone": "amber",
            "icon": "warning",
            "words": "The fleet is served; something needs a look.",
            "detail": f"{', '.join(down + warned)}.",
        }
    return {
        "tone": "green",
        "icon": "check_circle",
        "words": "Everything works.",
        "detail": "",
    }


def _row(part: Part) -> dict[str, object]:
    word, tone, icon = STATES[part.state]
    figure = "–" if part.figure is None else f"{part.figure:,g} {part.unit}"
    return {
        "name": NAMES[part.name],
        "badge": badge(word, tone, icon),
        "age": "–" if part.age is None else span_in_words(part.age.total_seconds()),
        "figure": figure,
        "detail": part.detail,
    }
