"""The list of deployments, the live page of one, and its report."""

import hashlib
from collections.abc import Iterator
from datetime import datetime
from typing import Any
from urllib.parse import urlencode
from uuid import UUID

from django.contrib.admin.utils import unquote
from django.core.exceptions import PermissionDenied
from django.db.models import Count, Prefetch, Q, QuerySet
from django.http import (
    Http404,
    HttpRequest,
    HttpResponse,
    HttpResponseNotAllowed,
    QueryDict,
)
from django.shortcuts import get_object_or_404
from django.template.loader import render_to_string
from django.template.response import TemplateResponse
from django.urls import URLPattern, path
from django.utils import timezone
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from unfold.contrib.filters.admin import RadioFilter
from unfold.decorators import display

from deployments.choices import (
    ACTIVE_DEPLOYMENTS,
    Strategy,
    TargetStatus,
)
from deployments.console.actions.deployment import (
    AcknowledgeHold,
    ApproveStage,
    Archive,
    Cancel,
    Label,
    Pause,
    Resume,
    RetryFailed,
    RollBack,
    RollBackPart,
    Unarchive,
)
from deployments.console.actions.launch import (
    CopyAsNew,
    EditWaiting,
    Launch,
    RemoveTemplate,
)
from deployments.console.badges import (
    DEPLOYMENT_BADGES,
    deployment_badge,
    failed_of,
    is_over,
    words_of,
)
from deployments.console.charts import adoption_chart, progress_charts
from deployments.console.device_table import device_table
from deployments.console.health import health_panel
from deployments.console.live import (
    HTMX_STOP_POLLING,
    live_context,
    segments_of,
    status_counts,
)
from deployments.console.log_table import log_table
from deployments.console.report import devices_file, report_context
from deployments.models import Deployment, Stage, Target
from deployments.reads.changes import Version, current_version
from deployments.reads.status import current_stage
from deployments.references import id_in
from deployments.services.evidence import deployment_evidence
from deployments.services.preview import predict
from deployments.services.progress import SETTLED
from firmware.models import Firmware
from hotswap.common.api.etags import knows
from hotswap.common.console.narrow_row import NarrowRow
from hotswap.common.console.pages.evidence import EvidencePage
from hotswap.common.console.requests import READING, acting_person
from hotswap.common.console.text import age
from hotswap.common.console.text_filter import TextFilter
from hotswap.common.models import User


def _etag_of(version: Version, user: User) -> str:
    """Return the ETag of what a person sees: buttons depend on the role."""
    seen = f"{version.whole} {user.pk} {user.role}"
    return f'"{hashlib.sha256(seen.encode()).hexdigest()[:32]}"'


class StateFilter(RadioFilter):
    title = "status"
    parameter_name = "state"

    def lookups(self, request: Any, model_admin: Any) -> list[tuple[str, str]]:
        return [("active", "In progress"), *words_of(DEPLOYMENT_BADGES)]

    def queryset(
        self, request: Any, queryset: QuerySet[Deployment]
    ) -> QuerySet[Deployment]:
        if self.value() == "active":
            return queryset.filter(status__in=ACTIVE_DEPLOYMENTS)
        return queryset.filter(status=self.value()) if self.value() else queryset


class StrategyFilter(RadioFilter):
    title = "strategy"
    parameter_name = "strategy"

    def lookups(self, request: Any, model_admin: Any) -> list[tuple[str, str]]:
        return list(Strategy.choices)

    def queryset(
        self, request: Any, queryset: QuerySet[Deployment]
    ) -> QuerySet[Deployment]:
        return queryset.filter(strategy=self.value()) if self.value() else queryset


class ArchiveFilter(RadioFilter):
    """Leaves out what is in the archive, unless it is asked for or moves again."""

    title = "archive"
    parameter_name = "archive"
    unset = "hidden"

    def lookups(self, request: Any, model_admin: Any) -> list[tuple[str, str]]:
        return [("all", "included"), ("only", "alone")]

    def queryset(
        self, request: Any, queryset: QuerySet[Deployment]
    ) -> QuerySet[Deployment]:
        if self.value() == "all":
            return queryset
        if self.value() == "only":
            return queryset.filter(archived_at__isnull=False)
        # A rollback or another try may come after it was archived.
        return queryset.filter(
            Q(archived_at__isnull=True) | Q(status__in=ACTIVE_DEPLOYMENTS)
        )


class TagFilter(TextFilter):
    title = "tag"
    parameter_name = "tag"

    def queryset(
        self, request: Any, queryset: QuerySet[Deployment]
    ) -> QuerySet[Deployment]:
        tag = self.text()
        return queryset.filter(tags__contains=[tag]) if tag else queryset


class DeploymentAdmin(EvidencePage):
    help_page = "deployments.md"
    api_path = "deployments"
    api_field = "pk"
    audit_kind = "deployment"
    is_signed = True
    empty_words = (
        "Nothing was deployed yet.",
        "Launch approved firmware, and its page shows how far the devices are.",
    )
    console_actions = (
        Launch,
        RemoveTemplate,
        ApproveStage,
        AcknowledgeHold,
        Pause,
        Resume,
        RetryFailed,
        EditWaiting,
        CopyAsNew,
        Label,
        Archive,
        Unarchive,
        RollBackPart,
        RollBack,
        Cancel,
    )
    page_template = "console/deployment.html"
    narrow_row = NarrowRow(first=("state",), titled=("stage",))
    list_display = ("named", "image", "strategy", "state", "stage", "progress", "since")
    list_filter = (StateFilter, StrategyFilter, TagFilter, ArchiveFilter)
    list_per_page = 25
    search_fields = ("name", "firmware__version")
    search_help_text = "Name or version"
    ordering = ("-created_at",)

    def get_queryset(self, request: HttpRequest) -> QuerySet[Deployment]:
        return Deployment.objects.select_related(
            "firmware__model", "created_by"
        ).prefetch_related(Prefetch("stages", Stage.objects.order_by("number")))

    def complete(self, rows: list[Any]) -> None:
        numbers = {row.pk: dict.fromkeys(TargetStatus.values, 0) for row in rows}
        for pk, status, number in (
            Target.objects.filter(deployment__in=rows)
            .values_list("deployment", "status")
            .annotate(number=Count("pk"))
            .order_by()
        ):
            numbers[pk][status] = number
        for row in rows:
            row.progress = numbers[row.pk]

    @display(description="Name", ordering="name")
    def named(self, deployment: Deployment) -> SafeString:
        tags = format_html_join(
            "", ' <span class="hs-tag">{}</span>', ((tag,) for tag in deployment.tags)
        )
        return format_html("{}{}", deployment.name, tags)

    @display(description="Firmware")
    def image(self, deployment: Deployment) -> str:
        return str(deployment.firmware)

    @display(description="Status", ordering="status")
    def state(self, deployment: Any) -> SafeString:
        return deployment_badge(deployment, failed=failed_of(deployment.progress))

    @display(description="Stage")
    def stage(self, deployment: Deployment) -> str:
        stages = list(deployment.stages.all())
        current = current_stage(stages)
        if not stages:
            return "–"
        return f"{current.number if current else 0} of {len(stages)}"

    @display(description="Progress")
    def progress(self, deployment: Any) -> SafeString:
        numbers: dict[str, int] = deployment.progress
        total = sum(numbers.values())
        if not total:
            return SafeString(self.empty_value_display)
        settled = sum(numbers[status] for status in SETTLED)
        return format_html(
            '<span class="hs-meter">{} {} of {} updated '
            '<span class="hs-hint">{} % finished</span></span>',
            render_to_string(
                "console/bar.html",
                {"segments": segments_of(numbers)},
            ),
            f"{numbers[TargetStatus.SUCCESS]:,}",
            f"{total:,}",
            # Rounded down: 100 % is said of nothing that is not finished.
            int(100 * settled / total),
        )

    @display(description="Created", ordering="-created_at")
    def since(self, deployment: Deployment) -> SafeString:
        return age(deployment.created_at)

    # The live page

    def more_urls(self) -> list[URLPattern]:
        return [
            *super().more_urls(),
            path(
                "adoption/<uuid:firmware_id>/",
                self.protected(self.adoption_view),
                name=self.url_name("adoption"),
            ),
            path(
                "<path:object_id>/live/",
                self.protected(self.live_view),
                name=self.url_name("live"),
            ),
            path(
                "<path:object_id>/devices/",
                self.protected(self.device_table_view),
                name=self.url_name("device-table"),
            ),
            path(
                "<path:object_id>/log/",
                self.protected(self.log_view),
                name=self.url_name("log"),
            ),
            path(
                "<path:object_id>/charts/",
                self.protected(self.charts_view),
                name=self.url_name("charts"),
            ),
            path(
                "<path:object_id>/health/",
                self.protected(self.health_view),
                name=self.url_name("health"),
            ),
            path(
                "<path:object_id>/report/",
                self.protected(self.report_view),
                name=self.url_name("report"),
            ),
            path(
                "<path:object_id>/report.csv",
                self.protected(self.devices_view),
                name=self.url_name("devices"),
            ),
        ]

    def evidence(self, actor: User, obj: Deployment) -> Iterator[bytes]:
        return deployment_evidence(actor=actor, deployment_id=obj.pk)

    def report_view(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Render the health report, for the screen and for paper."""
        if request.method not in READING:
            return HttpResponseNotAllowed(READING)
        obj = self.found(request, object_id)
        return TemplateResponse(
            request,
            "console/report.html",
            {
                **self.admin_site.each_context(request),
                "item": obj,
                "title": self.title,
                "subtitle": f"Health report of {obj}",
                "heading": "Health report",
                "back_url": self.page_url(obj),
                "back_name": str(obj),
                "csv_url": self.url("devices", obj.pk),
                **report_context(obj),
            },
            headers={"Cache-Control": "no-store"},
        )

    def devices_view(self, request: HttpRequest, object_id: str) -> Any:
        """Send the devices with their outcome as CSV."""
        if request.method not in READING:
            return HttpResponseNotAllowed(READING)
        return devices_file(self.found(request, object_id))

    def page_context(self, request: HttpRequest, obj: Deployment) -> dict[str, Any]:
        now = timezone.now()
        version = self.version_of(obj.pk, now)
        live = self.live_context(request, obj, version)
        return {
            **live,
            "foreseen": predict(obj, now) if obj.is_waiting else None,
            "health_url": self.url("health", obj.pk),
            "charts_url": self.url("charts", obj.pk),
            "devices_url": self.url("device-table", obj.pk),
            "log_url": self.url("log", obj.pk),
            **device_table(obj, live["by_status"], QueryDict(), now),
            **log_table(obj, QueryDict(), now),
        }

    @staticmethod
    def version_of(deployment_id: UUID | None, now: datetime) -> Version:
        """Return what a deployment looks like, or answer 404."""
        version = current_version(deployment_id, now) if deployment_id else None
        if version is None:
            raise Http404
        return version

    def live_context(
        self, request: HttpRequest, obj: Deployment, version: Version
    ) -> dict[str, Any]:
        """Return what the moving part shows; its address says what is known then."""
        known = urlencode({"devices": version.devices, "log": version.log})
        return {
            "item": obj,
            "etag": _etag_of(version, acting_person(request)),
            "live_url": f"{self.url('live', obj.pk)}?{known}",
            "report_url": self.url("report", obj.pk),
            "part_url": self.part_url(request, obj),
            **live_context(obj),
        }

    def part_url(self, request: HttpRequest, obj: Deployment) -> str:
        """Return where a part is rolled back; empty where this person cannot."""
        action = RollBackPart()
        if not action.applies(obj) or action.denial_reason(acting_person(request), obj):
            return ""
        return self.action_url(action, obj)

    def health_view(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Render the health, which is counted less often than the rest."""
        if request.method not in READING:
            return HttpResponseNotAllowed(READING)
        obj = self.found(request, object_id)
        return TemplateResponse(
            request,
            "console/deployment_health.html",
            {
                "anomalies_url": f"{self.url('report', obj.pk)}#anomalies",
                **health_panel(obj),
            },
            status=HTMX_STOP_POLLING if is_over(obj) else 200,
            headers={"Cache-Control": "no-store"},
        )

    def live_view(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Render the moving part of the page, where it is not what is known.

        286 tells htmx that it is over; what else has changed is named, and asks for
        itself.
        """
        if request.method not in READING:
            return HttpResponse(status=405, headers={"Allow": ", ".join(READING)})
        if not self.has_view_permission(request):
            raise PermissionDenied
        version = self.version_of(id_in(unquote(object_id)), timezone.now())
        user = acting_person(request)
        etag = _etag_of(version, user)
        headers = {"Cache-Control": "no-store", "ETag": etag}
        if knows(request, etag):
            return HttpResponse(status=304, headers=headers)
        changed = [
            event
            for event, now_known, name in (
                ("hs-devices", version.devices, "devices"),
                ("hs-log", version.log, "log"),
            )
            if request.GET.get(name, now_known) != now_known
        ]
        if changed:
            headers["HX-Trigger"] = ", ".join(changed)
        obj = self.found(request, object_id)
        context = self.live_context(request, obj, version)
        return TemplateResponse(
            request,
            "console/deployment_live.html",
            {**context, "buttons": self.buttons(user, obj)},
            status=HTMX_STOP_POLLING if context["is_over"] else 200,
            headers=headers,
        )

    def device_table_view(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Render a page of the devices."""
        obj = self.looked_at(request, object_id)
        if isinstance(obj, HttpResponse):
            return obj
        counts = dict.fromkeys(TargetStatus.values, 0) | status_counts(obj)
        return TemplateResponse(
            request,
            "console/deployment_device_rows.html",
            {
                "item": obj,
                "is_piece": True,
                "devices_url": self.url("device-table", obj.pk),
                "part_url": self.part_url(request, obj),
                **device_table(obj, counts, request.GET, timezone.now()),
            },
            headers={"Cache-Control": "no-store"},
        )

    def log_view(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Render lines of the log."""
        obj = self.looked_at(request, object_id)
        if isinstance(obj, HttpResponse):
            return obj
        return TemplateResponse(
            request,
            "console/deployment_log_lines.html",
            {
                "item": obj,
                "log_url": self.url("log", obj.pk),
                **log_table(obj, request.GET, timezone.now()),
            },
            headers={"Cache-Control": "no-store"},
        )

    def charts_view(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Render how it went over time."""
        obj = self.looked_at(request, object_id)
        if isinstance(obj, HttpResponse):
            return obj
        return TemplateResponse(
            request,
            "console/deployment_charts.html",
            {
                "charts_url": self.url("charts", obj.pk),
                "is_over": is_over(obj),
                **progress_charts(obj, timezone.now()),
            },
            headers={"Cache-Control": "no-store"},
        )

    def adoption_view(self, request: HttpRequest, firmware_id: UUID) -> HttpResponse:
        """Render how many devices ran a firmware over time, for its page."""
        if request.method not in READING:
            return HttpResponseNotAllowed(READING)
        if not self.has_view_permission(request):
            raise PermissionDenied
        firmware = get_object_or_404(Firmware, pk=firmware_id)
        return TemplateResponse(
            request,
            "console/firmware_adoption.html",
            {"firmware": firmware, **adoption_chart(firmware, timezone.now())},
            headers={"Cache-Control": "no-store"},
        )

    def looked_at(self, request: HttpRequest, object_id: str) -> Any:
        """Return the deployment of a part that only shows, or the refusal."""
        if request.method not in READING:
            return HttpResponseNotAllowed(READING)
        return self.found(request, object_id)
