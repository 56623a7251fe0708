"""Giving out, and taking away, all that is held about a device (GDPR).

Rules:
- Other apps hold data of devices too. They are asked through the hooks of the
  settings, in the transaction of the erasure and in the order of the locks: orders and
  targets, then health, then the device.
- What stays of an erased device is a row without name, tags, region or keys, its
  pseudonym, which past deployments count and the audit trail names.
- The name is free at once; the tokens of the erased device open nothing.
"""

import json
import logging
import re
from collections.abc import Iterator
from datetime import datetime
from typing import Any

from cryptography.exceptions import InvalidTag
from django.conf import settings
from django.db import transaction
from django.db.models import CASCADE, Q
from django.db.models.fields.reverse_related import ForeignObjectRel
from django.utils import timezone
from django.utils.module_loading import import_string

from devices.exceptions import DeviceNotFoundError
from devices.models import (
    Device,
    DeviceImportLine,
    EnrolmentRequest,
)
from devices.selectors import groups_of
from hotswap.common import audit
from hotswap.common.idempotency_answers import opened
from hotswap.common.json_pieces import Sections, json_pieces
from hotswap.common.models import AuditEvent, RememberedAnswer, User
from hotswap.common.signatures import (
    Meaning,
    Signature,
    check_signature,
    signed_details,
)

logger = logging.getLogger(__name__)
CHUNK = 500


class Name:
    """The name of a device as a word of a text."""

    def __init__(self, text: str) -> None:
        self.text = text
        # A point or a colon after the name may belong to the sentence.
        self._word = re.compile(
            rf"(?<![A-Za-z0-9._:-]){re.escape(text)}(?![A-Za-z0-9_-]|[.:]+[A-Za-z0-9_-])"
        )

    def is_in(self, text: str) -> bool:
        return self._word.search(text) is not None

    def removed_from(self, text: str) -> str:
        return self._word.sub("[erased]", text)


# --- Erasure -----------------------------------------------------------------------


def erase_device(
    *,
    actor: User,
    device_id: str,
    signature: Signature | None = None,
    now: datetime | None = None,
) -> None:
    """Erase a device and all that is held about it but its pseudonym.

    An update that is under way is cancelled; deployments go on without the device, and
    what it had proved before stays counted.

    Raises:
        DeviceNotFoundError: there is none, or somebody was first.
        SignatureRequiredError: it has to be signed.
    """
    check_signature(actor, Meaning.DEVICE_ERASURE, signature)
    now = now or timezone.now()
    with transaction.atomic():
        device = Device.objects.filter(device_id=device_id).first()
        if device is None:
            raise DeviceNotFoundError(f"there is no device {device_id!r}")
        for hook in settings.DEVICE_ERASURE_HOOKS:
            import_string(hook)(device=device, now=now)
        # The whole lock: whoever writes a row that points here waits.
        locked = (
            # Whoever would refer to it, as an order does, waits.
            Device.objects.select_for_update(of=("self",), no_key=False)
            .filter(pk=device.pk)
            .first()
        )
        if locked is None or locked.device_id != device_id:
            raise DeviceNotFoundError(f"there is no device {device_id!r}")
        forget_belongings(Device._base_manager.filter(pk=device.pk))
        EnrolmentRequest.objects.filter(
            Q(device_id=device_id) | Q(registered=device)
        ).delete()
        DeviceImportLine.objects.filter(device_id=device_id).update(
            device_id="", detail="", raw=None, changes=None
        )
        _forget_answers(device)
        Device.objects.filter(pk=device.pk).update(
            device_id=f"~{device.pk}",
            region="",
            tags={},
            metadata={},
            enabled=False,
            revoked_at=device.revoked_at or now,
            firmware_version="",
            firmware_checksum="",
            previous_firmware_version="",
            alarm_at=None,
            alarm_address=None,
            security_version=0,
            erased_at=now,
            updated_at=now,
        )
        audit.record(
            actor=actor,
            verb="device.erased",
            object_kind="device",
            object_id=device.pk,
            # Its name is not signed: it is destroyed.
            details=signed_details(signature, {"device": str(device.pk)}),
        )
    logger.info("Device erased", extra={"device": str(device.pk)})


def forget_belongings(devices: Any) -> None:
    """Delete keys, certificates, enrolments, memberships and history of devices.

    Args:
        devices: a queryset of erased devices, or of those that are being erased.
    """
    for relation in belongings():
        model: Any = relation.related_model
        of_devices = {f"{relation.field.name}__in": devices}
        model._base_manager.filter(**of_devices).delete()


def belongings() -> list[ForeignObjectRel]:
    """Return what refers to a device, among the models of this app, and goes with it.

    What other apps hold is theirs to delete, by the hooks of the settings.
    """
    return [
        relation
        for relation in Device._meta.get_fields(include_hidden=True)
        if isinstance(relation, ForeignObjectRel)
        and relation.on_delete is CASCADE
        and relation.related_model._meta.app_label == Device._meta.app_label
    ]


def tidy_erased() -> None:
    """Delete what was written for a device at the moment of its erasure."""
    forget_belongings(Device._base_manager.filter(erased_at__isnull=False))


def _forget_answers(device: Device) -> None:
    """Delete the remembered answers that are for a device, or name it."""
    name = Name(device.device_id)
    doomed = []
    for answer in RememberedAnswer.objects.iterator(CHUNK):
        text = f"{answer.route} {json.dumps(answer.headers)} "
        if answer.body is not None:
            try:
                text += opened(answer).decode(errors="replace")
            except InvalidTag:
                # Written under another master key: it cannot be repeated either.
                doomed.append(answer.pk)
                continue
        if answer.principal == str(device.pk) or name.is_in(text):
            doomed.append(answer.pk)
    RememberedAnswer.objects.filter(pk__in=doomed).delete()


# --- Export ------------------------------------------------------------------------


def export_device(*, device_id: str) -> Iterator[str]:
    """Give out all that is held about a device, as the pieces of one JSON document.

    The device is looked for at once, the rest while it is read.

    Raises:
        DeviceNotFoundError: there is none.
    """
    device = Device.objects.select_related("model").filter(device_id=device_id).first()
    if device is None:
        raise DeviceNotFoundError(f"there is no device {device_id!r}")
    head = {"exportedAt": timezone.now(), "device": _device(device)}
    return json_pieces(head, _sections(device))


def _sections(device: Device) -> Sections:
    yield (
        "keys",
        (
            {
                "createdAt": key.created_at,
                "expiresAt": key.expires_at,
                "supersededAt": key.superseded_at,
                "firstUsedAt": key.first_used_at,
                "usedAfterItsEndAt": key.reused_at,
            }
            for key in device.keys.order_by("pk").iterator(CHUNK)
        ),
    )
    yield (
        "groups",
        (
            {"id": group.pk, "name": group.name, "type": group.type}
            for group in groups_of(device)
        ),
    )
    yield (
        "firmwareHistory",
        (
            {
                "version": run.version,
                "checksum": run.checksum,
                "since": run.since,
                "until": run.until,
                "how": run.how,
            }
            for run in device.firmware_runs.order_by("pk").iterator(CHUNK)
        ),
    )
    yield (
        "enrolments",
        (
            {
                "id": row.pk,
                "region": row.region,
                "tags": row.tags,
                "firmwareVersion": row.firmware_version,
                "status": row.status,
                "comment": row.comment,
                "createdAt": row.created_at,
                "decidedAt": row.decided_at,
                "completedAt": row.completed_at,
            }
            for row in EnrolmentRequest.objects.filter(
                Q(device_id=device.device_id) | Q(registered=device)
            )
            .order_by("created_at", "pk")
            .iterator(CHUNK)
        ),
    )
    yield (
        "certificates",
        (
            {
                "fingerprint": row.fingerprint,
                "subject": row.subject,
                "notBefore": row.not_before,
                "notAfter": row.not_after,
                "createdAt": row.created_at,
            }
            for row in device.certificates.order_by("pk").iterator(CHUNK)
        ),
    )
    yield (
        "imports",
        (
            {
                "importId": row.batch_id,
                "line": row.line,
                "outcome": row.outcome,
                "code": row.code,
                "detail": row.detail,
                "changes": row.changes,
            }
            for row in DeviceImportLine.objects.filter(device_id=device.device_id)
            .order_by("pk")
            .iterator(CHUNK)
        ),
    )
    for hook in settings.DEVICE_EXPORT_HOOKS:
        yield from import_string(hook)(device=device)
    yield (
        "auditEvents",
        (
            {
                "at": row.at,
                "actorKind": row.actor_kind,
                "actor": row.actor,
                "verb": row.verb,
                "details": row.details,
            }
            for row in AuditEvent.objects.filter(
                Q(object_kind="device", object_id=str(device.pk)) | Q(actor=device.pk)
            )
            .order_by("pk")
            .iterator(CHUNK)
        ),
    )


def _device(device: Device) -> dict[str, Any]:
    return {
        "pseudonym": device.pk,
        "deviceId": device.device_id,
        "model": device.model.name,
        "region": device.region,
        "tags": device.tags,
        "metadata": device.metadata,
        "enabled": device.enabled,
        "revokedAt": device.revoked_at,
        "firmwareVersion": device.firmware_version,
        "firmwareChecksum": device.firmware_checksum,
        "previousFirmwareVersion": device.previous_firmware_version,
        "securityVersion": device.security_version,
        "alarmAt": device.alarm_at,
        "alarmAddress": device.alarm_address,
        "createdAt": device.created_at,
        "updatedAt": device.updated_at,
    }
