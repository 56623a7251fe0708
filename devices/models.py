"""Devices, their keys and their groups.

Rules:
- `id` is the pseudonym that appears in trails; `device_id` is the owner's own name.
- What a device runs is written from what it reports, never from what it was sent.
- An API key is stored as a peppered digest only. The newest is the current one; those
  it supersedes end after an overlap, and are kept so that their reuse is noticed.
- Who is in a dynamic group is never stored: it is asked by query, so that a changed
  device is in or out at once.
"""

from datetime import datetime
from functools import cached_property
from typing import ClassVar

import pgtrigger
from django.conf import settings
from django.contrib.postgres.indexes import GinIndex
from django.db import models
from django.utils import timezone

from devices.choices import (
    ENROLMENT_MOVES,
    IMPORT_MOVES,
    OPEN_ENROLMENTS,
    OPEN_IMPORTS,
    DeviceStatus,
    EnrolmentStatus,
    GroupType,
    ImportFormat,
    ImportMode,
    ImportStatus,
    KeyStatus,
    LineOutcome,
    RunKnowledge,
    TokenStatus,
)
from devices.querysets import (
    DeviceCertificateQuerySet,
    DeviceKeyQuerySet,
    DeviceQuerySet,
    name_pieces,
)
from firmware.models import DeviceModel, Firmware
from hotswap.common.changes import Tracked
from hotswap.common.models import BaseModel, User
from hotswap.common.sealed_field import SealedField

IMPORT_KEYS_PURPOSE = "device-import-keys"


class DeviceManager(models.Manager.from_queryset(DeviceQuerySet)):  # type: ignore[misc]
    """All devices but the erased ones, of which a pseudonym alone is left."""

    def get_queryset(self) -> DeviceQuerySet:
        found: DeviceQuerySet = super().get_queryset()
        return found.filter(erased_at__isnull=True)


class Device(Tracked, BaseModel):
    """One device of the fleet.

    Of an erased one the row stays, as a pseudonym that past deployments count: its
    name is `~` and its id, which no device can be called.
    """

    audited_fields = frozenset(
        {
            "model",
            "region",
            "enabled",
            "revoked_at",
            "alarm_at",
        }
    )
    withheld_fields = frozenset({"tags", "metadata", "alarm_address"})

    device_id = models.CharField(max_length=128, unique=True)
    model = models.ForeignKey(DeviceModel, on_delete=models.PROTECT)
    region = models.CharField(max_length=32)
    tags = models.JSONField(default=dict, blank=True)
    metadata = models.JSONField(default=dict, blank=True)
    enabled = models.BooleanField(default=True)
    revoked_at = models.DateTimeField(null=True)
    firmware_version = models.CharField(max_length=64, blank=True)
    # See `devices.services.version_keys`.
    version_key = models.CharField(
        max_length=255,
        blank=True,
        default="",
        db_default="",
        editable=False,
        db_collation="C",
        help_text="sorts as what it runs does; made by the database",
    )
    firmware_checksum = models.CharField(max_length=64, blank=True)
    previous_firmware_version = models.CharField(max_length=64, blank=True)
    alarm_at = models.DateTimeField(
        null=True, help_text="when a retired key was used; empty once acknowledged"
    )
    alarm_address = models.GenericIPAddressField(
        null=True, help_text="from where the retired key was used"
    )
    security_version = models.PositiveIntegerField(
        default=0,
        help_text="highest that it has confirmed to run; it refuses lower ones",
    )
    erased_at = models.DateTimeField(
        null=True, help_text="when all but the pseudonym was erased"
    )

    objects: ClassVar[DeviceManager] = DeviceManager()

    class Meta:
        indexes = [
            models.Index(fields=["model", "region"], name="device_model_region"),
            models.Index(fields=["region"], name="device_region"),
            # All that a count of who runs an image asks for: it reads no rows.
            models.Index(
                fields=["firmware_checksum", "model", "erased_at"], name="device_image"
            ),
            models.Index(
                fields=["alarm_at"],
                condition=models.Q(alarm_at__isnull=False),
                name="device_alarm",
            ),
            models.Index(fields=["version_key"], name="device_version"),
            models.Index(fields=["firmware_version"], name="device_says_version"),
            models.Index(
                fields=["erased_at"],
                condition=models.Q(erased_at__isnull=False),
                name="device_erased",
            ),
            models.Index(
                fields=["revoked_at"],
                condition=models.Q(revoked_at__isnull=False),
                name="device_revoked",
            ),
            # Tells at once whether any has one, which in most fleets none has.
            models.Index(
                fields=["security_version"],
                condition=models.Q(security_version__gt=0),
                name="device_raised",
            ),
            GinIndex(fields=["tags"], name="device_tags", opclasses=["jsonb_path_ops"]),
            GinIndex(name_pieces("device_id"), name="device_name_pieces"),
        ]
        triggers: ClassVar[list[pgtrigger.Trigger]] = [
            pgtrigger.Trigger(
                name="device_version_key",
                when=pgtrigger.Before,
                operation=pgtrigger.Insert
                | pgtrigger.UpdateOf(
                    "model_id", "firmware_version", "firmware_checksum", "version_key"
                ),
                func="""
                    NEW.version_key := hotswap_device_version_key(
                        NEW.model_id, NEW.firmware_version, NEW.firmware_checksum
                    );
                    RETURN NEW;
                """,
            )
        ]

    def __str__(self) -> str:
        return self.device_id

    def status_at(self, now: datetime) -> DeviceStatus:
        """Tell whether it is online, from when it was last heard."""
        if self.revoked_at is not None:
            return DeviceStatus.REVOKED
        state = getattr(self, "state", None)
        if state is None:
            return DeviceStatus.NEVER_SEEN
        online = state.online_until > now
        return DeviceStatus.ONLINE if online else DeviceStatus.OFFLINE

    @cached_property
    def key_expires_at(self) -> datetime | None:
        """When the current key ends; `with_key_expiry()` reads it for many at once."""
        return (
            self.keys.filter(superseded_at__isnull=True)
            .values_list("expires_at", flat=True)
            .first()
        )

    def key_status_at(self, now: datetime) -> KeyStatus:
        """Tell how its current key stands."""
        ends = self.key_expires_at
        if ends is None:
            return KeyStatus.NONE
        if ends <= now:
            return KeyStatus.EXPIRED
        soon = now + settings.DEVICE_KEY_WARNING
        return KeyStatus.EXPIRING if ends <= soon else KeyStatus.VALID


class FirmwareRun(models.Model):
    """A time during which a device ran one image; the open one is what it runs now."""

    device = models.ForeignKey(
        Device, on_delete=models.CASCADE, related_name="firmware_runs", db_index=False
    )
    version = models.CharField(max_length=64)
    checksum = models.CharField(max_length=64)
    firmware = models.ForeignKey(
        Firmware, on_delete=models.SET_NULL, null=True, related_name="+", db_index=False
    )
    since = models.DateTimeField()
    until = models.DateTimeField(null=True)
    how = models.CharField(
        max_length=8, choices=RunKnowledge.choices, default=RunKnowledge.REPORTED
    )

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["device"],
                condition=models.Q(until__isnull=True),
                name="one_open_run_a_device",
            )
        ]
        indexes = [models.Index(fields=["device", "-id"], name="firmware_run_newest")]

    def __str__(self) -> str:
        return f"{self.version} since {self.since:%Y-%m-%d %H:%M}"


class DeviceKey(models.Model):
    """One API key of a device; the newest is handed out, older ones overlap."""

    device = models.ForeignKey(Device, on_delete=models.CASCADE, related_name="keys")
    digest = models.CharField(max_length=64, unique=True)
    created_at = models.DateTimeField(default=timezone.now)
    expires_at = models.DateTimeField()
    superseded_at = models.DateTimeField(
        null=True, help_text="when a newer key or a revocation took its place"
    )
    first_used_at = models.DateTimeField(null=True)
    expiry_told_at = models.DateTimeField(
        null=True, help_text="when the audit trail said that it is about to expire"
    )
    reused_at = models.DateTimeField(
        null=True, help_text="when its use after its retirement last raised an alarm"
    )

    objects = DeviceKeyQuerySet.as_manager()

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["device"],
                condition=models.Q(superseded_at__isnull=True),
                name="one_current_key_a_device",
            )
        ]
        indexes = [
            models.Index(
                fields=["expires_at"],
                condition=models.Q(superseded_at__isnull=True),
                name="device_key_current_expiry",
            ),
            models.Index(
                fields=["expires_at"],
                condition=models.Q(
                    superseded_at__isnull=True, expiry_told_at__isnull=True
                ),
                name="device_key_untold_expiry",
            ),
        ]

    def __str__(self) -> str:
        return f"key of {self.device_id}, expires {self.expires_at:%Y-%m-%d}"

    def is_retired_at(self, now: datetime) -> bool:
        """Tell whether a newer key or a revocation has put it out of use.

        A key that had expired before that is not retired: its device is late, and
        nobody else need be suspected.
        """
        return (
            self.superseded_at is not None
            and self.superseded_at <= self.expires_at <= now
        )


class DeviceCertificate(models.Model):
    """A client certificate that a device may show to the proxy instead of a key."""

    device = models.ForeignKey(
        Device, on_delete=models.CASCADE, related_name="certificates"
    )
    fingerprint = models.CharField(
        max_length=64, unique=True, help_text="SHA-256 of the DER, in hexadecimal"
    )
    subject = models.CharField(max_length=256)
    not_before = models.DateTimeField()
    not_after = models.DateTimeField()
    created_at = models.DateTimeField(default=timezone.now)
    expiry_told_at = models.DateTimeField(
        null=True,
        help_text="when it was about to expire, which was told unless another followed",
    )

    objects = DeviceCertificateQuerySet.as_manager()

    class Meta:
        indexes = [
            models.Index(fields=["not_after"], name="device_certificate_expiry"),
            models.Index(
                fields=["not_after"],
                condition=models.Q(expiry_told_at__isnull=True),
                name="certificate_untold_expiry",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.subject} ({self.fingerprint[:16]}...)"


class DeviceGroup(Tracked, BaseModel):
    """A named set of devices that deployments can target.

    A static group has members; a dynamic one has a rule, in the JSON form of the API.
    """

    audited_fields = frozenset(
        {
            "name",
            "description",
            "type",
            "rule",
        }
    )

    name = models.CharField(max_length=128, unique=True)
    description = models.CharField(max_length=500, blank=True)
    type = models.CharField(
        max_length=8, choices=GroupType.choices, default=GroupType.STATIC
    )
    members = models.ManyToManyField(
        Device, through="GroupMembership", related_name="groups"
    )

    rule = models.JSONField(null=True)

    class Meta:
        ordering = ("name",)
        constraints = [
            models.CheckConstraint(
                condition=models.Q(type=GroupType.STATIC, rule__isnull=True)
                | models.Q(type=GroupType.DYNAMIC, rule__isnull=False),
                name="a_rule_for_dynamic_groups_alone",
            )
        ]

    def __str__(self) -> str:
        return self.name


class GroupMembership(models.Model):
    """A device in a static group."""

    group = models.ForeignKey(DeviceGroup, on_delete=models.CASCADE)
    device = models.ForeignKey(Device, on_delete=models.CASCADE)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["group", "device"], name="one_membership_a_device"
            )
        ]

    def __str__(self) -> str:
        return f"{self.device} in {self.group}"


class EnrolmentToken(Tracked, BaseModel):
    """A secret with which devices register themselves; only its digest is kept."""

    audited_fields = frozenset(
        {
            "name",
            "model",
            "region",
            "needs_approval",
            "max_uses",
            "expires_at",
            "revoked_at",
        }
    )
    withheld_fields = frozenset({"tags"})

    name = models.CharField(max_length=128)
    digest = models.CharField(max_length=64, unique=True)
    model = models.ForeignKey(DeviceModel, null=True, on_delete=models.PROTECT)
    region = models.CharField(max_length=32, blank=True)
    tags = models.JSONField(default=dict, blank=True)
    needs_approval = models.BooleanField(default=True)
    max_uses = models.PositiveIntegerField(null=True)
    uses = models.PositiveIntegerField(
        default=0, help_text="devices that have asked with it, rejected ones included"
    )
    expires_at = models.DateTimeField()
    revoked_at = models.DateTimeField(null=True)
    created_by = models.ForeignKey(
        User, null=True, on_delete=models.SET_NULL, related_name="+"
    )

    class Meta:
        constraints = [
            models.CheckConstraint(
                condition=models.Q(max_uses__isnull=True)
                | models.Q(uses__lte=models.F("max_uses")),
                name="enrolment_token_uses_within_limit",
            )
        ]

    def __str__(self) -> str:
        return self.name

    def status_at(self, now: datetime) -> TokenStatus:
        """Tell whether it lets further devices in."""
        if self.revoked_at is not None:
            return TokenStatus.REVOKED
        if self.expires_at <= now:
            return TokenStatus.EXPIRED
        if self.max_uses is not None and self.uses >= self.max_uses:
            return TokenStatus.USED_UP
        return TokenStatus.ACTIVE


class EnrolmentRequest(BaseModel):
    """A device that asks to be registered, and what became of it."""

    token = models.ForeignKey(EnrolmentToken, on_delete=models.PROTECT)
    device_id = models.CharField(max_length=128)
    model = models.ForeignKey(DeviceModel, on_delete=models.PROTECT)
    region = models.CharField(max_length=32)
    tags = models.JSONField(default=dict, blank=True)
    firmware_version = models.CharField(max_length=64, blank=True)
    secret_digest = models.CharField(max_length=64)
    status = models.CharField(
        max_length=16,
        choices=EnrolmentStatus.choices,
        default=EnrolmentStatus.PENDING,
    )
    comment = models.CharField(max_length=2000, blank=True)
    decided_by = models.ForeignKey(
        User, null=True, on_delete=models.SET_NULL, related_name="+"
    )
    decided_at = models.DateTimeField(null=True)
    completed_at = models.DateTimeField(null=True)
    told_at = models.DateTimeField(
        null=True, help_text="when administrators were notified that it waits"
    )
    registered = models.ForeignKey(Device, null=True, on_delete=models.CASCADE)

    class Meta:
        verbose_name = "enrolment"
        constraints = [
            models.UniqueConstraint(
                fields=["device_id"],
                condition=models.Q(status__in=[str(s) for s in OPEN_ENROLMENTS]),
                name="one_open_enrolment_a_device",
            )
        ]
        indexes = [
            models.Index(fields=["status", "created_at"], name="enrolment_status"),
            models.Index(fields=["-created_at"], name="enrolment_newest"),
            models.Index(fields=["device_id"], name="enrolment_device_id"),
        ]
        triggers: ClassVar[list[pgtrigger.Trigger]] = [
            pgtrigger.FSM(
                name="enrolment_status_moves",
                field="status",
                transitions=[(str(a), str(b)) for a, b in ENROLMENT_MOVES],
            )
        ]

    def __str__(self) -> str:
        return self.device_id


class DeviceImport(BaseModel):
    """A file of devices to register, worked off in chunks of lines.

    The row is the lock of a chunk; the lease only keeps a second worker from waiting
    at it.
    """

    format = models.CharField(max_length=8, choices=ImportFormat.choices)
    columns = models.JSONField(default=list, help_text="header of a CSV file")
    mode = models.CharField(
        max_length=8, choices=ImportMode.choices, default=ImportMode.CREATE
    )
    is_dry_run = models.BooleanField(
        default=False, help_text="tells what it would do, and does nothing"
    )
    is_acknowledged = models.BooleanField(
        default=False, help_text="may change whom deployments to come reach"
    )
    applied_as = models.ForeignKey(
        "self", null=True, on_delete=models.SET_NULL, related_name="+"
    )
    status = models.CharField(
        max_length=16, choices=ImportStatus.choices, default=ImportStatus.PENDING
    )
    total = models.PositiveIntegerField(default=0)
    created = models.PositiveIntegerField(default=0)
    updated = models.PositiveIntegerField(default=0)
    unchanged = models.PositiveIntegerField(default=0)
    rejected = models.PositiveIntegerField(default=0)
    done_through = models.PositiveIntegerField(
        default=0, help_text="the last line that was worked off"
    )
    attempts = models.PositiveSmallIntegerField(
        default=0, help_text="workers that tried the chunk that is next"
    )
    leased_by = models.UUIDField(null=True)
    leased_until = models.DateTimeField(null=True)
    finished_at = models.DateTimeField(null=True)
    failure = models.CharField(max_length=500, blank=True)
    requested_by = models.ForeignKey(
        User, null=True, on_delete=models.SET_NULL, related_name="+"
    )
    keys_fetched_at = models.DateTimeField(
        null=True, help_text="when the keys were first downloaded"
    )
    keys_erased_at = models.DateTimeField(null=True)

    class Meta:
        indexes = [
            models.Index(
                fields=["created_at"],
                condition=models.Q(status__in=[str(s) for s in OPEN_IMPORTS]),
                name="device_import_open",
            ),
            models.Index(fields=["-created_at"], name="device_import_newest"),
        ]
        triggers: ClassVar[list[pgtrigger.Trigger]] = [
            pgtrigger.FSM(
                name="device_import_status_moves",
                field="status",
                transitions=[(str(a), str(b)) for a, b in IMPORT_MOVES],
            )
        ]

    def __str__(self) -> str:
        return f"import of {self.created_at:%Y-%m-%d %H:%M:%S}"

    @property
    def done(self) -> int:
        """How many lines were looked at."""
        return self.created + self.updated + self.unchanged + self.rejected

    @property
    def may_be_applied(self) -> bool:
        """Whether it is a dry run whose file is still there, and that was not used."""
        return (
            self.is_dry_run
            and self.status == ImportStatus.COMPLETED
            and self.keys_erased_at is None
            and self.applied_as_id is None
        )

    @property
    def keys_end_at(self) -> datetime | None:
        """When its keys are erased; None while it runs and when there are none."""
        if self.is_dry_run or self.finished_at is None:
            return None
        if self.keys_erased_at is not None:
            return None
        ends = self.finished_at + settings.IMPORT_KEYS_KEPT
        if self.keys_fetched_at is not None:
            ends = min(ends, self.keys_fetched_at + settings.IMPORT_KEYS_AGAIN)
        return ends


class DeviceImportLine(models.Model):
    """One line of the file; its text is dropped when its outcome is known.

    That of a dry run stays for a day, so that it can be applied. `changes` is None
    where nothing could change: in an import that only creates.
    """

    batch = models.ForeignKey(
        DeviceImport, on_delete=models.CASCADE, related_name="lines", db_index=False
    )
    line = models.PositiveIntegerField()
    raw = models.BinaryField(null=True)
    outcome = models.CharField(max_length=16, choices=LineOutcome.choices, blank=True)
    changes = models.JSONField(null=True)
    device_id = models.CharField(max_length=128, blank=True)
    code = models.CharField(max_length=64, blank=True)
    detail = models.CharField(max_length=500, blank=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["batch", "line"], name="one_row_a_line_of_an_import"
            )
        ]
        indexes = [
            models.Index(
                fields=["batch", "line"],
                condition=models.Q(outcome=LineOutcome.REJECTED.value),
                name="device_import_rejected",
            ),
            models.Index(
                fields=["batch", "device_id"],
                condition=models.Q(changes__isnull=False),
                name="device_import_named",
            ),
        ]

    def __str__(self) -> str:
        return f"line {self.line}"


class DeviceImportKeys(models.Model):
    """The keys that a chunk of an import made, sealed until they are delivered."""

    batch = models.ForeignKey(
        DeviceImport, on_delete=models.CASCADE, related_name="key_chunks"
    )
    sealed = SealedField(purpose=IMPORT_KEYS_PURPOSE)

    def __str__(self) -> str:
        return f"keys of {self.batch_id}"


class SavedFilter(models.Model):
    """A filter of the list of devices that a person keeps under a name."""

    user = models.ForeignKey(User, on_delete=models.CASCADE, related_name="+")
    name = models.CharField(max_length=64)
    query = models.CharField(
        max_length=2000, help_text="the address of the list, after the question mark"
    )
    created_at = models.DateTimeField(default=timezone.now)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["user", "name"], name="one_saved_filter_a_name"
            )
        ]

    def __str__(self) -> str:
        return self.name
