"""The bell in the frame: what needs attention, and how much of it is new to a login.

Rules:
- It rings for the lines of the overview's list that its reader may see. What the list
  said when it was last opened has been seen; a line whose words have changed since,
  or that has gone and come back, is new.
- The lines are read once in ten seconds in each process, whoever asks. Pages come
  without them, and ask afterwards.
"""

import hashlib
from typing import Any, Final

from django.http import HttpRequest, HttpResponse, HttpResponseNotAllowed
from django.template.response import TemplateResponse
from django.utils import timezone

from deployments.models import Deployment
from hotswap.common.console.requests import acting_person
from hotswap.common.console.text import age
from hotswap.common.models import User
from hotswap.console.attention import Concern, concerns
from hotswap.monitoring.caching import Cached
from hotswap.monitoring.status import cached_status

READ_SECONDS: Final = 10.0
SHOWN: Final = 12
# What the session remembers: the keys of the lines that were seen.
SEEN: Final = "bell_seen"

read_lately: Final = Cached()


def bell_view(request: HttpRequest) -> HttpResponse:
    """Answer how many lines are new, or, to whoever opens it, all of them."""
    person = acting_person(request)
    if request.method == "GET":
        return _new(request, person)
    if request.method != "POST":
        return HttpResponseNotAllowed(["GET", "POST"])
    found = _lines(person)
    seen = set(request.session.get(SEEN, []))
    request.session[SEEN] = [_key(each) for each in found]
    now = timezone.now()
    return TemplateResponse(
        request,
        "console/bell_list.html",
        {
            "concerns": [
                {
                    "concern": each,
                    "since": age(each.since, now) if each.since else "",
                    "url": each.url,
                    "is_new": _key(each) not in seen,
                }
                for each in found[:SHOWN]
            ],
            "more": max(0, len(found) - SHOWN),
        },
        headers={"Cache-Control": "no-store", "HX-Trigger": "hs-bell-seen"},
    )


def _new(request: HttpRequest, person: User) -> HttpResponse:
    seen = set(request.session.get(SEEN, []))
    new = [each for each in _lines(person) if _key(each) not in seen]
    context: dict[str, Any] = {"new": len(new)}
    return TemplateResponse(
        request,
        "console/bell_count.html",
        context,
        headers={"Cache-Control": "no-store"},
    )


def _lines(person: User) -> list[Concern]:
    return [
        each
        for each in read_lately.get("concerns", _read, READ_SECONDS)
        if person.may(each.role)
    ]


def _read() -> list[Concern]:
    active = list(Deployment.objects.active().order_by("-created_at"))
    return concerns(active, cached_status(), timezone.now())


def _key(concern: Concern) -> str:
    text = f"{concern.text} {concern.url}"
    return hashlib.sha256(text.encode()).hexdigest()[:12]
