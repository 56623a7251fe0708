"""What people should know about keys: those that end soon, and those used after.

Rules:
- Each is one row in the audit trail, written with what it speaks of.
- A sweep tells once of each current key that it is about to expire.
- The use of a retired key raises an alarm, once a key and hour; the alarm stays with
  the device until a person acknowledges it.
"""

import logging
from datetime import datetime, timedelta

from django.conf import settings
from django.db import connection, transaction

from devices.models import Device, DeviceKey
from hotswap.common import audit
from hotswap.common.models import AuditEvent
from hotswap.common.retention import delete_some

logger = logging.getLogger(__name__)

ALARM_PAUSE = timedelta(hours=1)
SWEEP_BATCH = 10_000


def raise_alarm(*, key: DeviceKey, address: str | None, now: datetime) -> bool:
    """Note that a retired key was used; tell whether that is news.

    Args:
        address: from where, or None where that cannot be known.
    """
    if not _is_news(key, now):
        return False
    with transaction.atomic():
        # Of several uses at once, one raises it.
        key = DeviceKey.objects.select_for_update(no_key=True).get(pk=key.pk)
        if not _is_news(key, now):
            return False
        DeviceKey.objects.filter(pk=key.pk).update(reused_at=now)
        Device.objects.filter(pk=key.device_id).update(
            alarm_at=now, alarm_address=address
        )
        audit.record(
            actor=None,
            verb="device.retired-key-used",
            object_kind="device",
            object_id=key.device_id,
            details={"address": address, "keyEndedAt": key.expires_at},
        )
    logger.warning("A retired key was used", extra={"device": str(key.device_id)})
    return True


def _is_news(key: DeviceKey, now: datetime) -> bool:
    return key.reused_at is None or key.reused_at <= now - ALARM_PAUSE


def announce_expiring_keys(*, now: datetime) -> int:
    """Write into the audit trail which keys are about to expire, each once.

    Safe to run twice and side by side. Returns the number of keys.
    """
    announced = 0
    while True:
        batch = _announce_batch(now)
        announced += batch
        if batch < SWEEP_BATCH:
            break
    if announced:
        logger.info("Keys are about to expire", extra={"count": announced})
    return announced


def _announce_batch(now: datetime) -> int:
    keys, trail = DeviceKey._meta.db_table, AuditEvent._meta.db_table
    with connection.cursor() as cursor:
        cursor.execute(
            f"""
            WITH due AS (
                SELECT id FROM {keys}
                WHERE superseded_at IS NULL AND expiry_told_at IS NULL
                    AND expires_at <= %(soon)s
                ORDER BY expires_at
                LIMIT %(batch)s
                FOR NO KEY UPDATE SKIP LOCKED
            ), told AS (
                UPDATE {keys} AS key SET expiry_told_at = %(now)s
                FROM due WHERE key.id = due.id
                RETURNING key.device_id, key.expires_at
            )
            INSERT INTO {trail}
                (at, actor_kind, actor, verb, object_kind, object_id, details)
            SELECT %(now)s, %(server)s, NULL, 'device.key-expiring', 'device',
                device_id::text,
                jsonb_build_object('expiresAt', to_char(
                    expires_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"'
                ))
            FROM told
            """,  # noqa: S608
            {
                "now": now,
                "soon": now + settings.DEVICE_KEY_WARNING,
                "batch": SWEEP_BATCH,
                "server": AuditEvent.ActorKind.SERVER.value,
            },
        )
        return cursor.rowcount


def forget_retired_keys(before: datetime, limit: int) -> int:
    """Forget keys that were superseded and ended before a time; return how many."""
    return delete_some(
        DeviceKey.objects.filter(superseded_at__isnull=False, expires_at__lt=before),
        limit,
    )
