"""Chainable filters over devices.

`state` is the row that the health app keeps beside each device that was ever heard;
it is reached through the reverse relation, so that nothing here imports health.
"""

from datetime import datetime
from typing import TYPE_CHECKING, Self

from django.db import models

from devices.choices import DeviceStatus

if TYPE_CHECKING:
    from devices.models import Device
else:
    Device = models.Model


class DeviceQuerySet(models.QuerySet["Device"]):
    def updatable(self) -> Self:
        """Those that may be ordered to install something."""
        return self.filter(enabled=True, revoked_at__isnull=True)

    def with_status(self, status: str, now: datetime) -> Self:
        """Those whose derived status is the given one."""
        if status == DeviceStatus.REVOKED:
            return self.filter(revoked_at__isnull=False)
        live = self.filter(revoked_at__isnull=True)
        if status == DeviceStatus.NEVER_SEEN:
            return live.filter(state__isnull=True)
        if status == DeviceStatus.ONLINE:
            return live.filter(state__online_until__gt=now)
        return live.filter(state__online_until__lte=now)
