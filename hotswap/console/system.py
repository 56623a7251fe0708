"""The page "System": how each part of the server fares, its hosts, who ticks what."""

from django.contrib import admin
from django.db import DatabaseError
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse

from deployments.models import Deployment
from hotswap.common.console.badges import DONE, FAILED, WAITS, badge
from hotswap.common.console.text import age, span_in_words
from hotswap.monitoring.hosts import (
    Process,
    differing_stores,
    last_ticks,
    processes,
)
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
ALIVE = ("Alive", DONE, "check_circle")
SILENT = ("Silent", FAILED, "error")
SHOWN_OF_FINGERPRINT = 8
MOST_TICKS = 20
RUNBOOKS = "operate/runbooks.md"


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
            **_hosts(),
        },
    )


def _hosts() -> dict[str, object]:
    try:
        found = processes()
        ticks = last_ticks(found)
        shown = Deployment.objects.filter(
            pk__in=[each.deployment_id for each in ticks]
        ).order_by("-created_at")[:MOST_TICKS]
        deployments = {str(each.pk): each for each in shown}
    except DatabaseError:
        # Said among the parts.
        return {"processes": [], "ticks": []}
    return {
        "processes": [_process(each) for each in found],
        "ticks": [
            {
                "deployment": deployments[each.deployment_id],
                "host": each.host,
                "pid": each.pid,
                "at": age(each.at),
            }
            for each in ticks
            if each.deployment_id in deployments
        ],
        "more_ticks": len(ticks) - len(deployments),
        "differing": differing_stores(found),
    }


def _process(found: Process) -> dict[str, object]:
    row = found.row
    word, tone, icon = SILENT if found.is_silent else ALIVE
    return {
        "row": row,
        "badge": badge(word, tone, icon),
        "age": span_in_words(found.age.total_seconds()),
        "started": age(row.started_at),
        "keys": row.keys[:SHOWN_OF_FINGERPRINT] or "–",
        "stores": ", ".join(
            f"{name} {identity[:SHOWN_OF_FINGERPRINT]}"
            for name, identity in sorted(row.stores.items())
        )
        or "–",
        "ticks": f"{row.ticks:,}" if row.ticks else "–",
    }


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
    unit = part.unit.replace("percent", "%")
    figure = "–" if part.figure is None else f"{part.figure:,g} {unit}"
    return {
        "name": NAMES[part.name],
        "badge": badge(word, tone, icon),
        "age": "–" if part.age is None else span_in_words(part.age.total_seconds()),
        "figure": figure,
        "detail": part.detail,
    }
