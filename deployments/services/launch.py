"""Creating and launching deployments (FR-FW-003)."""

import logging
import time
import uuid
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.conf import settings
from django.db import connection, transaction
from django.utils import timezone

from deployments.choices import (
    ACTIVE_DEPLOYMENTS,
    AcknowledgedWarning,
    DeploymentStatus,
    LiveFleet,
    OfflineDevices,
    Strategy,
)
from deployments.exceptions import (
    AudienceMovedError,
    DeploymentNotFoundError,
    FirmwareNotDeployableError,
    FleetEmptyError,
    NoEligibleDevicesError,
    TooManyDeploymentsError,
    TooManyDevicesError,
)
from deployments.metrics import DEPLOYMENTS_CREATED
from deployments.models import Deployment
from deployments.rules.events import EventName
from deployments.services.launch_warnings import (
    ASKED_AT_START,
    LOGGED_AT_START,
    check_acknowledged,
    launch_warnings,
)
from deployments.services.log import context_of, log
from deployments.services.plan_writing import write_plan
from deployments.services.refusals import (
    check_green_group,
    check_groups,
    refuse_faulty_list,
    refuse_rejected,
)
from deployments.services.requests import DeploymentRequest, Selection
from deployments.services.targeting import Audience, Chosen, choose_devices
from deployments.services.traces import new_root
from deployments.services.transitions import finish, start
from deployments.strategies.blue_green import GREEN_STAGE
from deployments.strategies.registry import make_plan
from deployments.strategies.types import EmptyFleetError, Fleet, ParameterError, Plan
from devices.services.groups import hold_groups
from firmware.choices import FirmwareStatus
from firmware.models import Firmware
from hotswap.common import audit, locks, metrics
from hotswap.common.early_ticks import ask_for_tick_on_commit
from hotswap.common.errors import FieldError, HotSwapError, InvalidInputError
from hotswap.common.log_context import bind
from hotswap.common.models import User

logger = logging.getLogger(__name__)
WRITE_TRIES = 5


def deployable(firmware_id: UUID, *, lock: bool = False) -> Firmware:
    """Return a firmware that may be deployed.

    Args:
        lock: keep it so until the end of the transaction: a recall waits, and then
            finds what was launched.
    """
    rows = Firmware.objects.select_related("model")
    if lock:
        rows = rows.select_for_update(of=("self",), no_key=True)
    firmware = rows.filter(pk=firmware_id).first()
    if firmware is None:
        raise FirmwareNotDeployableError(
            "there is no such firmware", code="unknown_firmware"
        )
    if firmware.status != FirmwareStatus.APPROVED:
        raise FirmwareNotDeployableError(
            f"{firmware} is {firmware.status}: only Approved firmware is deployed"
        )
    if firmware.damaged_at is not None:
        raise FirmwareNotDeployableError(
            f"the stored image of {firmware} is damaged: {firmware.damage}",
            code="image_damaged",
        )
    if firmware.signature_revoked_at is not None:
        raise FirmwareNotDeployableError(
            f"the key that signed {firmware} was revoked: sign the image again",
            code="signature_revoked",
        )
    return firmware


def plan_for(request: DeploymentRequest, fleet: Fleet) -> Plan | None:
    """Cut the devices into stages; None if there are none.

    Raises:
        FleetEmptyError: one of the two halves has no device.
        InvalidInputError: the parameters do not fit so many devices.
    """
    if fleet.device_count == 0:
        return None
    try:
        return make_plan(request.strategy, fleet, request.parameters)
    except EmptyFleetError as error:
        raise FleetEmptyError(str(error)) from error
    except ParameterError as error:
        raise InvalidInputError(
            str(error), errors=[FieldError(f"/{error.field}", "invalid", str(error))]
        ) from error


def refuse_list(request: DeploymentRequest, audience: Audience) -> None:
    """Refuse a list of devices that has a fault, as a whole.

    Raises:
        IneligibleDevicesError: every fault.
    """
    if request.selection.device_ids:
        left_out = request.exclusions_with(OfflineDevices.EXCLUDE)
        refuse_faulty_list(request.selection, audience, left_out)


def accepted_audience(
    request: DeploymentRequest, firmware: Firmware, now: datetime
) -> Audience:
    """Return whom a launch for later reaches as things are; nothing is written.

    Raises:
        AcknowledgementRequiredError: a warning that must be acknowledged was not.
        IneligibleDevicesError: one of a list of devices cannot take part.
    """
    chosen = choose_devices(request, firmware, now)
    refuse_list(request, chosen.audience)
    audience = _with_warnings(chosen, request, firmware, now)
    check_acknowledged(audience.warnings, request.acknowledge)
    return audience


def _with_warnings(
    chosen: Chosen, request: DeploymentRequest, firmware: Firmware, now: datetime
) -> Audience:
    """Return who takes part, with the warnings of a preview; nothing is written yet."""
    audience = chosen.audience.shortened()
    found = launch_warnings(request, chosen.judged, firmware, audience.eligible, now)
    return replace(audience, warnings=found)


def default_name(
    request: DeploymentRequest, firmware: Firmware, edited: Deployment | None
) -> str:
    """Name a deployment by firmware and strategy, and number those that are alike.

    The caller holds the row of the firmware, so that two do not get one number.
    """
    alike = Deployment.objects.filter(firmware=firmware, strategy=request.strategy)
    if edited is not None:
        alike = alike.exclude(pk=edited.pk)
    number = alike.count() + 1
    name = f"{firmware} ({request.strategy})"
    return f"{name} #{number}" if number > 1 else name


def settings_of(
    request: DeploymentRequest, firmware: Firmware, edited: Deployment | None = None
) -> dict[str, Any]:
    """Return what is asked for by the fields of a deployment that hold it.

    Args:
        edited: the deployment that gets them; None for a new one.
    """
    is_blue_green = request.strategy == Strategy.BLUE_GREEN
    return {
        "name": request.name or default_name(request, firmware, edited),
        "firmware": firmware,
        "strategy": request.strategy,
        "parameters": request.parameters,
        "selection": request.selection.to_json(),
        "health_criteria": request.health_criteria.to_json(),
        "rollback_thresholds": request.rollback_thresholds.to_json(),
        "health_threshold": request.health_threshold,
        "on_warning": request.on_warning,
        "on_late_breach": request.on_late_breach,
        "offline_devices": request.offline_policy,
        "busy_devices": request.busy_devices,
        "offline_deadline": request.offline_deadline,
        "device_timeout": request.device_timeout,
        "max_attempts": request.max_attempts,
        "require_approval_per_stage": request.require_approval_per_stage,
        "maintenance_window": request.maintenance_window,
        "max_devices_per_minute": request.max_devices_per_minute,
        "start_spread": request.start_spread,
        "live_fleet": LiveFleet.BLUE if is_blue_green else "",
        "turn": GREEN_STAGE if is_blue_green else None,
        "scheduled_at": request.scheduled_at,
        "acknowledged": sorted(request.acknowledge),
    }


def create_deployment(
    *, actor: User, request: DeploymentRequest, now: datetime | None = None
) -> tuple[Deployment, Audience]:
    """Write a deployment; it runs at once unless it is scheduled for later.

    All targets are written by one statement, in the same transaction, so that what is
    answered exists as a whole.

    Raises:
        AcknowledgementRequiredError: a warning that must be acknowledged was not.
        DeploymentNotFoundError: what it copies does not exist.
        FirmwareNotDeployableError: not approved, or its stored image is damaged.
        IneligibleDevicesError: a named device or group does not exist, or one of a
            list of devices cannot take part.
        NoEligibleDevicesError: nothing is left to update.
        TooManyDevicesError: more than 100,000 devices.
        TooManyDeploymentsError: 100 deployments are active already.

    Source: FR-FW-003; Scalability.
    """
    now = now or timezone.now()
    began_at = time.monotonic()
    identity = uuid.uuid4()
    root = new_root(identity)
    with transaction.atomic():
        original = _original(request)
        firmware = deployable(request.firmware_id, lock=True)
        hold_groups(request.groups)
        check_groups(request.selection)
        check_green_group(request.green_fleet)
        # Serialises launches, so that two at once cannot both take the last place.
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_xact_lock(%s)", [locks.LAUNCH])
        active = Deployment.objects.filter(status__in=ACTIVE_DEPLOYMENTS).count()
        if active >= settings.MAX_RUNNING_DEPLOYMENTS:
            raise TooManyDeploymentsError(
                f"{active} deployments are active, which is the most"
            )
        deployment = Deployment.objects.create(
            **settings_of(request, firmware),
            id=identity,
            traceparent=root.traceparent,
            parent_span=root.parent_span,
            status=DeploymentStatus.SCHEDULED,
            copied_from=original,
            created_by=actor,
            created_at=now,
            updated_at=now,
        )
        bind(**context_of(deployment))
        acknowledged = deployment.acknowledged
        log(
            deployment,
            EventName.CREATED,
            f"{request.strategy} of {firmware} created"
            + (f", acknowledging {', '.join(acknowledged)}" if acknowledged else "")
            + (f" as a copy of {original}: {request.reason}" if original else ""),
            now=now,
        )
        metrics.write([DEPLOYMENTS_CREATED.entry(strategy=deployment.strategy)])
        audit.record(
            actor=actor,
            verb="deployment.created",
            object_kind="deployment",
            object_id=deployment.pk,
            details={"firmware": str(firmware.pk), "strategy": request.strategy}
            | (
                {"copiedFrom": str(original.pk), "reason": request.reason}
                if original
                else {}
            )
            | ({"acknowledged": acknowledged} if acknowledged else {}),
        )
        if request.scheduled_at is not None and request.scheduled_at > now:
            audience = accepted_audience(request, firmware, now)
        else:
            audience = _freeze(deployment, request, now)
        deployment.creation_time = timedelta(seconds=time.monotonic() - began_at)
        deployment.save(update_fields=["creation_time"])
        ask_for_tick_on_commit()
    logger.info(
        "Deployment created successfully",
        extra={
            **context_of(deployment),
            "targetDeviceCount": audience.eligible,
            "userId": str(actor.pseudonym),
        },
    )
    return deployment, audience


def _original(request: DeploymentRequest) -> Deployment | None:
    if request.copied_from is None:
        return None
    original = Deployment.objects.filter(pk=request.copied_from).first()
    if original is None:
        raise DeploymentNotFoundError("there is no such deployment to copy")
    return original


def _freeze(
    deployment: Deployment,
    request: DeploymentRequest,
    now: datetime,
    *,
    asked: frozenset[str] = frozenset(AcknowledgedWarning),
) -> Audience:
    """Write the targets of a deployment and let it run.

    Args:
        asked: the warnings that have to be acknowledged; others are logged if they are
            not.
    """
    chosen = choose_devices(request, deployment.firmware, now)
    if not request.selection.device_ids:
        rejected = request.exclusions_with(OfflineDevices.REJECT)
        refuse_rejected(chosen.judged, rejected)
    audience = chosen.audience
    refuse_list(request, audience)
    if audience.eligible == 0:
        raise NoEligibleDevicesError(
            f"none of the {audience.matched} matching devices is eligible",
            errors=[
                FieldError("", x.code, f"{x.device_id}: {x.detail}")
                for x in audience.shortened().excluded
            ],
        )
    if audience.eligible > settings.MAX_DEVICES_PER_DEPLOYMENT:
        raise TooManyDevicesError(
            f"{audience.eligible} devices are more than the "
            f"{settings.MAX_DEVICES_PER_DEPLOYMENT} of one deployment"
        )
    # Asked before the targets are written, which make their devices busy.
    audience = _with_warnings(chosen, request, deployment.firmware, now)
    check_acknowledged(audience.warnings, request.acknowledge, asked=asked)
    plan, written = _write(deployment, request, chosen)
    start(
        deployment,
        now,
        targets=written,
        matched=audience.matched,
        left_out=audience.matched - audience.eligible,
        stages=len(plan.stages),
    )
    logged = LOGGED_AT_START | set(AcknowledgedWarning) - request.acknowledge
    for warning in audience.warnings:
        if warning.code not in logged:
            continue
        log(
            deployment,
            EventName.LAUNCH_WARNING,
            f"{warning.code}: {warning.detail}",
            now=now,
        )
    return audience


def _write(
    deployment: Deployment, request: DeploymentRequest, chosen: Chosen
) -> tuple[Plan, int]:
    """Plan for the devices that fit and write them.

    A device may come to fit, or cease to, between the counting and the writing; the
    plan is then made anew for what is found.
    """
    fleet = chosen.fleet
    for _ in range(WRITE_TRIES):
        plan = plan_for(request, fleet)
        if plan is None:
            break
        with transaction.atomic():
            written = write_plan(
                deployment,
                plan,
                chosen.judged,
                request.region_order,
                names_green=request.green_fleet is not None,
            )
            if written == fleet:
                return plan, fleet.device_count
            transaction.set_rollback(True)
        fleet = written
    raise AudienceMovedError("the devices kept changing while they were counted")


def request_of(deployment: Deployment) -> DeploymentRequest:
    """Rebuild the request of a deployment that waits for its time."""
    return DeploymentRequest(
        firmware_id=deployment.firmware_id,
        strategy=deployment.strategy,
        selection=Selection.from_json(deployment.selection),
        parameters=deployment.parameters,
        offline_devices=deployment.offline_devices,
        busy_devices=deployment.busy_devices,
        maintenance_window=deployment.maintenance_window,
        acknowledge=frozenset(deployment.acknowledged),
    )


def launch_scheduled(deployment: Deployment, now: datetime) -> None:
    """Launch a deployment whose time has come; the caller holds its lock.

    Everything is checked anew. What is no longer possible ends it as Failed, with the
    reason.
    """
    try:
        with transaction.atomic():
            deployable(deployment.firmware_id, lock=True)
            request = request_of(deployment)
            hold_groups(request.groups)
            _freeze(deployment, request, now, asked=ASKED_AT_START)
    except AudienceMovedError:
        # It will have settled by a later tick.
        deployment.refresh_from_db()
    except HotSwapError as error:
        deployment.refresh_from_db()
        finish(
            deployment,
            DeploymentStatus.FAILED,
            f"it could not be launched: {error.detail}",
            now,
            failure_reason=error.detail,
        )
