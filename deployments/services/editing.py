"""Editing a deployment that waits for its time (FR-FW-003)."""

from datetime import datetime
from typing import Any
from uuid import UUID

from django.db import transaction
from django.utils import timezone

from deployments.exceptions import WrongStatusError
from deployments.models import Deployment
from deployments.rules.events import EventName
from deployments.services.launch import accepted_audience, deployable, settings_of
from deployments.services.locked import locked_deployment
from deployments.services.log import log
from deployments.services.refusals import check_green_group, check_groups
from deployments.services.requests import DeploymentRequest
from deployments.services.targeting import Audience
from devices.services.groups import hold_groups
from hotswap.common import audit
from hotswap.common.changes import difference
from hotswap.common.errors import FieldError, InvalidInputError
from hotswap.common.etags import check_match
from hotswap.common.models import User

# Devices are not named in the audit trail, nor in lines of the log that are of others.
TARGETS = "targets"


def edit_deployment(
    *,
    actor: User,
    deployment_id: UUID,
    request: DeploymentRequest,
    expected: frozenset[str] | None = None,
    now: datetime | None = None,
) -> tuple[Deployment, Audience]:
    """Replace all that was asked for by a deployment that has yet to start.

    It is checked like a launch, and whom it reaches is asked again. One that was paused
    before its start stays paused.

    Args:
        expected: ETags of which its own must be one; None when any will do.

    Raises:
        DeploymentNotFoundError: there is none.
        WrongStatusError: it has started, or has ended (409).
        PreconditionFailedError: it has changed since the caller read it (412).
        InvalidInputError: no time for its start.
        AcknowledgementRequiredError, FirmwareNotDeployableError,
            IneligibleDevicesError: as at a launch.

    Source: FR-FW-003, schedule.
    """
    now = now or timezone.now()
    with transaction.atomic():
        deployment = locked_deployment(deployment_id)
        if not deployment.is_waiting:
            raise WrongStatusError(
                f"a deployment that is {deployment.status} cannot be edited: only one "
                "that has yet to start can"
            )
        check_match(deployment, expected)
        if request.scheduled_at is None:
            message = "is required: an edited deployment starts at its time"
            raise InvalidInputError(
                f"scheduledAt {message}",
                errors=[FieldError("/scheduledAt", "required", message)],
            )
        firmware = deployable(request.firmware_id, lock=True)
        hold_groups(request.groups)
        check_groups(request.selection)
        check_green_group(request.green_fleet)
        audience = accepted_audience(request, firmware, now)
        changes = _apply(deployment, settings_of(request, firmware, deployment))
        if changes:
            deployment.updated_at = now
            deployment.save()
            log(deployment, EventName.EDITED, _in_words(changes), now=now)
            audit.record(
                actor=actor,
                verb="deployment.edited",
                object_kind="deployment",
                object_id=deployment.pk,
                details={"changes": changes},
            )
    return deployment, audience


def _apply(
    deployment: Deployment, settings: dict[str, Any]
) -> dict[str, dict[str, Any]]:
    """Write the settings into the row; return the former and new value of each change.

    Of maps each part is a change of its own, as in `healthCriteria.watchDuration`.
    """
    changes: dict[str, dict[str, Any]] = {}
    for name, new in settings.items():
        old = getattr(deployment, name)
        if old == new:
            continue
        if name == "selection":
            changes[TARGETS] = {"from": _brief(old), "to": _brief(new)}
        else:
            changes |= difference(name, old, new)
        setattr(deployment, name, new)
    return changes


def _brief(selection: dict[str, Any]) -> dict[str, Any]:
    """Return a selection without names of devices."""
    listed = selection["device_ids"]
    return {
        "devices": len(listed),
        "groups": selection["group_ids"],
        "regions": selection["regions"],
        "all": selection["everyone"],
    }


def _in_words(changes: dict[str, dict[str, Any]]) -> str:
    message = [
        name if name == TARGETS else f"{name} {each['from']} -> {each['to']}"
        for name, each in changes.items()
    ]
    return f"changed: {', '.join(message)}"
