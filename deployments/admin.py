"""The console's pages of deployments: the list, the live page, the launch."""

from collections.abc import Mapping
from typing import Any

from django import forms
from django.conf import settings
from django.contrib import admin
from django.db.models import Count, Prefetch, QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseNotAllowed
from django.template.loader import render_to_string
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils import timezone
from django.utils.html import format_html
from django.utils.safestring import SafeString
from unfold.contrib.filters.admin import RadioFilter
from unfold.decorators import display

from deployments.api.serializers import RollbackInput
from deployments.choices import (
    ACTIVE_DEPLOYMENTS,
    CANCELLABLE,
    HOLDABLE,
    IN_FLIGHT,
    PAUSABLE,
    RETRIABLE,
    REVERSIBLE,
    STOPPABLE,
    DeploymentStatus,
    PauseReason,
    RollbackTrigger,
    StageStatus,
    Strategy,
    TargetStatus,
)
from deployments.console import notifications  # noqa: F401
from deployments.console.health import health_panel
from deployments.console.launch import CopyAsNew, EditWaiting, Launch
from deployments.console.live import (
    HTMX_STOP_POLLING,
    live_context,
    segments_of,
    status_counts,
)
from deployments.console.report import devices_file, report_context
from deployments.console.words import deployment_badge, failed_of, is_over
from deployments.models import Deployment, Quarantine, Rollback, Stage, Target
from deployments.reads.status import current_stage
from deployments.services import operate, sweeps
from deployments.services.fleets import current_hold
from deployments.services.launch import predict
from deployments.services.progress import SETTLED
from deployments.services.quarantine import release_quarantine
from deployments.strategies.holds import POINTS
from hotswap.common.console.actions.base import Action
from hotswap.common.console.forms import ConsoleForm, ReasonForm
from hotswap.common.console.pages.base import ConsoleAdmin
from hotswap.common.console.requests import READING, acting_person
from hotswap.common.console.text import age
from hotswap.common.models import User
from hotswap.common.roles import Role
from hotswap.common.words import counted

TYPED_ABOVE = 100
T = TargetStatus


def _not_started(counts: Mapping[str, int]) -> str:
    return (
        f"{counted(counts.get(T.PENDING, 0), 'device is', 'devices are')} not started"
    )


class ConfirmedForm(ReasonForm):
    """A reason, and the number of devices typed out where there are many."""

    def __init__(self, *args: Any, device_count: int, **kwargs: Any) -> None:
        self.device_count = device_count
        super().__init__(*args, **kwargs)
        if device_count > TYPED_ABOVE:
            self.fields["typed"] = forms.CharField(
                label=f"Type {device_count} to confirm the number of devices",
                widget=forms.TextInput(
                    attrs={
                        **self.fields["reason"].widget.attrs,
                        "inputmode": "numeric",
                        "autocomplete": "off",
                    }
                ),
            )

    def clean(self) -> dict[str, Any]:
        cleaned = super().clean() or {}
        typed = str(cleaned.get("typed", "")).replace(",", "").strip()
        if self.device_count > TYPED_ABOVE and typed != str(self.device_count):
            self.add_error("typed", f"{self.device_count} devices are concerned.")
        return cleaned


class OperatingAction(Action):
    """An action that speaks of the devices of a deployment."""

    allowed: tuple[DeploymentStatus, ...] = ()

    def applies(self, obj: Deployment) -> bool:
        return obj.status in self.allowed

    def blocked_reason(self, user: User, obj: Deployment) -> str:
        return "it is being cancelled" if obj.cancel_requested_at else ""

    def concerned(self, obj: Deployment) -> int:
        """Return how many devices the action touches."""
        return obj.target_count

    def make_form(self, request: HttpRequest, obj: Deployment) -> ConsoleForm:
        return ConfirmedForm(
            request.POST if request.method == "POST" else None,
            device_count=self.concerned(obj),
        )


class Pause(OperatingAction):
    name = "pause"
    label = "Pause"
    icon = "pause"
    form_class = ReasonForm
    allowed = PAUSABLE

    def make_form(self, request: HttpRequest, obj: Deployment) -> ConsoleForm:
        return Action.make_form(self, request, obj)

    def notes(self, obj: Deployment) -> tuple[str, ...]:
        counts = status_counts(obj)
        moving = sum(counts.get(status, 0) for status in IN_FLIGHT)
        return (
            (
                f"{_not_started(counts)} and will get no "
                f"order while it is paused; {moving:,} are at work and will finish."
            ),
        )

    def execute(self, user: User, obj: Deployment, given: dict[str, Any]) -> str:
        operate.pause_deployment(
            actor=user, deployment_id=obj.pk, reason=given["reason"]
        )
        return f"{obj} is paused."


class StageApprovalForm(ConsoleForm):
    comment = forms.CharField(
        max_length=2000,
        widget=forms.Textarea,
        help_text="Kept in the audit trail and in the log.",
    )


class Resume(OperatingAction):
    name = "resume"
    label = "Resume"
    icon = "play_arrow"
    tone = "primary"
    form_class = ReasonForm
    allowed = (DeploymentStatus.PAUSED,)

    def blocked_reason(self, user: User, obj: Deployment) -> str:
        if PauseReason.WINDOW in obj.pause_reasons:
            return "it goes on by itself when its window opens"
        if PauseReason.APPROVAL in obj.pause_reasons:
            return "its next stage waits for an approval"
        return super().blocked_reason(user, obj)

    def make_form(self, request: HttpRequest, obj: Deployment) -> ConsoleForm:
        return Action.make_form(self, request, obj)

    def notes(self, obj: Deployment) -> tuple[str, ...]:
        said = [f"It was paused because: {obj.pause_detail}"]
        if PauseReason.HEALTH in obj.pause_reasons:
            said.append(
                "Resuming accepts the warning: the gate of this stage opens on the "
                "evidence there is."
            )
        return tuple(said)

    def execute(self, user: User, obj: Deployment, given: dict[str, Any]) -> str:
        operate.resume_deployment(
            actor=user, deployment_id=obj.pk, reason=given["reason"]
        )
        return f"{obj} goes on."


class ApproveStage(OperatingAction):
    name = "approve-stage"
    label = "Approve stage"
    icon = "verified"
    tone = "primary"
    role = Role.ADMIN
    form_class = StageApprovalForm

    def heading(self, obj: Deployment) -> str:
        return f"Approve the next stage of {obj}"

    def applies(self, obj: Deployment) -> bool:
        return PauseReason.APPROVAL in obj.pause_reasons

    def blocked_reason(self, user: User, obj: Deployment) -> str:
        if settings.FOUR_EYES and obj.created_by_id == user.pk:
            return "launched by you: a second person approves"
        return super().blocked_reason(user, obj)

    def make_form(self, request: HttpRequest, obj: Deployment) -> ConsoleForm:
        return Action.make_form(self, request, obj)

    def notes(self, obj: Deployment) -> tuple[str, ...]:
        stage = obj.stages.filter(status=StageStatus.PENDING).first()
        if stage is None:
            return ()
        return (
            (
                f"Stage {stage.number} ({stage.name}) opens for "
                f"{counted(stage.size, 'device')}."
            ),
        )

    def execute(self, user: User, obj: Deployment, given: dict[str, Any]) -> str:
        operate.approve_stage(
            actor=user, deployment_id=obj.pk, comment=given["comment"]
        )
        return f"The next stage of {obj} opens."


class AcknowledgeHold(OperatingAction):
    name = "acknowledge-hold"
    label = "Acknowledge"
    icon = "traffic"
    tone = "primary"
    form_class = StageApprovalForm
    allowed = HOLDABLE

    def heading(self, obj: Deployment) -> str:
        return f"Acknowledge that a fleet of {obj} has drained"

    def applies(self, obj: Deployment) -> bool:
        return super().applies(obj) and current_hold(obj) is not None

    def make_form(self, request: HttpRequest, obj: Deployment) -> ConsoleForm:
        return Action.make_form(self, request, obj)

    def notes(self, obj: Deployment) -> tuple[str, ...]:
        hold = current_hold(obj)
        if hold is None:
            return ()
        point = POINTS[hold.phase]
        return (f"The {hold.fleet} fleet is held; then {point.follows}.",)

    def execute(self, user: User, obj: Deployment, given: dict[str, Any]) -> str:
        operate.acknowledge_hold(
            actor=user, deployment_id=obj.pk, comment=given["comment"]
        )
        return f"{obj} goes on."


class RetryFailed(OperatingAction):
    name = "retry-failed"
    label = "Retry failed"
    icon = "replay"
    form_class = ReasonForm
    allowed = RETRIABLE

    def heading(self, obj: Deployment) -> str:
        return f"Retry what failed in {obj}"

    def applies(self, obj: Deployment) -> bool:
        return super().applies(obj) and self.concerned(obj) > 0

    def concerned(self, obj: Deployment) -> int:
        return sweeps.retriable(obj).count()

    def make_form(self, request: HttpRequest, obj: Deployment) -> ConsoleForm:
        return Action.make_form(self, request, obj)

    def notes(self, obj: Deployment) -> tuple[str, ...]:
        again = (
            f"{counted(self.concerned(obj), 'device')} that failed, or went back "
            "alone, will get the order again in this deployment, with the attempts "
            "counted anew."
        )
        kept = sweeps.quarantined(obj).count()
        if not kept:
            return (again,)
        left_out = (
            f"{counted(kept, 'more device is', 'more devices are')} quarantined and "
            "left alone: release those first that shall be tried again."
        )
        return again, left_out

    def execute(self, user: User, obj: Deployment, given: dict[str, Any]) -> str:
        operate.retry_failed(actor=user, deployment_id=obj.pk, reason=given["reason"])
        return f"What failed in {obj} is tried again."


class Cancel(OperatingAction):
    name = "cancel"
    label = "Cancel"
    icon = "block"
    tone = "danger"
    allowed = CANCELLABLE

    def notes(self, obj: Deployment) -> tuple[str, ...]:
        counts = status_counts(obj)
        stopping = sum(counts.get(status, 0) for status in STOPPABLE)
        finishing = sum(counts.get(status, 0) for status in IN_FLIGHT) - stopping
        return (
            f"{_not_started(counts)} and never will be.",
            f"{stopping:,} have been told or are downloading, and stop.",
            f"{finishing:,} are installing or later, and will finish.",
            (
                f"{counts.get(T.SUCCESS, 0):,} are done and keep the new firmware: "
                "to take it back, roll back instead."
            ),
        )

    def execute(self, user: User, obj: Deployment, given: dict[str, Any]) -> str:
        operate.cancel_deployment(
            actor=user, deployment_id=obj.pk, reason=given["reason"]
        )
        return f"{obj} is being cancelled: devices that are installing will finish."


class RollBack(OperatingAction):
    name = "rollback"
    label = "Roll back"
    icon = "undo"
    tone = "danger"
    allowed = REVERSIBLE

    def concerned(self, obj: Deployment) -> int:
        return Target.objects.filter(deployment=obj, exposed_at__isnull=False).count()

    def notes(self, obj: Deployment) -> tuple[str, ...]:
        return (
            (
                f"{counted(self.concerned(obj), 'device was', 'devices were')}"
                " given the order. Each that "
                "runs or may run the new firmware is sent back to the one it ran "
                "before, and must prove that it is back."
            ),
            (f"{_not_started(status_counts(obj))} and never will be."),
        )

    def execute(self, user: User, obj: Deployment, given: dict[str, Any]) -> str:
        operate.rollback_deployment(
            actor=user, deployment_id=obj.pk, reason=given["reason"]
        )
        return f"{obj} is rolling back."


class PartForm(ReasonForm):
    """A reason, and the part that goes back: a stage, a region, or devices."""

    stage = forms.TypedChoiceField(coerce=int, required=False, empty_value=None)
    region = forms.ChoiceField(required=False)
    deviceIds = forms.CharField(
        label="Device ids",
        required=False,
        widget=forms.Textarea(attrs={"rows": 3, "spellcheck": "false"}),
        help_text="One a line, or separated by spaces or commas",
    )
    field_order = ("stage", "region", "deviceIds", "reason")

    def __init__(self, *args: Any, deployment: Deployment, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        opened = deployment.stages.filter(opened_at__isnull=False)
        self.fields["stage"].choices = [  # type: ignore[attr-defined]
            ("", "–"),
            *((each.number, str(each)) for each in opened),
        ]
        self.fields["region"].choices = [  # type: ignore[attr-defined]
            ("", "–"),
            *((each, each) for each in settings.REGIONS),
        ]

    def clean(self) -> dict[str, Any]:
        cleaned = super().clean() or {}
        names = cleaned.get("deviceIds", "").replace(",", " ").split()
        given = {
            "stage": cleaned.get("stage"),
            "region": cleaned.get("region"),
            "deviceIds": names,
        }
        body = {"scope": {name: value for name, value in given.items() if value}}
        if not self.errors:
            asked = RollbackInput(data=body | {"reason": cleaned.get("reason", "")})
            if asked.is_valid():
                cleaned["scope"] = asked.validated_data["scope"]
            else:
                self.add_error(
                    None, "Choose exactly one: a stage, a region, or devices."
                )
        return cleaned


class RollBackPart(OperatingAction):
    """Sends a stage, a region or devices back while the deployment goes on."""

    name = "rollback-part"
    label = "Roll back a part"
    icon = "undo"
    allowed = REVERSIBLE

    def heading(self, obj: Deployment) -> str:
        return f"Roll back a part of {obj}"

    def applies(self, obj: Deployment) -> bool:
        return super().applies(obj) and obj.target_count > 1

    def make_form(self, request: HttpRequest, obj: Deployment) -> ConsoleForm:
        if request.method == "POST":
            return PartForm(request.POST, deployment=obj)
        names = ("stage", "region", "deviceIds")
        chosen = {name: request.GET[name] for name in names if name in request.GET}
        return PartForm(initial=chosen, deployment=obj)

    def notes(self, obj: Deployment) -> tuple[str, ...]:
        return (
            (
                "The devices of this part that run or may run the new firmware go back "
                "to the one they ran before, and must prove it. Those of it that were "
                "not given the order yet never will be."
            ),
            (
                "The deployment goes on for all others. What goes back so counts "
                "neither for nor against the gate, and is not tried again."
            ),
        )

    def execute(self, user: User, obj: Deployment, given: dict[str, Any]) -> str:
        operate.rollback_deployment(
            actor=user,
            deployment_id=obj.pk,
            reason=given["reason"],
            scope=given["scope"],
        )
        return f"A part of {obj} goes back."


class Release(Action):
    name = "release"
    label = "Release"
    icon = "lock_open"
    form_class = ReasonForm

    def applies(self, obj: Quarantine) -> bool:
        return obj.quarantined_at is not None

    def notes(self, obj: Quarantine) -> tuple[str, ...]:
        return (
            (
                f"{obj.firmware} has failed on {obj.device} {obj.failures} times, the "
                f"last time by {obj.last_code}. Deployments may offer it again, and "
                "its failures are counted anew."
            ),
        )

    def execute(self, user: User, obj: Quarantine, given: dict[str, Any]) -> str:
        release_quarantine(
            actor=user,
            device_id=obj.device.device_id,
            firmware_id=obj.firmware_id,
            reason=given["reason"],
        )
        return f"{obj.device} may have {obj.firmware} again."


@admin.register(Quarantine)
class QuarantineAdmin(ConsoleAdmin):
    console_actions = (Release,)
    list_display = ("on_device", "image", "failures", "last_code", "since")
    search_fields = ("device__device_id", "firmware__version")
    search_help_text = "Device or version"
    ordering = ("-quarantined_at",)
    page_template = "console/quarantine.html"
    list_name = "Quarantine"
    empty_words = (
        "No firmware is kept from a device.",
        "What fails on a device again and again is not offered there any more.",
    )

    def get_queryset(self, request: HttpRequest) -> QuerySet[Quarantine]:
        return Quarantine.objects.active().select_related("device", "firmware__model")

    @display(description="Device", ordering="device__device_id")
    def on_device(self, kept: Quarantine) -> str:
        return kept.device.device_id

    @display(description="Firmware")
    def image(self, kept: Quarantine) -> str:
        return str(kept.firmware)

    @display(description="Since", ordering="quarantined_at")
    def since(self, kept: Quarantine) -> SafeString:
        return age(kept.quarantined_at)

    def page_context(self, request: HttpRequest, obj: Quarantine) -> dict[str, Any]:
        return {
            "since": age(obj.quarantined_at),
            "device_url": reverse("admin:devices_device_change", args=[obj.device_id]),
            "firmware_url": reverse(
                "admin:firmware_firmware_change", args=[obj.firmware_id]
            ),
        }


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


@admin.register(Rollback)
class RollbackAdmin(ConsoleAdmin):
    """A list alone: what became of the devices stands on the deployment's page."""

    list_name = "Rollbacks"
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


@admin.register(Deployment)
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
