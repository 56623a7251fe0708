"""Why a deployment or a device waits, in one sentence, and until when.

Rules:
- `until` is when the wait ends by itself, by going on or by giving up. Where only an
  event ends it (an operator, another deployment), it is None.
- What is over waits for nothing.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta

from deployments.choices import DeploymentStatus, StageStatus, TargetStatus
from deployments.models import Deployment, Stage, Target, Update
from deployments.rules.codes import UNKNOWN_TIMEZONE, message_of
from deployments.rules.evidence import missing_proof, runs_ordered
from deployments.services.sweeps import ROLLBACK_TIMEOUT
from health.models import DeviceState

D, T = DeploymentStatus, TargetStatus


@dataclass(frozen=True, slots=True)
class Waiting:
    """What is waited for, as the end of "it waits for ..."."""

    reason: str
    until: datetime | None = None


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What else is known of a device that waits.

    `busy_with` names the deployment that comes first.
    """

    stage: Stage
    update: Update | None
    state: DeviceState | None
    busy_with: str | None


def deployment_waiting(deployment: Deployment) -> Waiting | None:
    """Say what a deployment waits for, or None if it is over."""
    match deployment.status:
        case D.SCHEDULED:
            return Waiting("its time to start", deployment.scheduled_at)
        case D.PAUSED:
            return Waiting(
                deployment.waiting_for or deployment.pause_detail,
                deployment.next_check_at,
            )
        case D.PREPARING | D.RUNNING:
            return Waiting(
                deployment.waiting_for or "the next check", deployment.next_check_at
            )
        case D.ROLLING_BACK:
            started = deployment.rollback_started_at
            return Waiting(
                deployment.waiting_for or "the devices to prove their former image",
                started + ROLLBACK_TIMEOUT if started else None,
            )
        case _:
            return None


def target_waiting(
    target: Target, deployment: Deployment, around: Surroundings, now: datetime
) -> Waiting | None:
    """Say what a device waits for, or None if for nothing."""
    update = around.update
    match target.status:
        case T.PENDING:
            return _pending(target, deployment, around, now)
        case T.CONFIRMING:
            return _confirming(deployment, around)
        case T.ROLLING_BACK:
            since = target.returning_since
            until = since + ROLLBACK_TIMEOUT if since else None
            if update is None:
                if _is_others_turn(target, deployment):
                    return Waiting("the devices of the other fleet to finish", until)
                return Waiting("to poll, and be ordered back", until)
            if update.claimed_at is None:
                return Waiting(f"going back: it is {update.status}", until)
            said = _confirming(deployment, around).reason
            return Waiting(f"going back: {said}", until)
        case T.NOTIFIED | T.DOWNLOADING | T.VERIFYING | T.INSTALLING | T.REBOOTING:
            return Waiting(
                _at_work(target, around.state, now), update.deadline if update else None
            )
        case _:
            return None


def _at_work(target: Target, state: DeviceState | None, now: datetime) -> str:
    """Say what the device has reported to do, and when it was last heard."""
    if state is None:
        return f"the device, which was {target.status} when it was last heard"
    heard = f"{state.last_seen_at:%H:%M:%S} UTC"
    if state.online_until > now:
        return f"the device, which is {target.status}; last heard at {heard}"
    if now - state.last_seen_at >= timedelta(days=1):
        heard = f"{state.last_seen_at:%Y-%m-%d} {heard}"
    return (
        f"the device, which is offline: it was {target.status} when it was last "
        f"heard, at {heard}"
    )


def _is_others_turn(target: Target, deployment: Deployment) -> bool:
    """Tell whether orders are given in the other half of a blue-green deployment."""
    return deployment.turn is not None and deployment.turn != target.stage_number


def _pending(
    target: Target, deployment: Deployment, around: Surroundings, now: datetime
) -> Waiting:
    stage, state = around.stage, around.state
    if deployment.status == D.PAUSED:
        return Waiting(
            f"the deployment, which is paused: {deployment.pause_detail}",
            deployment.next_check_at,
        )
    if stage.status == StageStatus.PENDING:
        return Waiting(
            f"stage {stage.number} ({stage.name}) to open", deployment.next_check_at
        )
    if deployment.firmware.signature_revoked_at is not None:
        return Waiting(
            "the image to be signed again: the key that signed it was revoked"
        )
    if around.busy_with is not None:
        return Waiting(f"its update by the deployment {around.busy_with!r}")
    # What was noted when it last polled; its tag may have been corrected since.
    was_in_no_zone = target.error_code == UNKNOWN_TIMEZONE
    next_attempt_at = None if was_in_no_zone else target.next_attempt_at
    since = [deployment.resumed_at, next_attempt_at]
    if target.exposed_at is None:
        since.append(stage.opened_at)
    given_up_at = max(
        (at + deployment.offline_deadline for at in since if at is not None),
        default=None,
    )
    window = deployment.window
    if window is not None and window.names_no_zone(target.device.tags):
        return Waiting(f"a correction: {message_of(UNKNOWN_TIMEZONE)}", given_up_at)
    if next_attempt_at is not None and next_attempt_at > now:
        if target.exposed_at is None:
            return Waiting(target.message, next_attempt_at)
        return Waiting(
            f"its next attempt at {next_attempt_at:%H:%M:%S} UTC, after: "
            f"{target.message}",
            next_attempt_at,
        )
    if state is None or state.online_until <= now:
        return Waiting("the device, which is offline", given_up_at)
    return Waiting("the device to poll", given_up_at)


def _confirming(deployment: Deployment, around: Surroundings) -> Waiting:
    update, state = around.update, around.state
    if update is None or update.claimed_at is None:
        return Waiting("its claim", update.deadline if update else None)
    timeout = deployment.proof_timeout
    if state is not None and runs_ordered(update, state):
        timeout = deployment.settling_timeout
    return Waiting(
        _missing_proof(deployment, update, state), update.claimed_at + timeout
    )


def _missing_proof(
    deployment: Deployment, update: Update, state: DeviceState | None
) -> str:
    if (
        state is not None
        and state.refused_at is not None
        and update.claimed_at is not None
        and state.refused_at >= update.claimed_at
    ):
        return f"proof: its heartbeats are refused: {state.refused_reason}"
    return missing_proof(update, state, deployment.criteria) or "the next check"
