"""Device models, firmware, the keys that sign and store it, and its manifests.

Rules:
- What was signed never changes: the database refuses it.
- Approval binds the checksum; the status moves only along its table.
- SHA-1 and MD5 are kept for protocols that ask for them; nothing is decided by them.
"""

from datetime import datetime
from typing import ClassVar

import pgtrigger
from django.conf import settings
from django.contrib.postgres.indexes import GinIndex
from django.db import models
from django.utils import timezone

from firmware import signing
from firmware.choices import (
    ABSENT,
    CURRENT_FIRST,
    FIRMWARE_MOVES,
    SIGNING,
    SIGNING_KEY_MOVES,
    STORAGE,
    STORAGE_KEY_MOVES,
    FirmwareStatus,
    KeyStatus,
)
from firmware.querysets import (
    FirmwareManager,
    FirmwareQuerySet,
    SigningKeyQuerySet,
)
from firmware.versions import VersionScheme
from hotswap.common.changes import Tracked
from hotswap.common.models import BaseModel
from hotswap.common.sealed_field import SealedField


class DeviceModel(Tracked, BaseModel):
    """A kind of device that firmware is built for."""

    audited_fields = frozenset(
        {
            "name",
            "description",
            "requires_secure_boot",
            "version_scheme",
        }
    )

    name = models.CharField(max_length=64, unique=True)
    description = models.CharField(max_length=500, blank=True)
    requires_secure_boot = models.BooleanField(
        default=False, help_text="updates go only to devices that report secure boot"
    )
    version_scheme = models.CharField(
        max_length=8,
        choices=[(each.value, each.value) for each in VersionScheme],
        default=VersionScheme.SEMVER.value,
        help_text="how its versions are written and ordered",
    )

    class Meta:
        verbose_name = "device model"
        ordering = ("name",)

    def __str__(self) -> str:
        return self.name


class SigningKey(Tracked, BaseModel):
    """One key of the ring that signs images and manifests (RSA-2048)."""

    audited_fields = frozenset(
        {
            "status",
            "status_comment",
            "not_before",
            "not_after",
        }
    )

    key_id = models.CharField(max_length=16, unique=True)
    algorithm = models.CharField(max_length=32, default=signing.ALGORITHM)
    public_key = models.TextField(help_text="PEM")
    sealed_private_key = SealedField(
        purpose=SIGNING, help_text="erased when the key signs no more"
    )
    status = models.CharField(
        max_length=8, choices=KeyStatus.choices, default=KeyStatus.ACTIVE
    )
    status_comment = models.TextField(blank=True, help_text="why it was revoked")
    not_before = models.DateTimeField(default=timezone.now)
    not_after = models.DateTimeField(null=True)
    expiry_told_at = models.DateTimeField(
        null=True, help_text="when people were told that its end is near"
    )

    objects = SigningKeyQuerySet.as_manager()

    class Meta:
        verbose_name = "signing key"
        constraints = [
            models.UniqueConstraint(
                fields=["status"],
                name="one_signing_key_active",
                condition=models.Q(status__in=["Active", "Next"]),
            ),
            models.CheckConstraint(
                name="retiring_has_an_end",
                condition=~models.Q(status=KeyStatus.RETIRING)
                | models.Q(not_after__isnull=False),
            ),
        ]
        triggers: ClassVar[list[pgtrigger.Trigger]] = [
            pgtrigger.FSM(
                name="signing_key_status_moves",
                field="status",
                transitions=[(str(a), str(b)) for a, b in SIGNING_KEY_MOVES],
            ),
            pgtrigger.ReadOnly(
                name="signing_key_public_half",
                fields=["key_id", "algorithm", "public_key"],
            ),
        ]

    def __str__(self) -> str:
        return self.key_id

    def may_sign(self, now: datetime) -> bool:
        """Tell whether it may sign; one whose time is over may not, noted or not."""
        return self.status in (KeyStatus.ACTIVE, KeyStatus.RETIRING) and (
            self.not_after is None or self.not_after > now
        )


class StorageKey(Tracked, BaseModel):
    """One key of the ring that wraps the keys of stored images (AES-256)."""

    audited_fields = frozenset(
        {
            "status",
        }
    )

    key_id = models.CharField(max_length=16, unique=True)
    sealed_key = SealedField(purpose=STORAGE)
    status = models.CharField(
        max_length=8, choices=KeyStatus.choices, default=KeyStatus.ACTIVE
    )

    class Meta:
        verbose_name = "storage key"
        constraints = [
            models.UniqueConstraint(
                fields=["status"],
                name="one_storage_key_active",
                condition=models.Q(status=KeyStatus.ACTIVE),
            )
        ]
        triggers: ClassVar[list[pgtrigger.Trigger]] = [
            pgtrigger.FSM(
                name="storage_key_status_moves",
                field="status",
                transitions=[(str(a), str(b)) for a, b in STORAGE_KEY_MOVES],
            ),
            pgtrigger.ReadOnly(name="storage_key_name", fields=["key_id"]),
        ]

    def __str__(self) -> str:
        return self.key_id


class Firmware(Tracked, BaseModel):
    """One version of the firmware of one device model.

    A row with the status `Absent` stands for an image that was never uploaded and that
    devices say they hold, by its digest and by what they call it: an order to go back
    to it needs something to name. It has no bytes, no signature and no place in any
    list.
    """

    audited_fields = frozenset(
        {
            "status",
            "release_notes",
            "status_comment",
            "approved_by",
            "approved_at",
            "approved_sha256",
            "damaged_at",
            "damage",
            "removed_at",
            "signature_revoked_at",
        }
    )

    model = models.ForeignKey(DeviceModel, on_delete=models.PROTECT)
    version = models.CharField(max_length=64)
    precedence = models.CharField(
        max_length=255,
        default="",
        db_collation="C",
        help_text="sorts as the version does in the scheme of its model",
    )
    status = models.CharField(
        max_length=10, choices=FirmwareStatus.choices, default=FirmwareStatus.DRAFT
    )
    size = models.PositiveIntegerField(help_text="bytes")
    sha256 = models.CharField(max_length=64)
    sha1 = models.CharField(
        max_length=40, blank=True, help_text="for other protocols; never for security"
    )
    md5 = models.CharField(
        max_length=32, blank=True, help_text="for other protocols; never for security"
    )
    signature = models.TextField(help_text="base64")
    key = models.ForeignKey(SigningKey, on_delete=models.PROTECT)
    storage_name = models.CharField(max_length=128, unique=True)
    release_notes = models.TextField(blank=True)
    security_version = models.PositiveIntegerField(default=0)
    reboot_required = models.BooleanField(default=True)
    uploaded_by = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        on_delete=models.SET_NULL,
        null=True,
        related_name="uploads",
    )
    request_comment = models.TextField(
        blank=True, help_text="what the uploader says to the approver"
    )
    approved_by = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        on_delete=models.SET_NULL,
        null=True,
        related_name="approvals",
    )
    approved_at = models.DateTimeField(null=True)
    approved_sha256 = models.CharField(max_length=64, blank=True)
    status_comment = models.TextField(
        blank=True, help_text="why it was approved, rejected or deprecated"
    )
    damaged_at = models.DateTimeField(
        null=True, help_text="when the stored image was found to be damaged"
    )
    damage = models.CharField(max_length=200, blank=True)
    removed_at = models.DateTimeField(
        null=True, help_text="when the stored image was removed, because of its age"
    )
    signature_revoked_at = models.DateTimeField(
        null=True, help_text="since when no signature of it can be trusted"
    )

    objects = FirmwareManager()
    with_absent = FirmwareQuerySet.as_manager()

    class Meta:
        verbose_name_plural = "firmware"
        constraints = [
            models.UniqueConstraint(
                fields=["model", "version"],
                name="one_firmware_a_version",
                condition=~models.Q(status=ABSENT),
            ),
            models.UniqueConstraint(
                fields=["model", "sha256", "version"],
                name="one_absent_image_a_name",
                condition=models.Q(status=ABSENT),
            ),
            models.CheckConstraint(
                name="absent_image_is_unsigned",
                condition=~models.Q(status=ABSENT) | models.Q(size=0, signature=""),
            ),
            # Whatever asks whether an image is whole need not ask whether it is there.
            models.CheckConstraint(
                name="removed_image_is_not_whole",
                condition=models.Q(removed_at__isnull=True)
                | models.Q(damaged_at__isnull=False),
            ),
            models.CheckConstraint(
                name="approval_binds_checksum",
                condition=~models.Q(status__in=["Approved", "Deprecated"])
                | models.Q(approved_sha256=models.F("sha256")),
            ),
        ]
        indexes = [
            models.Index(fields=["sha256"], name="firmware_sha256"),
            models.Index(fields=["model", "precedence"], name="firmware_precedence"),
        ]
        triggers: ClassVar[list[pgtrigger.Trigger]] = [
            pgtrigger.FSM(
                name="firmware_status_moves",
                field="status",
                transitions=[(str(a), str(b)) for a, b in FIRMWARE_MOVES],
            ),
            pgtrigger.ReadOnly(
                name="firmware_signed_fields",
                fields=[
                    "model",
                    "version",
                    "precedence",
                    "size",
                    "sha256",
                    "signature",
                    "key",
                    # Signed with each manifest.
                    "security_version",
                ],
            ),
            # Rows from before they were computed may get them once.
            pgtrigger.Protect(
                name="firmware_other_digests",
                operation=pgtrigger.Update,
                condition=(
                    pgtrigger.Q(old__sha1__gt="")
                    & pgtrigger.Q(old__sha1__df=pgtrigger.F("new__sha1"))
                )
                | (
                    pgtrigger.Q(old__md5__gt="")
                    & pgtrigger.Q(old__md5__df=pgtrigger.F("new__md5"))
                ),
            ),
        ]

    def __str__(self) -> str:
        return f"{self.model} {self.version}"

    def best_signature(self) -> tuple[SigningKey, str]:
        """Return the most current key that has signed the image, and its signature."""
        signatures = [(self.key, self.signature)]
        signatures += [
            (later.key, later.signature) for later in self.later_signatures.all()
        ]
        return min(signatures, key=lambda each: CURRENT_FIRST.index(each[0].status))


class ImageSignature(models.Model):
    """A signature of an image under a later key than the one of its upload."""

    firmware = models.ForeignKey(
        Firmware, on_delete=models.PROTECT, related_name="later_signatures"
    )
    key = models.ForeignKey(SigningKey, on_delete=models.PROTECT)
    signature = models.TextField(help_text="base64")
    created_at = models.DateTimeField(default=timezone.now)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["firmware", "key"], name="one_signature_a_key"
            )
        ]
        triggers: ClassVar[list[pgtrigger.Trigger]] = [
            pgtrigger.Protect(
                name="image_signature_stays",
                operation=pgtrigger.Update | pgtrigger.Delete,
            )
        ]

    def __str__(self) -> str:
        return f"{self.firmware} by {self.key}"


class FirmwareSbom(models.Model):
    """The bill of materials of a firmware, as it was uploaded last."""

    firmware = models.OneToOneField(
        Firmware, on_delete=models.CASCADE, primary_key=True, related_name="sbom"
    )
    form = models.CharField(max_length=9, help_text="CycloneDX or SPDX")
    spec_version = models.CharField(max_length=512)
    document = models.BinaryField(help_text="the bytes of the upload")
    sha256 = models.CharField(max_length=64)
    components = models.JSONField(help_text="name, version and purl of each")
    uploaded_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.SET_NULL, null=True
    )
    uploaded_at = models.DateTimeField()

    class Meta:
        indexes = [
            GinIndex(
                fields=["components"],
                name="sbom_components",
                opclasses=["jsonb_path_ops"],
            )
        ]

    def __str__(self) -> str:
        return f"{self.form} of {self.firmware}"


class WrappedKey(models.Model):
    """The key of one stored image, wrapped by a storage key.

    It lies here and not in the file alone, so that a rotation of storage keys writes a
    row for each image and never touches a file. A file's header keeps the wrapping of
    its upload, which counts only where there is no row. It belongs to the file and not
    to the firmware: while a damaged file is replaced, both are being read.
    """

    storage_name = models.CharField(max_length=128, primary_key=True)
    storage_key = models.ForeignKey(StorageKey, on_delete=models.PROTECT)
    wrapped = models.BinaryField(help_text="nonce, then the sealed key")
    created_at = models.DateTimeField(default=timezone.now)

    def __str__(self) -> str:
        return f"key of {self.storage_name}"


class ImageCopy(models.Model):
    """One image at one place: a bucket, by its name in the settings, or a folder.

    A row that is stored says: these bytes were read or written there and were right.
    One that is not is work to do; the database is the queue.
    """

    storage_name = models.CharField(max_length=128)
    place = models.CharField(max_length=64)
    stored_at = models.DateTimeField(
        null=True, help_text="when the bytes there were last known to be right"
    )
    due_at = models.DateTimeField(
        default=timezone.now, help_text="when the next try is due, until it is stored"
    )
    attempts = models.PositiveIntegerField(default=0)
    failure = models.CharField(max_length=200, blank=True)

    class Meta:
        verbose_name_plural = "image copies"
        constraints = [
            models.UniqueConstraint(
                fields=["storage_name", "place"], name="one_copy_a_place"
            )
        ]
        indexes = [
            models.Index(
                fields=["due_at"],
                name="image_copy_due",
                condition=models.Q(stored_at__isnull=True),
            )
        ]

    def __str__(self) -> str:
        return f"{self.storage_name} at {self.place}"


class ApprovalRequest(Firmware):
    """A firmware as the console's queue of approvals shows it."""

    class Meta:
        proxy = True
        verbose_name = "approval"


class Manifest(models.Model):
    """A signed statement that a firmware may be installed, and since when.

    Of an image that is absent here it is a statement to one device alone: it may boot
    that image if it is the one in its other slot (`sign_slot_return`).

    `sequence` rises over all manifests of the server: a device refuses one that is
    lower than the highest it has accepted, so that no old order can be replayed. It is
    the time of issue in microseconds since 1970, so that it rises over the restore of a
    backup as well.
    """

    firmware = models.ForeignKey(Firmware, on_delete=models.PROTECT)
    sequence = models.BigAutoField(primary_key=True)
    body = models.BinaryField(help_text="canonical JSON")
    signature = models.TextField(help_text="base64")
    key = models.ForeignKey(SigningKey, on_delete=models.PROTECT)
    issued_at = models.DateTimeField()

    class Meta:
        indexes = [
            models.Index(fields=["firmware", "-sequence"], name="manifest_newest")
        ]

    def __str__(self) -> str:
        return f"{self.firmware} #{self.sequence}"
