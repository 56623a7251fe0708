"""Chainable filters over devices.

`state` is the row that the health app keeps beside each device that was ever heard;
it is reached through the reverse relation, so that nothing here imports health.
"""

from datetime import datetime
from typing import TYPE_CHECKING, Self

from django.apps import apps
from django.conf import settings
from django.db import models

from devices.admission import admitted
from devices.choices import DeviceHealth, DeviceStatus

if TYPE_CHECKING:
    from devices.models import Device, DeviceCertificate, DeviceKey
else:
    Device = DeviceCertificate = DeviceKey = models.Model


class DeviceCertificateQuerySet(models.QuerySet["DeviceCertificate"]):
    def valid(self, now: datetime) -> Self:
        """Those in their time, of devices that are not revoked."""
        return self.filter(admitted("device__"), not_before__lte=now, not_after__gt=now)


class DeviceKeyQuerySet(models.QuerySet["DeviceKey"]):
    def current(self) -> Self:
        """The newest key of each device; a revoked device has none."""
        return self.filter(superseded_at__isnull=True)

    def expiring(self, now: datetime) -> Self:
        """Current ones that have expired, or will within the time of the warning."""
        return self.current().filter(expires_at__lte=now + settings.DEVICE_KEY_WARNING)

    def live(self, now: datetime) -> Self:
        """Those that open a device at this time."""
        return self.filter(expires_at__gt=now)


class DeviceQuerySet(models.QuerySet["Device"]):
    def admitted(self) -> Self:
        """Those that may call: not revoked. Being disabled is about updates alone."""
        return self.filter(admitted())

    def updatable(self) -> Self:
        """Those that may be ordered to install something."""
        return self.filter(admitted(), enabled=True)

    def with_key_expiry(self) -> Self:
        """Read with each when its current key ends, as `key_expires_at`."""
        keys = DeviceKeyQuerySet(apps.get_model("devices", "DeviceKey"))
        current = keys.current().filter(device=models.OuterRef("pk"))
        return self.annotate(
            key_expires_at=models.Subquery(current.values("expires_at"))
        )

    def with_expiring_key(self, now: datetime, *, wanted: bool = True) -> Self:
        """Those whose current key has expired or will within the warning time.

        Args:
            wanted: False for all others, those without a key among them.
        """
        keys = DeviceKeyQuerySet(apps.get_model("devices", "DeviceKey"))
        is_expiring = models.Exists(
            keys.expiring(now).filter(device=models.OuterRef("pk"))
        )
        return self.filter(is_expiring if wanted else ~is_expiring)

    def with_expiring_certificate(self, now: datetime, *, wanted: bool = True) -> Self:
        """Those whose last client certificate has expired or will, as with keys.

        Args:
            wanted: False for all others, those without a certificate among them.
        """
        owned = apps.get_model("devices", "DeviceCertificate").objects.filter(
            device=models.OuterRef("pk")
        )
        later = owned.filter(not_after__gt=now + settings.DEVICE_KEY_WARNING)
        is_expiring = models.Exists(owned) & ~models.Exists(later) & admitted()
        return self.filter(is_expiring if wanted else ~is_expiring)

    def alarmed(self) -> Self:
        """Those with an alarm that nobody has acknowledged."""
        return self.filter(alarm_at__isnull=False)

    def running_component(self, component: str) -> Self:
        """Those whose running image has a bill of materials that names a component.

        Args:
            component: a package URL as a whole, `name`, or `name@version`.
        """
        firmware = apps.get_model("firmware", "Firmware")._default_manager
        made_of_it = firmware.made_of(component).values("sha256")
        return self.filter(firmware_checksum__in=made_of_it)

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

    def with_health(self, health: str, now: datetime) -> Self:
        """Those that fare so now; who is offline or never reported is unknown."""
        is_known = models.Q(
            state__online_until__gt=now, state__last_heartbeat_at__isnull=False
        )
        if health == DeviceHealth.UNKNOWN:
            return self.filter(
                models.Q(state__isnull=True)
                | models.Q(state__online_until__lte=now)
                | models.Q(state__last_heartbeat_at__isnull=True)
                | models.Q(state__verdict=health)
            )
        return self.filter(is_known, state__verdict=health)
