"""What people do to a deployment that is there."""

from collections.abc import Mapping
from typing import Any

from django import forms
from django.conf import settings
from django.http import HttpRequest

from deployments.choices import (
    CANCELLABLE,
    HOLDABLE,
    IN_FLIGHT,
    PAUSABLE,
    RETRIABLE,
    REVERSIBLE,
    STOPPABLE,
    DeploymentStatus,
    PauseReason,
    StageStatus,
    TargetStatus,
)
from deployments.console.live import status_counts
from deployments.inputs import RollbackInput
from deployments.models import MAX_TAG_LENGTH, Deployment, Target
from deployments.services import operate, sweeps
from deployments.services.fleets import current_hold
from deployments.services.labelling import MAX_TAGS, label_deployment
from deployments.strategies.holds import POINTS
from hotswap.common.console.actions.base import Action
from hotswap.common.console.forms import ConsoleForm, ReasonForm
from hotswap.common.models import User
from hotswap.common.pluralize import counted
from hotswap.common.roles import Role
from hotswap.common.signatures import FIELD as SIGNATURE
from hotswap.common.signatures import Meaning

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


class ConfirmedAction(OperatingAction):
    """An action that asks for the number of devices where there are many."""

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

    def notes(self, obj: Deployment) -> tuple[str, ...]:
        lines = [f"It was paused because: {obj.pause_detail}"]
        if PauseReason.HEALTH in obj.pause_reasons:
            lines.append(
                "Resuming accepts the warning: the gate of this stage opens on the "
                "evidence there is."
            )
        return tuple(lines)

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
    meaning = Meaning.STAGE_APPROVAL

    def heading(self, obj: Deployment) -> str:
        return f"Approve the next stage of {obj}"

    def applies(self, obj: Deployment) -> bool:
        return PauseReason.APPROVAL in obj.pause_reasons

    def blocked_reason(self, user: User, obj: Deployment) -> str:
        if settings.FOUR_EYES and obj.created_by_id == user.pk:
            return "launched by you: a second person approves"
        return super().blocked_reason(user, obj)

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
            actor=user,
            deployment_id=obj.pk,
            comment=given["comment"],
            signature=given.get(SIGNATURE),
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


class LabelsForm(ConsoleForm):
    name = forms.CharField(max_length=128)
    tags = forms.CharField(
        required=False,
        help_text=f"Up to {MAX_TAGS}, with commas between, as in: pilot, customer-7.",
    )

    def clean_tags(self) -> list[str]:
        words = [word.strip() for word in self.cleaned_data["tags"].split(",")]
        tags = [word for word in words if word]
        for tag in tags:
            if len(tag) > MAX_TAG_LENGTH:
                raise forms.ValidationError(
                    f"{tag} is too long: a tag has {MAX_TAG_LENGTH} characters at most."
                )
        if len(set(tags)) > MAX_TAGS:
            raise forms.ValidationError(f"{MAX_TAGS} tags are the most.")
        return tags


class Label(Action):
    """Rename and tag, whatever the deployment does."""

    name = "label"
    label = "Rename and tag"
    icon = "sell"

    def make_form(self, request: HttpRequest, obj: Deployment) -> ConsoleForm:
        return LabelsForm(
            request.POST if request.method == "POST" else None,
            initial={"name": obj.name, "tags": ", ".join(obj.tags)},
        )

    def execute(self, user: User, obj: Deployment, given: dict[str, Any]) -> str:
        labelled = label_deployment(
            actor=user, deployment_id=obj.pk, name=given["name"], tags=given["tags"]
        )
        return f"{labelled} has its name and tags."


class Archive(Action):
    name = "archive"
    label = "Archive"
    icon = "inventory_2"
    form_class = ConsoleForm

    def applies(self, obj: Deployment) -> bool:
        return obj.may_be_archived and obj.archived_at is None

    def notes(self, obj: Deployment) -> tuple[str, ...]:
        kept = "It keeps all that it has; the filter Archive of the list finds it."
        return "The list hides it from then on.", kept

    def execute(self, user: User, obj: Deployment, given: dict[str, Any]) -> str:
        label_deployment(actor=user, deployment_id=obj.pk, is_archived=True)
        return f"{obj} is in the archive."


class Unarchive(Action):
    name = "unarchive"
    label = "Take out of the archive"
    icon = "unarchive"
    form_class = ConsoleForm

    def applies(self, obj: Deployment) -> bool:
        return obj.archived_at is not None

    def execute(self, user: User, obj: Deployment, given: dict[str, Any]) -> str:
        label_deployment(actor=user, deployment_id=obj.pk, is_archived=False)
        return f"{obj} is among the others again."


class Cancel(ConfirmedAction):
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


class RollBack(ConfirmedAction):
    name = "rollback"
    label = "Roll back"
    icon = "undo"
    tone = "danger"
    allowed = REVERSIBLE
    meaning = Meaning.ROLLBACK

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
            actor=user,
            deployment_id=obj.pk,
            reason=given["reason"],
            signature=given.get(SIGNATURE),
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
    meaning = Meaning.ROLLBACK

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
            signature=given.get(SIGNATURE),
            scope=given["scope"],
        )
        return f"A part of {obj} goes back."
