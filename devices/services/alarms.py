"""What people should know about credentials: those that end soon, or are used after.

Rules:
- Each is one row in the audit trail, written with what it speaks of and with the
  notification.
- A sweep tells once of each current key that it is about to expire, and of each
  certificate that is the last of its device.
- The use of a retired key raises an alarm, once a key and hour; the alarm stays with
  the device until a person acknowledges it.
"""

import json
import logging
from datetime import datetime, timedelta
from typing import Final

from django.conf import settings
from django.db import connection, transaction
from django.utils.module_loading import import_string

from devices.admission import IS_ADMITTED
from devices.models import Device, DeviceCertificate, DeviceKey
from hotswap.common import audit
from hotswap.common.models import AuditEvent
from hotswap.common.retention import delete_some

logger = logging.getLogger(__name__)

ALARM_PAUSE = timedelta(hours=1)
SWEEP_BATCH = 10_000
# Devices that a notification names.
NAMED = 100

_KEYS: Final = DeviceKey._meta.db_table
_CERTIFICATES: Final = DeviceCertificate._meta.db_table
# Each gives `due`, what was looked at, and `told` with `device_id` and `ends`.
DUE_KEYS: Final = f"""
    due AS (
        SELECT id FROM {_KEYS}
        WHERE superseded_at IS NULL AND expiry_told_at IS NULL
            AND expires_at <= %(soon)s
        ORDER BY expires_at
        LIMIT %(batch)s
        FOR NO KEY UPDATE SKIP LOCKED
    ), told AS (
        UPDATE {_KEYS} AS key SET expiry_told_at = %(now)s
        FROM due WHERE key.id = due.id
        RETURNING key.device_id, key.expires_at AS ends
    )
"""  # noqa: S608
# One that another outlasts is looked at, and not told of.
DUE_CERTIFICATES: Final = f"""
    due AS (
        SELECT id FROM {_CERTIFICATES}
        WHERE expiry_told_at IS NULL AND not_after <= %(soon)s
        ORDER BY not_after
        LIMIT %(batch)s
        FOR NO KEY UPDATE SKIP LOCKED
    ), seen AS (
        UPDATE {_CERTIFICATES} AS own SET expiry_told_at = %(now)s
        FROM due WHERE own.id = due.id
        RETURNING own.id, own.device_id, own.not_after
    ), told AS (
        SELECT seen.device_id, seen.not_after AS ends
        FROM seen JOIN {Device._meta.db_table} d ON d.id = seen.device_id
        WHERE {IS_ADMITTED} AND NOT EXISTS (
            SELECT FROM {_CERTIFICATES} later
            WHERE later.device_id = seen.device_id
                AND (later.not_after, later.id) > (seen.not_after, seen.id)
        )
    )
"""  # noqa: S608
TELL: Final = f"""
    written AS (
        INSERT INTO {AuditEvent._meta.db_table}
            (at, actor_kind, actor, verb, object_kind, object_id, details)
        SELECT %(now)s, %(server)s, NULL, %(verb)s, 'device', device_id::text,
            jsonb_build_object(
                'expiresAt', to_char(ends AT TIME ZONE 'UTC', %(format)s)
            )
        FROM told
    ), named AS (
        SELECT d.device_id AS name, ends
        FROM told JOIN {Device._meta.db_table} d ON d.id = told.device_id
        ORDER BY ends, name
        LIMIT %(named)s
    )
    SELECT (SELECT count(*) FROM due), (SELECT count(*) FROM told), (
        SELECT jsonb_agg(jsonb_build_object(
            'id', name,
            'expiresAt', to_char(ends AT TIME ZONE 'UTC', %(format)s)
        ) ORDER BY ends, name)
        FROM named
    )
"""  # noqa: S608


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
        import_string(settings.DEVICE_EVENT_HOOK)(
            event="device.retired_key_used",
            devices=[{"id": key.device.device_id, "address": address}],
            total=1,
            now=now,
        )
    logger.warning("A retired key was used", extra={"device": str(key.device_id)})
    return True


def _is_news(key: DeviceKey, now: datetime) -> bool:
    return key.reused_at is None or key.reused_at <= now - ALARM_PAUSE


def announce_expiring_keys(*, now: datetime) -> int:
    """Tell which keys are about to expire, each once.

    Safe to run twice and side by side. Returns the number of keys.
    """
    return _announce(DUE_KEYS, "key", now)


def announce_expiring_certificates(*, now: datetime) -> int:
    """Tell which devices' last certificates are about to expire, each once.

    Safe to run twice and side by side. Returns the number of certificates.
    """
    return _announce(DUE_CERTIFICATES, "certificate", now)


def _announce(due: str, what: str, now: datetime) -> int:
    announced = 0
    while True:
        looked_at, told = _announce_batch(due, what, now)
        announced += told
        if looked_at < SWEEP_BATCH:
            break
    if announced:
        logger.info(
            "Credentials are about to expire", extra={"kind": what, "count": announced}
        )
    return announced


@transaction.atomic
def _announce_batch(due: str, what: str, now: datetime) -> tuple[int, int]:
    """Write one batch into the audit trail, and notify of it.

    Returns:
        How many were due, and how many of them were told of.
    """
    with connection.cursor() as cursor:
        cursor.execute(
            f"WITH {due}, {TELL}",
            {
                "now": now,
                "soon": now + settings.DEVICE_KEY_WARNING,
                "batch": SWEEP_BATCH,
                "server": AuditEvent.ActorKind.SERVER.value,
                "verb": f"device.{what}-expiring",
                "format": 'YYYY-MM-DD"T"HH24:MI:SS"Z"',
                "named": NAMED,
            },
        )
        looked_at, total, named = cursor.fetchone()
    if total:
        import_string(settings.DEVICE_EVENT_HOOK)(
            event=f"device.{what}_expiring",
            devices=json.loads(named),
            total=total,
            now=now,
        )
    return looked_at, total


def forget_retired_keys(before: datetime, limit: int) -> int:
    """Forget keys that were superseded and ended before a time; return how many."""
    return delete_some(
        DeviceKey.objects.filter(superseded_at__isnull=False, expires_at__lt=before),
        limit,
    )
