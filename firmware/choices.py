"""Statuses of firmware and the moves between them."""

from django.db import models


class FirmwareStatus(models.TextChoices):
    DRAFT = "Draft"
    APPROVED = "Approved"
    REJECTED = "Rejected"
    DEPRECATED = "Deprecated"


# Of the record of an image that only devices hold: it was never uploaded, so nobody
# sees, approves or downloads it. It is no choice of anybody's, hence not above.
ABSENT = "Absent"

FIRMWARE_MOVES = (
    (FirmwareStatus.DRAFT, FirmwareStatus.APPROVED),
    (FirmwareStatus.DRAFT, FirmwareStatus.REJECTED),
    (FirmwareStatus.APPROVED, FirmwareStatus.DEPRECATED),
    (FirmwareStatus.DEPRECATED, FirmwareStatus.APPROVED),
)

# Never approved, so that no deployment can have installed it.
DELETABLE = (FirmwareStatus.DRAFT, FirmwareStatus.REJECTED)


# What a key of either ring is: to the audit trail, and to the master key that seals it.
SIGNING = "signing-key"
STORAGE = "storage-key"


class KeyStatus(models.TextChoices):
    """Where a key of a ring stands.

    A storage key is never Next or Revoked: it is Retiring while images are still
    wrapped by it, and Retired when none is.
    """

    # Published, so that devices learn it; signs after the next rotation.
    NEXT = "Next"
    # Signs or wraps what is new.
    ACTIVE = "Active"
    # Still trusted until its end; signs only for devices that know no newer one.
    RETIRING = "Retiring"
    # Signs no more; what it signed stays true.
    RETIRED = "Retired"
    # Not to be trusted, nor what it signed.
    REVOKED = "Revoked"


# Devices may trust these: what `GET /signing-keys` lists.
PUBLISHED_KEYS = (KeyStatus.NEXT, KeyStatus.ACTIVE, KeyStatus.RETIRING)
# What these have signed proves that an image is the one that was uploaded.
SOUND_KEYS = (KeyStatus.ACTIVE, KeyStatus.RETIRING, KeyStatus.RETIRED)
# The order in which the signatures of an image are shown.
CURRENT_FIRST = (*SOUND_KEYS, KeyStatus.REVOKED, KeyStatus.NEXT)

SIGNING_KEY_MOVES = (
    (KeyStatus.NEXT, KeyStatus.ACTIVE),
    (KeyStatus.NEXT, KeyStatus.RETIRED),
    (KeyStatus.NEXT, KeyStatus.REVOKED),
    (KeyStatus.ACTIVE, KeyStatus.RETIRING),
    (KeyStatus.ACTIVE, KeyStatus.REVOKED),
    (KeyStatus.RETIRING, KeyStatus.RETIRED),
    (KeyStatus.RETIRING, KeyStatus.REVOKED),
    (KeyStatus.RETIRED, KeyStatus.REVOKED),
)
STORAGE_KEY_MOVES = (
    (KeyStatus.ACTIVE, KeyStatus.RETIRING),
    (KeyStatus.RETIRING, KeyStatus.RETIRED),
)
