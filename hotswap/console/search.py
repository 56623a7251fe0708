"""The search over all kinds of objects, and over what can be done.

Rules:
- Each kind shows its first few, and a way to all of them where there are more.
- What was found is not kept: a search shows what is there now, to whom may see it.
- Devices whose name begins with the text come first; only where there is none, those
  that contain it.
"""

import re
from collections.abc import Iterable, Iterator
from time import monotonic
from typing import Any
from urllib.parse import urlencode

from django.contrib import admin
from django.core.paginator import Paginator
from django.db.models import Q, QuerySet
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.urls import reverse
from unfold.dataclasses import SearchResult

from deployments.models import Deployment
from devices.models import Device, DeviceGroup
from firmware.models import DeviceModel, Firmware
from hotswap.common.console.pages.base import ConsoleAdmin
from hotswap.common.console.requests import acting_person
from hotswap.common.models import User
from hotswap.common.roles import Role
from hotswap.console.sidebar import sidebar
from hotswap.console.waiting import has_role

FOUND_PER_KIND = 8
FOUND_AT_MOST = 100
ACTIVE_AT_MOST = 100
DIGEST = re.compile(r"[0-9a-fA-F]{6,64}")
TAG = re.compile(r"([^:]+):\s*(.+)")
# Of "pause the canary of 2.6.0".
FILLERS = frozenset({"a", "an", "and", "in", "of", "on", "the", "to"})


def search_view(request: HttpRequest) -> HttpResponse:
    """Answer the search of the console's frame."""
    began, text = monotonic(), request.GET.get("s", "").strip()
    if not text:
        return HttpResponse()
    pages: Paginator[SearchResult] = Paginator(find(request, text), FOUND_AT_MOST)
    return TemplateResponse(
        request,
        "unfold/helpers/command_results.html",
        {
            "page_obj": pages,
            "results": pages.page(1),
            "page_counter": 0,
            "execution_time": monotonic() - began,
        },
        headers={"Cache-Control": "no-store"},
    )


def find(request: HttpRequest, text: str) -> list[SearchResult]:
    """Find what can be done, and what has a name, a tag or a digest like the text."""
    if not has_role(request, Role.VIEWER):
        return []
    return [
        *_actions(request, text),
        *_pages(request, text),
        *_tagged(text),
        *_objects(request, text),
    ][:FOUND_AT_MOST]


def _result(title: str, description: str, link: str, icon: str) -> SearchResult:
    return SearchResult(title=title, description=description, link=link, icon=icon)


def _objects(request: HttpRequest, text: str) -> Iterator[SearchResult]:
    firmware = Firmware.objects.filter(
        Q(version__startswith=text) | Q(model__name__icontains=text) | _digest(text)
    )
    kinds: list[tuple[str, str, QuerySet[Any]]] = [
        (
            "Deployment",
            "deployments_deployment",
            Deployment.objects.filter(name__icontains=text).order_by("-created_at"),
        ),
        (
            "Firmware",
            "firmware_firmware",
            firmware.select_related("model").order_by("-created_at"),
        ),
        (
            "Group",
            "devices_devicegroup",
            DeviceGroup.objects.filter(name__icontains=text).order_by("name"),
        ),
        (
            "Device model",
            "firmware_devicemodel",
            DeviceModel.objects.filter(name__icontains=text).order_by("name"),
        ),
    ]
    if has_role(request, Role.ADMIN):
        people = User.objects.filter(username__icontains=text).order_by("username")
        kinds.append(("Person", "common_user", people))
    yield from _devices(text)
    for kind, name, queryset in kinds:
        found = list(queryset[: FOUND_PER_KIND + 1])
        yield from _shown(kind, name, found[:FOUND_PER_KIND])
        if len(found) > FOUND_PER_KIND:
            yield _all_like(text, f"{kind}: there are more", name)


def _devices(text: str) -> Iterator[SearchResult]:
    """Find devices by the begin of their name; where there is none, by a part of it."""
    named = Device.objects.order_by("device_id")
    found = list(named.filter(device_id__startswith=text)[: FOUND_PER_KIND + 1])
    more = "Device: those with it elsewhere in their name, too"
    if not found:
        named = Device.objects.named_like(text).order_by("name_order")
        found = list(named[: FOUND_PER_KIND + 1])
        more = ""
    if len(found) > FOUND_PER_KIND:
        more = "Device: there are more"
    yield from _shown("Device", "devices_device", found[:FOUND_PER_KIND])
    if more:
        yield _all_like(text, more, "devices_device")


def _shown(kind: str, name: str, found: Iterable[Any]) -> Iterator[SearchResult]:
    for each in found:
        link = reverse(f"admin:{name}_change", args=[each.pk])
        yield _result(str(each), kind, link, "arrow_forward")


def _all_like(text: str, more: str, name: str) -> SearchResult:
    link = f"{reverse(f'admin:{name}_changelist')}?{urlencode({'q': text})}"
    return _result(f"All like {text}", more, link, "list")


def _digest(text: str) -> Q:
    """Match the begin of a SHA-256, once it is long enough to be meant as one."""
    is_digest = DIGEST.fullmatch(text) is not None
    return Q(sha256__startswith=text.lower()) if is_digest else Q(pk__in=[])


def _tagged(text: str) -> Iterator[SearchResult]:
    """Lead to the devices with a tag, written as `name:value`."""
    tag = TAG.fullmatch(text)
    if tag is None:
        return
    name, value = tag[1].strip(), tag[2].strip()
    if Device.objects.filter(tags__contains={name: value}).exists():
        query = urlencode({"tag": f"{name}:{value}"})
        link = f"{reverse('admin:devices_device_changelist')}?{query}"
        yield _result(f"{name}: {value}", "Devices with this tag", link, "sell")


def _words(text: str) -> list[str]:
    return [word for word in text.lower().split() if word not in FILLERS]


def _has_all(words: Iterable[str], place: str) -> bool:
    return all(word in place.lower() for word in words)


def _pages(request: HttpRequest, text: str) -> Iterator[SearchResult]:
    """Lead to the lists and pages of the sidebar."""
    words = _words(text)
    for group in sidebar(request):
        for entry in group["items"]:
            if words and not entry["needs"] and _has_all(words, entry["title"]):
                yield _result(entry["title"], "Page", entry["link"], entry["icon"])


def _actions(request: HttpRequest, text: str) -> Iterator[SearchResult]:
    """Lead to the forms of what this person may do: `pause canary of 2.6.0`."""
    words, person = _words(text), acting_person(request)
    if not words:
        return
    pages = [x for x in admin.site._registry.values() if isinstance(x, ConsoleAdmin)]
    for page in pages:
        if not person.may(page.needed_role):
            continue
        for button in page.buttons(person, None):
            is_meant = _has_all(words, f"{button.label} {page.title}")
            if is_meant and not button.blocked_reason:
                yield _result(button.label, page.title, button.url, button.icon)
    yield from _deployment_actions(person, words)


def _deployment_actions(person: User, words: list[str]) -> Iterator[SearchResult]:
    """Lead to what can be done to the deployments that are in progress."""
    page = admin.site._registry[Deployment]
    if not isinstance(page, ConsoleAdmin):
        return
    labels = {
        each.label.lower() for each in page.console_actions if not each.is_of_list
    }
    if not any(label.startswith(words[0]) for label in labels):
        return
    active = Deployment.objects.active().select_related("firmware__model")
    for deployment in active.order_by("-created_at")[:ACTIVE_AT_MOST]:
        place = f"{deployment.name} {deployment.firmware} {deployment.strategy}"
        for button in page.buttons(person, deployment):
            is_meant = _has_all(words, f"{button.label} {place}")
            if is_meant and not button.blocked_reason:
                title = f"{button.label} {deployment.name}"
                yield _result(title, "Action", button.url, button.icon)
