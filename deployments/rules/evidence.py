"""What a device has shown of an order, and what may be ordered of it.

Rules:
- Each condition stands here once in SQL, for the statements that move many devices,
  and beside it once in Python or for querysets, where those ask it too. Tests draw
  devices, orders and states, and demand that both agree.
- In SQL `u` is an order, `t` its target, `s` the state of the device (perhaps missing),
  and `f` the ordered firmware.
- What a device calls its image decides nothing: the SHA-256 does.
"""

from typing import Final

from django.db.models import Exists, F, OuterRef, Q

from deployments.choices import OrderKind, TargetStatus
from deployments.criteria import HealthCriteria
from deployments.models import Deployment, Target, Update
from devices.models import Device
from firmware.models import Firmware
from health.models import DeviceState

# The last image that the device showed is the ordered one.
RUNS_ORDERED: Final = "(s.firmware_checksum = f.sha256)"


def runs_ordered(update: Update, state: DeviceState) -> bool:
    """Tell whether the last image that the device showed is the ordered one."""
    return state.firmware_checksum == update.firmware.sha256


# It shows another boot than before the order: another id, or the same one begun anew.
IS_NEW_BOOT: Final = """(
    (u.boot_id_before <> '' AND s.boot_id NOT IN ('', u.boot_id_before))
    OR s.boot_count > COALESCE(u.boot_count_before, 2147483647)
)"""


def is_new_boot(update: Update, state: DeviceState) -> bool:
    """Tell whether the device shows another boot than before the order."""
    if update.boot_id_before and state.boot_id not in ("", update.boot_id_before):
        return True
    return update.boot_count_before is not None and (
        state.boot_count > update.boot_count_before
    )


# It has rebooted, where it had to.
HAS_REBOOTED: Final = f"(NOT u.reboot_required OR {IS_NEW_BOOT})"


def has_rebooted(update: Update, state: DeviceState) -> bool:
    """Tell whether the device has rebooted, where it had to."""
    return not update.reboot_required or is_new_boot(update, state)


# Proof, after the claim: heartbeats that name the ordered SHA-256, from a new boot
# where one was needed, without a breach, healthy without a break for the confirmation
# window.
# A breach ends an install for good; of a return it takes what was healthy so far.
# Parameters: `beats` (number of heartbeats) and `window` (interval).
IS_PROVED: Final = f"""(
    u.claimed_at IS NOT NULL AND s.watch_id = u.id
    AND (s.breach = '' OR u.kind = 'rollback')
    AND {RUNS_ORDERED} AND {HAS_REBOOTED}
    AND s.healthy_count >= %(beats)s
    AND s.healthy_at >= s.healthy_since + %(window)s
)"""


def missing_proof(
    update: Update, state: DeviceState | None, criteria: HealthCriteria
) -> str:
    """Say what the proof of an order still lacks; nothing once it is proved."""
    if state is None or update.claimed_at is None or state.last_heartbeat_at is None:
        return "a heartbeat after its claim"
    if state.last_heartbeat_at < update.claimed_at:
        return "a heartbeat after its claim"
    if not state.firmware_checksum:
        return "proof: its heartbeats do not say which image it runs"
    if not runs_ordered(update, state):
        runs = state.firmware_version
        if runs == update.firmware.version:
            runs = "other bytes that it calls the same"
        return f"proof: it claims the update and runs {runs}"
    if not has_rebooted(update, state):
        if not update.boot_id_before and update.boot_count_before is None:
            return "proof: its boot before the update is not known"
        return "proof: it has not rebooted"
    if state.breach and update.kind == OrderKind.INSTALL:
        return f"proof: it is not healthy ({state.breach_detail})"
    if state.healthy_count == 0:
        return f"proof: it is not healthy ({state.verdict_reason})"
    since, last = state.healthy_since, state.healthy_at
    is_long_enough = (
        state.watch_id == update.pk
        and since is not None
        and last is not None
        and last - since >= criteria.confirmation_duration
    )
    if is_long_enough and state.healthy_count >= criteria.heartbeats_required:
        return ""
    return (
        f"proof: {state.healthy_count} of {criteria.heartbeats_required} "
        "healthy heartbeats over the confirmation window"
    )


# What is to be said of a device that runs the ordered image and calls it otherwise.
WRONG_LABEL: Final = """(CASE WHEN s.firmware_version IN ('', f.version) THEN ''
    ELSE 'it runs the ordered bytes and calls them ' || s.firmware_version
         || ' instead of ' || f.version END)"""
# The server hears the device since its claim and cannot tell how it is: its heartbeats
# are refused, or do not say what proof needs. That speaks neither for its image nor
# against it. Parameter: `now`.
IS_UNREADABLE: Final = """COALESCE(s.online_until > %(now)s AND (
    s.refused_count > 0 AND s.refused_at >= u.claimed_at
    OR s.last_heartbeat_at >= u.claimed_at AND s.verdict = 'unknown'
        AND s.breach = '' AND s.firmware_checksum IN ('', f.sha256)
), false)"""
WHY_UNREADABLE: Final = """(CASE WHEN s.refused_count > 0
    THEN 'its heartbeats are refused: ' || s.refused_reason
    ELSE s.verdict_reason END)"""
# The device is on its former image and stays there: by a heartbeat newer than the last
# thing it said about the order, and, once it has begun to install, either after another
# boot or after its own word that it gave up. Until then it may still boot the new one.
SHOWS_FORMER: Final = f"""(
    s.firmware_checksum <> '' AND s.firmware_checksum = t.from_checksum
    AND s.last_heartbeat_at >= COALESCE(u.rebooting_at, u.installing_at, u.offered_at)
    AND (u.installing_at IS NULL OR u.gave_up_at IS NOT NULL OR {IS_NEW_BOOT})
    AND (u.rebooting_at IS NULL OR {IS_NEW_BOOT})
)"""

# The device was allowed to begin to install under any order: before, it must not.
HAS_BEGUN: Final = """EXISTS (
    SELECT 1 FROM deployments_update began
    WHERE began.target_id = t.id AND began.kind = 'install'
      AND COALESCE(began.installing_at, began.rebooting_at, began.claimed_at)
          IS NOT NULL
)"""


def has_begun() -> Exists:
    """Return the condition on targets that their device was allowed to install."""
    installs = Update.objects.filter(target=OuterRef("pk"), kind=OrderKind.INSTALL)
    began = ("installing_at", "rebooting_at", "claimed_at")
    return Exists(installs.exclude(**dict.fromkeys(began)))


# A later deployment has updated the device since. What that one put there is not for
# this one to undo. A device that shows the image of this deployment again has come back
# to it, unless the later one brought the same image. Whether there is a later one is
# asked once. OFFSET keeps PostgreSQL from gathering the successes of all deployments
# there ever were. Parameters: those of `sweeps.statements.identity`.
IS_UPDATED_SINCE: Final = """(
    EXISTS (SELECT 1 FROM deployments_deployment WHERE created_at > %(created)s)
    AND EXISTS (
        SELECT 1 FROM deployments_target later
        JOIN deployments_deployment other ON other.id = later.deployment_id
        JOIN devices_device dev ON dev.id = later.device_id
        WHERE later.device_id = t.device_id AND later.status = 'success'
          AND other.created_at > %(created)s
          AND (other.firmware_id = %(firmware)s
               OR dev.firmware_checksum <> %(sha256)s)
        OFFSET 0
    )
)"""


def is_updated_since(deployment: Deployment) -> Exists:
    """Return the condition on targets that a later deployment updated their device."""
    later = Target.objects.filter(
        device=OuterRef("device"),
        status=TargetStatus.SUCCESS,
        deployment__created_at__gt=deployment.created_at,
    )
    return Exists(
        later.filter(
            Q(deployment__firmware=deployment.firmware_id)
            | ~Q(device__firmware_checksum=deployment.firmware.sha256)
        )
    )


# After its order the device shows a newer image of its model that is on the server and
# that no deployment known here has ordered: somebody has updated it by other means, or
# by an order that the restore of a backup has forgotten. That is no fall back, and
# nothing for this deployment to undo. Whether there is a newer image is asked once.
RUNS_NEWER: Final = """(
    EXISTS (
        SELECT 1 FROM firmware_firmware
        WHERE model_id = %(model)s AND precedence > %(precedence)s
          AND status <> 'Absent'
    )
    AND t.exposed_at IS NOT NULL
    AND EXISTS (
        SELECT 1 FROM devices_device dev
        JOIN firmware_firmware newer
          ON newer.model_id = dev.model_id AND newer.sha256 = dev.firmware_checksum
        WHERE dev.id = t.device_id AND newer.model_id = %(model)s
          AND newer.precedence > %(precedence)s AND newer.status <> 'Absent'
          AND dev.firmware_checksum NOT IN (t.from_checksum, %(sha256)s)
        OFFSET 0
    )
    AND NOT EXISTS (
        SELECT 1 FROM deployments_target later
        JOIN deployments_deployment other ON other.id = later.deployment_id
        WHERE later.device_id = t.device_id AND later.exposed_at IS NOT NULL
          AND other.created_at > %(created)s
        OFFSET 0
    )
)"""


def runs_newer(deployment: Deployment) -> Q:
    """Return the condition on targets that their device was updated by other means."""
    firmware = deployment.firmware
    shown = Firmware.objects.filter(
        model=firmware.model_id,
        precedence__gt=firmware.precedence,
        sha256=OuterRef("device__firmware_checksum"),
    ).exclude(sha256__in=["", firmware.sha256])
    later = Target.objects.filter(
        device=OuterRef("device"),
        exposed_at__isnull=False,
        deployment__created_at__gt=deployment.created_at,
    )
    return Q(
        ~Q(device__firmware_checksum=F("from_checksum")),
        Exists(shown),
        ~Exists(later),
        exposed_at__isnull=False,
        device__model=firmware.model_id,
    )


HAS_MOVED_ON: Final = f"({IS_UPDATED_SINCE} OR {RUNS_NEWER})"


def has_moved_on(deployment: Deployment) -> Q:
    """Return the condition on targets that their device is no longer this one's."""
    return Q(is_updated_since(deployment)) | runs_newer(deployment)


# The device has confirmed a higher security version than its former image has: it would
# refuse to go back, so it is not asked to. Asked once: where no device has one above 0,
# none is looked up.
IS_LOCKED: Final = """(
    EXISTS (SELECT 1 FROM devices_device WHERE security_version > 0)
    AND EXISTS (
        SELECT 1 FROM devices_device floor_of
        JOIN firmware_firmware former ON former.id = t.from_firmware_id
        WHERE floor_of.id = t.device_id
          AND floor_of.security_version > former.security_version
    )
)"""


def must_refuse(device: Device, firmware: Firmware) -> bool:
    """Tell whether a device has confirmed a higher security version than an image."""
    return device.security_version > firmware.security_version


def is_locked() -> Q:
    """Return the condition on targets that the device must refuse its former image."""
    return Q(device__security_version__gt=F("from_firmware__security_version"))


# An image that may be ordered for the first time.
IS_OFFERABLE: Final = """(
    f.status IN ('Approved', 'Deprecated') AND f.damaged_at IS NULL
    AND f.signature_revoked_at IS NULL
)"""
# An open order that a poll repeats. An order under a signature that was revoked is not,
# until the image is signed again, nor an install whose stored image is damaged, until
# it is repaired. A return is: devices keep the image that they go back to, and what
# lies damaged leaves the server in neither case.
IS_REPEATED: Final = """(
    u.claimed_at IS NULL AND f.signature_revoked_at IS NULL
    AND (u.kind <> 'install' OR f.damaged_at IS NULL)
)"""


def is_repeated(update: Update) -> bool:
    """Tell whether a poll repeats an open order."""
    firmware = update.firmware
    if update.claimed_at is not None or firmware.signature_revoked_at is not None:
        return False
    return update.kind != OrderKind.INSTALL or firmware.damaged_at is None
