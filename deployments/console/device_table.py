"""The devices of a deployment: tabs by status, a filter by name, and pages."""

from datetime import datetime
from typing import Any, Final

from django.db.models import Case, IntegerField, QuerySet, Value, When
from django.http import QueryDict
from django.urls import reverse

from deployments.choices import IN_FLIGHT, TargetStatus
from deployments.console.badges import (
    GONE_WRONG,
    RETURNING,
    TARGET_BADGES,
    status_badge,
)
from deployments.models import Deployment, Target
from deployments.reads.devices import target_rows
from devices.querysets import name_contains

PAGE: Final = 50
T = TargetStatus
# Whoever looks wants to see first what went wrong, then what moves.
ORDER_OF_INTEREST: Final = (
    (T.FAILED,),
    (T.ROLLING_BACK,),
    (T.ROLLED_BACK,),
    IN_FLIGHT,
    (T.PENDING,),
    (T.SKIPPED, T.CANCELLED),
    (T.SUCCESS,),
)
# The tabs: in the address, in words, and which statuses they hold.
TABS: Final = (
    ("all", "All", tuple(T)),
    ("wrong", "Failed or sent back", GONE_WRONG),
    ("moving", "In progress", IN_FLIGHT),
    ("pending", "Not started", (T.PENDING,)),
    ("updated", "Updated", (T.SUCCESS,)),
    ("out", "Skipped or cancelled", (T.SKIPPED, T.CANCELLED)),
)
MAX_NAME: Final = 128


def device_table(
    deployment: Deployment, counts: dict[str, int], query: QueryDict, now: datetime
) -> dict[str, Any]:
    """Return a page of the devices, those of most interest first.

    Args:
        counts: the devices of the deployment by status.
        query: of the request: `tab`, `device` (a part of its name) and `page`.
    """
    statuses = {key: chosen for key, _, chosen in TABS}
    tab = query.get("tab", "all")
    tab = tab if tab in statuses else "all"
    text = query.get("device", "")[:MAX_NAME].strip()
    targets = Target.objects.select_related("device").filter(deployment=deployment)
    if text:
        targets = targets.filter(name_contains(text, "device__"))
        total = targets.filter(status__in=statuses[tab]).count()
    else:
        total = sum(counts.get(each, 0) for each in statuses[tab])
    pages = max(1, -(-total // PAGE))
    page = min(_number(query.get("page", "")), pages)
    found = _page(targets, statuses[tab], page)
    return {
        "rows": _shown(deployment, found, now),
        "tabs": [
            (key, words, sum(counts.get(each, 0) for each in chosen), key == tab)
            for key, words, chosen in TABS
        ],
        "tab": tab,
        "device": text,
        "found_devices": total,
        "page": page,
        "pages": pages,
    }


def _number(text: str) -> int:
    is_number = text.isascii() and text.isdigit() and len(text) < 8
    return max(1, int(text)) if is_number else 1


def _page(targets: QuerySet[Target], statuses: Any, page: int) -> list[Target]:
    chosen = [
        tuple(each for each in group if each in statuses) for group in ORDER_OF_INTEREST
    ]
    if page == 1:
        # The first page is asked for again and again: it sorts nothing but itself.
        found: list[Target] = []
        for group in chosen:
            room = PAGE - len(found)
            if room > 0 and group:
                of_group = targets.filter(status__in=group)
                found += of_group.order_by("stage_number", "rank")[:room]
        return found
    place = Case(
        *(
            When(status__in=group, then=Value(number))
            for number, group in enumerate(chosen)
            if group
        ),
        output_field=IntegerField(),
    )
    ordered = targets.filter(status__in=statuses).order_by(
        place, "stage_number", "rank"
    )
    return list(ordered[(page - 1) * PAGE : page * PAGE])


def _shown(
    deployment: Deployment, found: list[Target], now: datetime
) -> list[dict[str, Any]]:
    return [
        {
            "row": row,
            "badge": status_badge(TARGET_BADGES, row.status),
            "url": reverse("admin:devices_device_change", args=[target.device_id])
            if target.device.erased_at is None
            else "",
            "next_step": row.next_step if target.status in GONE_WRONG else "",
            "went_along": target.status in RETURNING and not row.error_code,
            "can_go_back": target.status in (*IN_FLIGHT, T.SUCCESS)
            and target.device.erased_at is None,
        }
        for target, row in zip(found, target_rows(deployment, found, now), strict=True)
    ]
