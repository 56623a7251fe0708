"""Words for devices and groups."""

from django.db import models


class DeviceStatus(models.TextChoices):
    """What the list shows. Derived, never stored: it changes by silence."""

    NEVER_SEEN = "never_seen", "never seen"
    ONLINE = "online"
    OFFLINE = "offline"
    REVOKED = "revoked"


class KeyStatus(models.TextChoices):
    """How the current key of a device stands. Derived from the clock, never stored."""

    VALID = "valid"
    EXPIRING = "expiring"
    EXPIRED = "expired"
    NONE = "none"


class GroupType(models.TextChoices):
    """A static group has a list of members; a dynamic one has a rule."""

    STATIC = "Static"
    DYNAMIC = "Dynamic"
