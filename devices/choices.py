"""Words for devices and groups."""

from django.db import models


class DeviceStatus(models.TextChoices):
    """What the list shows. Derived, never stored: it changes by silence."""

    NEVER_SEEN = "never_seen", "never seen"
    ONLINE = "online"
    OFFLINE = "offline"
    REVOKED = "revoked"


class GroupType(models.TextChoices):
    STATIC = "Static"
