"""The list of rollbacks."""

from typing import Any

from django.db.models import QuerySet
from django.http import HttpRequest
from django.urls import reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString
from unfold.contrib.filters.admin import RadioFilter
from unfold.decorators import display

from deployments.choices import RollbackTrigger
from deployments.models import Rollback
from hotswap.common.console.narrow_row import NarrowRow
from hotswap.common.console.pages.base import ConsoleAdmin
from hotswap.common.console.text import age


class TriggerFilter(RadioFilter):
    title = "trigger"
    parameter_name = "trigger"

    def lookups(self, request: Any, model_admin: Any) -> list[tuple[str, str]]:
        return [
            (RollbackTrigger.GATE.value, "gate of a stage"),
            (RollbackTrigger.OPERATOR.value, "a person"),
        ]

    def queryset(
        self, request: Any, queryset: QuerySet[Rollback]
    ) -> QuerySet[Rollback]:
        if self.value() not in RollbackTrigger.values:
            return queryset
        return queryset.filter(facts__trigger=self.value())


class RollbackAdmin(ConsoleAdmin):
    """A list alone: what became of the devices stands on the deployment's page."""

    help_page = "monitoring.md#rollbacks"
    api_path = "rollbacks"
    list_name = "Rollbacks"
    narrow_row = NarrowRow(first=("since",), titled=("stage", "failed"))
    list_display = ("of_deployment", "image", "since", "stage", "failed", "why")
    list_display_links = None
    list_filter = (TriggerFilter,)
    search_fields = ("deployment__name", "deployment__firmware__version")
    search_help_text = "Deployment or version"
    ordering = ("-started_at",)
    empty_words = (
        "No deployment went back.",
        "A deployment goes back when a stage fails, or when somebody says so.",
    )

    def get_queryset(self, request: HttpRequest) -> QuerySet[Rollback]:
        return Rollback.objects.select_related("deployment__firmware__model")

    @display(description="Deployment")
    def of_deployment(self, rollback: Rollback) -> SafeString:
        return format_html(
            '<a class="hs-link" href="{}">{}</a>',
            reverse(
                "admin:deployments_deployment_change", args=[rollback.deployment_id]
            ),
            rollback.deployment.name,
        )

    @display(description="Firmware")
    def image(self, rollback: Rollback) -> str:
        return str(rollback.deployment.firmware)

    @display(description="Began", ordering="-started_at")
    def since(self, rollback: Rollback) -> SafeString:
        return age(rollback.started_at)

    @display(description="Stage")
    def stage(self, rollback: Rollback) -> str:
        number = rollback.stage_number
        return "–" if number is None else str(number)

    @display(description="Failed by then")
    def failed(self, rollback: Rollback) -> str:
        counts = rollback.facts["deployment"]
        return f"{counts['failed']:,} of {counts['exposed']:,}"

    @display(description="Why")
    def why(self, rollback: Rollback) -> str:
        return rollback.reason
