"""What the statements of the sweeps have in common.

Conditions are SQL over `u` (an order), `t` (its target), `s` (the state of the device)
and `f` (the ordered firmware).
"""

from collections.abc import Sequence
from typing import Any

from deployments.models import Deployment
from hotswap.common.rows import prepared_cursor

# The last that the device showed is the ordered image, whatever it calls it.
RUNS_ORDERED = "(s.firmware_checksum = f.sha256)"
# What is to be said of a device that runs the ordered image and calls it otherwise.
WRONG_LABEL = """(CASE WHEN s.firmware_version IN ('', f.version) THEN ''
    ELSE 'it runs the ordered bytes and calls them ' || s.firmware_version
         || ' instead of ' || f.version END)"""
# It shows another boot than before the order: another id, or the same one begun anew.
IS_NEW_BOOT = """(
    (u.boot_id_before <> '' AND s.boot_id NOT IN ('', u.boot_id_before))
    OR s.boot_count > COALESCE(u.boot_count_before, 2147483647)
)"""
# It has rebooted, where it had to.
HAS_REBOOTED = f"(NOT u.reboot_required OR {IS_NEW_BOOT})"
# The server hears the device since its claim and cannot tell how it is: its heartbeats
# are refused, or do not say what proof needs. That speaks neither for its image nor
# against it.
IS_UNREADABLE = """COALESCE(s.online_until > %(now)s AND (
    s.refused_count > 0 AND s.refused_at >= u.claimed_at
    OR s.last_heartbeat_at >= u.claimed_at AND s.verdict = 'unknown'
        AND s.breach = '' AND s.firmware_checksum IN ('', f.sha256)
), false)"""
WHY_UNREADABLE = """(CASE WHEN s.refused_count > 0
    THEN 'its heartbeats are refused: ' || s.refused_reason
    ELSE s.verdict_reason END)"""
# The device is on its former image and stays there: by a heartbeat newer than the last
# thing it said about the order, and, once it has begun to install, either after another
# boot or after its own word that it gave up. Until then it may still boot the new one.
SHOWS_FORMER = f"""(
    s.firmware_checksum <> '' AND s.firmware_checksum = t.from_checksum
    AND s.last_heartbeat_at >= COALESCE(u.rebooting_at, u.installing_at, u.offered_at)
    AND (u.installing_at IS NULL OR u.gave_up_at IS NOT NULL OR {IS_NEW_BOOT})
    AND (u.rebooting_at IS NULL OR {IS_NEW_BOOT})
)"""
# A later deployment has updated the device since; the same condition as `has_moved_on`.
# Whether there is a later one is asked once. OFFSET keeps PostgreSQL from gathering the
# successes of all deployments there ever were.
MOVED_ON = """(
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

# The device has confirmed a higher security version than its former image has: it would
# refuse to go back, so it is not asked to.
IS_LOCKED = """(
    -- Asked once: where no device has one above 0, none is looked up.
    EXISTS (SELECT 1 FROM devices_device WHERE security_version > 0)
    AND EXISTS (
        SELECT 1 FROM devices_device floor_of
        JOIN firmware_firmware former ON former.id = t.from_firmware_id
        WHERE floor_of.id = t.device_id
          AND floor_of.security_version > former.security_version
    )
)"""
# The device was allowed to begin: before that it must not install.
HAS_BEGUN = """EXISTS (
    SELECT 1 FROM deployments_update began
    WHERE began.target_id = t.id AND began.kind = 'install'
      AND COALESCE(began.installing_at, began.rebooting_at, began.claimed_at)
          IS NOT NULL
)"""


def identity(deployment: Deployment) -> dict[str, Any]:
    """Return what `MOVED_ON` asks for."""
    return {
        "deployment": deployment.pk,
        "created": deployment.created_at,
        "firmware": deployment.firmware_id,
        "sha256": deployment.firmware.sha256,
    }


def row(statement: str, parameters: dict[str, Any]) -> Sequence[Any]:
    with prepared_cursor() as cursor:
        cursor.execute(statement, parameters)
        row: Sequence[Any] = cursor.fetchone()
    return row


def run(statement: str, parameters: dict[str, Any]) -> int:
    return int(row(statement, parameters)[0])
