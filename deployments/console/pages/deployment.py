"""The list of deployments, the live page of one, and its report."""

from typing import Any

from django.db.models import Count, Prefetch, QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseNotAllowed
from django.template.loader import render_to_string
from django.template.response import TemplateResponse
from django.urls import URLPattern, path
from django.utils import timezone
from django.utils.html import format_html
from django.utils.safestring import SafeString
from unfold.contrib.filters.admin import RadioFilter
from unfold.decorators import display

from deployments.choices import (
    ACTIVE_DEPLOYMENTS,
    DeploymentStatus,
    Strategy,
    TargetStatus,
)
from deployments.console.actions.deployment import (
    AcknowledgeHold,
    ApproveStage,
    Cancel,
    Pause,
    Resume,
    RetryFailed,
    RollBack,
    RollBackPart,
)
from deployments.console.actions.launch import CopyAsNew, EditWaiting, Launch
from deployments.console.badges import deployment_badge, failed_of, is_over
from deployments.console.health import health_panel
from deployments.console.live import HTMX_STOP_POLLING, live_context, segments_of
from deployments.console.report import devices_file, report_context
from deployments.models import Deployment, Stage, Target
from deployments.reads.status import current_stage
from deployments.services.preview import predict
from deployments.services.progress import SETTLED
from hotswap.common.console.pages.base import ConsoleAdmin
from hotswap.common.console.requests import READING, acting_person
from hotswap.common.console.text import age


class StateFilter(RadioFilter):
    title = "status"
    parameter_name = "state"

    def lookups(self, request: Any, model_admin: Any) -> list[tuple[str, str]]:
        return [("active", "Under way"), *DeploymentStatus.choices]

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


class DeploymentAdmin(ConsoleAdmin):
    audit_kind = "deployment"
    empty_words = (
        "Nothing was deployed yet.",
        "Launch approved firmware, and its page shows how far the devices are.",
    )
    console_actions = (
        Launch,
        ApproveStage,
        AcknowledgeHold,
        Pause,
        Resume,
        RetryFailed,
        EditWaiting,
        CopyAsNew,
        RollBackPart,
        RollBack,
        Cancel,
    )
    page_template = "console/deployment.html"
    list_display = ("name", "image", "strategy", "state", "stage", "progress", "since")
    list_filter = (StateFilter, StrategyFilter)
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
            return format_html('<span class="hs-subtle">{}</span>', "–")
        settled = sum(numbers[status] for status in SETTLED)
        return format_html(
            '<span class="hs-meter">{} {} of {} updated '
            '<span class="hs-hint">{} % settled</span></span>',
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
            path(
                "<path:object_id>/live/",
                self.protected(self.live_view),
                name=self.url_name("live"),
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
        return {
            "live_url": self.url("live", obj.pk),
            "health_url": self.url("health", obj.pk),
            "report_url": self.url("report", obj.pk),
            "foreseen": predict(obj, timezone.now()) if obj.is_waiting else None,
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
        """Render the moving part of the page; 286 tells htmx that it is over."""
        if request.method not in READING:
            return HttpResponse(status=405, headers={"Allow": ", ".join(READING)})
        obj = self.found(request, object_id)
        context = live_context(obj)
        return TemplateResponse(
            request,
            "console/deployment_live.html",
            {
                "item": obj,
                "buttons": self.buttons(acting_person(request), obj),
                "health_url": self.url("health", obj.pk),
                "report_url": self.url("report", obj.pk),
                "part_url": self.part_url(request, obj),
                **context,
            },
            status=HTMX_STOP_POLLING if context["is_over"] else 200,
            headers={"Cache-Control": "no-store"},
        )
