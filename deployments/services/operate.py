"""What operators do to a deployment: pause, resume, cancel, roll back.

Each takes the lock, looks at the status, and acts; of two at once one wins and the
other is told the new status (409).
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from typing import Any
from uuid import UUID

from django.conf import settings
from django.db import transaction
from django.utils import timezone

from deployments.choices import (
    CANCELLABLE,
    HOLDABLE,
    PAUSABLE,
    RETRIABLE,
    REVERSIBLE,
    DeploymentStatus,
    PauseReason,
    StageStatus,
)
from deployments.exceptions import (
    NothingToRetryError,
    OwnLaunchError,
    WrongStatusError,
)
from deployments.models import Deployment
from deployments.rules.events import EventName
from deployments.services import sweeps, transitions
from deployments.services.fleets import current_hold
from deployments.services.locked import locked_deployment
from deployments.services.log import context_of, log
from deployments.services.partial_rollback import begin_partial_rollback, resolve_scope
from deployments.services.progress import count_stages, progress_of
from deployments.services.rollback_course import begin_rollback
from deployments.strategies.decide import is_obstructed
from hotswap.common import audit
from hotswap.common.log_context import bind
from hotswap.common.models import User
from hotswap.common.pluralize import counted
from hotswap.common.signatures import (
    Meaning,
    Signature,
    check_signature,
    signed_details,
)


@contextmanager
def _acting(
    actor: User,
    deployment_id: UUID,
    allowed: tuple[DeploymentStatus, ...],
    verb: str,
    reason: str,
    *,
    signature: Signature | None = None,
    signed: Mapping[str, Any] | None = None,
    **details: Any,
) -> Iterator[Deployment]:
    """Lock a deployment, check that the verb fits, and write down who did it.

    Args:
        signature: of the person, where the verb is signed.
        signed: what the record that is signed says beside reason and details; may be
            filled while the deployment is locked.
        details: what the audit trail says beside the reason.
    """
    with transaction.atomic():
        deployment = locked_deployment(deployment_id)
        bind(**context_of(deployment))
        if deployment.status not in allowed:
            raise WrongStatusError(
                f"a deployment that is {deployment.status} cannot be {verb}"
            )
        if deployment.cancel_requested_at is not None:
            raise WrongStatusError("this deployment is being cancelled")
        yield deployment
        audit.record(
            actor=actor,
            verb=f"deployment.{verb.replace(' ', '-')}",
            object_kind="deployment",
            object_id=deployment.pk,
            details={
                "reason": reason,
                **details,
                **signed_details(
                    signature,
                    _signed_record(deployment, reason, {**details, **(signed or {})}),
                ),
            },
            changed=deployment,
        )


def pause_deployment(
    *, actor: User, deployment_id: UUID, reason: str, now: datetime | None = None
) -> Deployment:
    """Stop giving new orders; devices at work go on.

    Raises:
        DeploymentNotFoundError, WrongStatusError.
    """
    now = now or timezone.now()
    with _acting(actor, deployment_id, PAUSABLE, "paused", reason) as deployment:
        transitions.pause(deployment, PauseReason.OPERATOR, reason, now)
    return deployment


def resume_deployment(
    *, actor: User, deployment_id: UUID, reason: str, now: datetime | None = None
) -> Deployment:
    """Go on after a pause by an operator or for health.

    Where the image did not reach devices of an open stage, and that is news, they are
    tried again with all their attempts. Otherwise resuming after a health pause accepts
    the warning of the stage: its gate opens on the evidence there is. A rollback
    threshold cannot be accepted away.

    Raises:
        DeploymentNotFoundError, WrongStatusError.
    """
    now = now or timezone.now()
    paused = (DeploymentStatus.PAUSED,)
    with _acting(actor, deployment_id, paused, "resumed", reason) as deployment:
        if PauseReason.WINDOW in deployment.pause_reasons:
            raise WrongStatusError("it goes on by itself when its window opens")
        if PauseReason.APPROVAL in deployment.pause_reasons:
            raise WrongStatusError("its next stage waits for an approval")
        obstructed = _try_unreached_again(deployment, now)
        if PauseReason.HEALTH in deployment.pause_reasons:
            deployment.stages.filter(status=StageStatus.OPEN).exclude(
                number__in=obstructed
            ).update(is_accepted=True)
        transitions.resume(deployment, now, reason, counted_from=now)
    return deployment


def _try_unreached_again(deployment: Deployment, now: datetime) -> list[int]:
    """Plan anew what the path has kept the image from; return the stages concerned.

    Each remembers how many there were: if they fail again it is a person's to go on
    without them. It settles anew.
    """
    stages = list(deployment.stages.filter(status=StageStatus.OPEN))
    facts = progress_of(stages, count_stages(deployment))
    obstructed = []
    for stage, progress in zip(stages, facts, strict=True):
        if is_obstructed(progress):
            stage.known_unreached = progress.unreached
            stage.settled_at = None
            stage.save(update_fields=["known_unreached", "settled_at"])
            obstructed.append(stage.number)
    if obstructed:
        count = sweeps.retry_unreached(deployment, obstructed, now)
        log(
            deployment,
            EventName.RETRIED,
            f"{counted(count, 'device')} that the image did not reach "
            f"{'tries' if count == 1 else 'try'} again",
            now=now,
        )
    return obstructed


def approve_stage(
    *,
    actor: User,
    deployment_id: UUID,
    comment: str,
    signature: Signature | None = None,
    now: datetime | None = None,
) -> Deployment:
    """Let the next stage open.

    Raises:
        DeploymentNotFoundError.
        WrongStatusError: no stage waits for an approval.
        OwnLaunchError: under four eyes, by whoever launched.
        SignatureRequiredError: it has to be signed.
    """
    check_signature(actor, Meaning.STAGE_APPROVAL, signature)
    now = now or timezone.now()
    paused = (DeploymentStatus.PAUSED,)
    signed: dict[str, Any] = {}
    with _acting(
        actor,
        deployment_id,
        paused,
        "approved",
        comment,
        signature=signature,
        signed=signed,
    ) as deployment:
        stage = deployment.stages.filter(status=StageStatus.PENDING).first()
        if stage is None or PauseReason.APPROVAL not in deployment.pause_reasons:
            raise WrongStatusError("no stage of this deployment waits for an approval")
        if settings.FOUR_EYES and deployment.created_by_id == actor.pk:
            raise OwnLaunchError("whoever launched a deployment cannot approve it")
        signed["stage"] = stage.number
        transitions.approve_stage(deployment, stage, actor, comment, now)
    return deployment


def acknowledge_hold(
    *, actor: User, deployment_id: UUID, comment: str, now: datetime | None = None
) -> Deployment:
    """End the hold of a fleet: its traffic is off.

    Raises:
        DeploymentNotFoundError.
        WrongStatusError: no fleet of it is held.

    Source: Deployment Patterns 4.
    """
    now = now or timezone.now()
    verb = "acknowledged"
    with _acting(actor, deployment_id, HOLDABLE, verb, comment) as deployment:
        hold = current_hold(deployment)
        if hold is None:
            raise WrongStatusError("no fleet of this deployment is held")
        hold.ended_at = now
        hold.acknowledged_by = actor
        hold.save(update_fields=["ended_at", "acknowledged_by"])
        log(
            deployment,
            EventName.DRAINED,
            f"the {hold.fleet} fleet has drained: {comment}",
            now=now,
        )
    return deployment


def retry_failed(
    *, actor: User, deployment_id: UUID, reason: str, now: datetime | None = None
) -> Deployment:
    """Order every device that failed, or was sent back alone, to try again.

    Their attempts are counted anew, and an open stage of theirs settles anew: its gate
    waits again from then on. A completed deployment runs again until they have settled.

    Raises:
        DeploymentNotFoundError, WrongStatusError.
        NothingToRetryError: no device failed, or only quarantined ones did.
    """
    now = now or timezone.now()
    with _acting(actor, deployment_id, RETRIABLE, "retried", reason) as deployment:
        deployment.stages.filter(
            status=StageStatus.OPEN,
            number__in=sweeps.retriable(deployment).values("stage_number"),
        ).update(settled_at=None)
        count = sweeps.retry(deployment, now)
        if not count:
            kept = sweeps.quarantined(deployment).count()
            raise NothingToRetryError(
                f"{counted(kept, 'device that failed is', 'devices that failed are')} "
                "quarantined: release what shall be tried again"
                if kept
                else "no device of this deployment failed"
            )
        if deployment.status == DeploymentStatus.COMPLETED:
            transitions.run_again(deployment, now)
        deployment.updated_at = now
        deployment.save()
        log(
            deployment,
            EventName.RETRIED,
            f"{counted(count, 'device tries', 'devices try')} again: {reason}",
            now=now,
        )
    return deployment


def cancel_deployment(
    *, actor: User, deployment_id: UUID, reason: str, now: datetime | None = None
) -> Deployment:
    """Stop what has not begun to install; what has finishes.

    The status becomes Cancelled when the last device has settled.
    """
    now = now or timezone.now()
    with _acting(actor, deployment_id, CANCELLABLE, "cancelled", reason) as deployment:
        stopped = sweeps.stop_unstarted(deployment, now)
        transitions.request_cancel(deployment, reason, now, stopped=stopped)
    return deployment


def rollback_deployment(
    *,
    actor: User,
    deployment_id: UUID,
    reason: str,
    scope: Mapping[str, Any] | None = None,
    signature: Signature | None = None,
    now: datetime | None = None,
) -> Deployment:
    """Send exposed devices back to the firmware they ran before.

    Args:
        scope: the part that goes back while the deployment goes on, as in
            `resolve_scope`; without it the whole deployment goes back.

    Raises:
        DeploymentNotFoundError, WrongStatusError.
        UnknownScopeError: the deployment has no such part.
        NothingToRollBackError: nothing of the part was given the new firmware.
        SignatureRequiredError: it has to be signed.

    Source: FR-FW-006, manual rollback.
    """
    check_signature(actor, Meaning.ROLLBACK, signature)
    now = now or timezone.now()
    why = f"by an operator: {reason}"
    with _acting(
        actor,
        deployment_id,
        REVERSIBLE,
        "rolled back",
        reason,
        signature=signature,
        **_audited_scope(scope),
    ) as deployment:
        if scope is None:
            begin_rollback(deployment, reason=why, now=now, stage_number=None)
        else:
            part = resolve_scope(deployment, scope)
            begin_partial_rollback(deployment, part, reason=why, now=now)
    return deployment


def _signed_record(
    deployment: Deployment, reason: str, part: dict[str, Any]
) -> dict[str, Any]:
    """Return what the signature of a rollback, or of an approval, is bound to."""
    return {
        "deployment": str(deployment.pk),
        "name": deployment.name,
        "firmware": str(deployment.firmware_id),
        "sha256": deployment.firmware.sha256,
        "reason": reason,
        **part,
    }


def _audited_scope(scope: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return the part that went back for the audit trail, which names no device."""
    if scope is None:
        return {}
    if "device_ids" in scope:
        return {"scope": {"devices": len(scope["device_ids"])}}
    return {"scope": dict(scope)}
