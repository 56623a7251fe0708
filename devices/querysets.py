"""Chainable filters over devices.

`state` is the row that the health app keeps beside each device that was ever heard;
it is reached through the reverse relation, so that nothing here imports health.
"""

import json
import re
from datetime import datetime
from typing import TYPE_CHECKING, Any, Self

from django.apps import apps
from django.conf import settings
from django.contrib.postgres.search import SearchVectorField
from django.db import models
from django.db.models.functions import Concat

from devices.admission import admitted
from devices.choices import DeviceHealth, DeviceStatus

if TYPE_CHECKING:
    from devices.models import Device, DeviceCertificate, DeviceKey
else:
    Device = DeviceCertificate = DeviceKey = models.Model

# Letters in a row that an index knows of each name (`name_pieces.sql`).
PIECE = 3
# Expected devices with a text in their name that are sorted rather than looked for in
# the order of the names. Names go by site or kind: the first with a text may come late.
FEW = 20_000


def name_pieces(name: Any) -> models.Func:
    """Return all that a name has of three letters in a row, and how it ends."""
    return models.Func(
        name, function="hotswap_name_pieces", output_field=SearchVectorField()
    )


def name_contains(text: str, prefix: str = "") -> models.Q:
    """Match devices by a part of their name, in any case.

    Args:
        prefix: how the device is reached, as in `device__`.
    """
    field = f"{prefix}device_id"
    last = max(1, len(text) - PIECE + 1)
    pieces = {text.lower()[place : place + PIECE] for place in range(last)}
    # What is shorter than a piece begins one.
    suffix = ":*" if len(text) < PIECE else ""
    has_pieces = models.Func(
        name_pieces(models.F(field)),
        models.Value(" & ".join(_quoted(piece) + suffix for piece in sorted(pieces))),
        template="(%(expressions)s::tsquery)",
        arg_joiner=" @@ ",
        output_field=models.BooleanField(),
    )
    # Not `icontains`: of this PostgreSQL knows how many names it matches.
    return models.Q(has_pieces) & models.Q(**{f"{field}__iregex": re.escape(text)})


def _quoted(piece: str) -> str:
    """Write a piece as PostgreSQL reads one in a `tsquery`."""
    text = piece.replace("\\", "\\\\").replace("'", "''")
    return f"'{text}'"


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

    def named_like(self, text: str) -> Self:
        """Those with a text in their name, in any case; to be ordered by `name_order`.

        That is the name. Few are found by the index of parts of names, and sorted; of
        many the first are met soon in the order of the names.
        """
        found = self.filter(name_contains(text))
        plan = json.loads(found.order_by().explain(format="json") or "[]")
        is_few = not plan or plan[0]["Plan"]["Plan Rows"] <= FEW
        name = models.F("device_id")
        # What no index is sorted by.
        apart = Concat(name, models.Value(""), output_field=models.CharField())
        return found.annotate(name_order=apart if is_few else name)

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
