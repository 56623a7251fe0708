"""The page "Retention": what is kept for how long, and what was removed when."""

from datetime import timedelta
from typing import Any, Final

from django.contrib import admin
from django.db.models import Max, Sum
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils import timezone

from hotswap.common.console.text import age
from hotswap.common.models import JobRun, RemovalCount
from hotswap.common.pluralize import counted
from hotswap.retention import JOB, POLICIES, Policy

COUNTED_OVER: Final = timedelta(days=30)


def retention_view(request: HttpRequest) -> HttpResponse:
    """Show the table of policies; people alone get here."""
    since = timezone.now() - COUNTED_OVER
    counts: dict[str, Any] = {
        row["policy"]: row
        for row in RemovalCount.objects.filter(last_at__gt=since)
        .values("policy")
        .annotate(number=Sum("number"), last_at=Max("last_at"))
    }
    run = JobRun.objects.filter(name=JOB).first()
    return TemplateResponse(
        request,
        "console/retention.html",
        {
            **admin.site.each_context(request),
            "title": "Retention",
            "heading": "Retention",
            "back_url": reverse("system"),
            "back_name": "System",
            "days": COUNTED_OVER.days,
            "last_run": age(run.last_run_at if run else None),
            "policies": [_row(each, counts.get(each.name)) for each in POLICIES],
        },
    )


def _row(policy: Policy, count: Any) -> dict[str, Any]:
    return {
        "title": policy.title,
        "kept": _kept_in_words(policy),
        "variable": policy.variable,
        "number": f"{count['number']:,} {policy.unit}" if count else "–",
        "last": age(count["last_at"] if count else None),
    }


def _kept_in_words(policy: Policy) -> str:
    kept = policy.kept
    if kept is None:
        return "for good"
    if not kept:
        return f"until {policy.since}"
    span = (
        counted(kept.days, "day")
        if kept.days
        else counted(int(kept.total_seconds() // 3600), "hour")
    )
    return f"{span} from {policy.since}"
