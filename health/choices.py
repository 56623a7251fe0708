"""Words for the health of a device."""

from django.db import models


class Verdict(models.TextChoices):
    HEALTHY = "healthy"
    DEGRADED = "degraded"
    UNHEALTHY = "unhealthy"
    UNKNOWN = "unknown"


class HealthEvent(models.TextChoices):
    """What happens to a device by itself; the words never change."""

    OFFLINE = "device.offline"
    ONLINE = "device.online"
    UNHEALTHY = "device.unhealthy"
    HEALTHY = "device.healthy"
    ANOMALY = "device.anomaly"


class SecureBoot(models.TextChoices):
    ENABLED = "enabled"
    DISABLED = "disabled"
    UNKNOWN = "unknown"
