"""What a launch brings about that is easily overlooked, and what must be acknowledged.

Rules:
- Warnings are about the devices that take part, as they are when they are counted.
- Whoever launches names the code of each `AcknowledgedWarning` that applies; nothing is
  written without. The others only inform.
- A scheduled launch is acknowledged when it is created or edited. At its start it is
  refused for what was learnt of the firmware since (`ASKED_AT_START`); how many devices
  it reaches is logged.
"""

from collections.abc import Collection, Iterator, Sequence
from datetime import datetime
from typing import Any

from django.db.models import Count, Exists, OuterRef, Q
from django.db.models.fields.json import KeyTextTransform

from deployments.choices import AcknowledgedWarning, Strategy
from deployments.exceptions import AcknowledgementRequiredError
from deployments.rules.codes import UNKNOWN_TIMEZONE
from deployments.services.requests import DeploymentRequest
from deployments.services.targeting import LaunchWarning, is_whole_fleet
from deployments.strategies.types import share_of
from deployments.windows import DEFAULT_ZONE, DEVICE_ZONE
from devices.timezones import ZONE_TAG, zone_names
from firmware.models import Firmware
from firmware.selectors import firmware_incidents
from firmware.versions import VersionScheme
from health.models import UNKNOWN_CHECKSUM, DeviceState
from hotswap.common.errors import FieldError
from hotswap.common.pluralize import counted

NO_TIMEZONE_CODE = "no_timezone"
# Of a Direct launch: so many at once are meant only on purpose.
MANY_AT_ONCE = 100
SHOWN_VERSIONS = 3
# Asked for again when a scheduled launch starts.
ASKED_AT_START = frozenset(
    {AcknowledgedWarning.PREVIOUSLY_ROLLED_BACK, AcknowledgedWarning.DOWNGRADE}
)
# Written to the log at the start, where nobody reads an answer.
LOGGED_AT_START = frozenset({UNKNOWN_TIMEZONE, NO_TIMEZONE_CODE})


def launch_warnings(
    request: DeploymentRequest,
    judged: Any,
    firmware: Firmware,
    device_count: int,
    now: datetime,
) -> tuple[LaunchWarning, ...]:
    """Return the warnings of a launch, those that stop it first.

    Args:
        judged: the devices that are meant, with their exclusions.
        device_count: how many of them take part.
    """
    return (
        *_firmware_warnings(judged, firmware, device_count),
        *_downgrade_warnings(judged, firmware),
        *_irrevocable_warnings(judged, firmware),
        *_reach_warnings(request, firmware, device_count, now),
        *_plan_warnings(request.strategy, request.parameters, device_count),
        *_zone_warnings(judged, request),
    )


def check_acknowledged(
    warnings: Sequence[LaunchWarning],
    acknowledged: Collection[str],
    *,
    asked: Collection[str] = frozenset(AcknowledgedWarning),
) -> None:
    """Refuse a launch with a warning that must be acknowledged and was not.

    Args:
        asked: the codes that have to be.

    Raises:
        AcknowledgementRequiredError: each missing code with its sentence (409).
    """
    missing = [
        each
        for each in warnings
        if each.code in asked and each.code not in acknowledged
    ]
    if missing:
        codes = ", ".join(each.code for each in missing)
        raise AcknowledgementRequiredError(
            f"this launch has to acknowledge: {codes}",
            errors=[
                FieldError("/acknowledge", each.code, each.detail) for each in missing
            ],
        )


def _firmware_warnings(
    judged: Any, firmware: Firmware, device_count: int
) -> Iterator[LaunchWarning]:
    """Tell what went wrong with the firmware before, anywhere or on these devices."""
    incidents = firmware_incidents([firmware.pk]).get(firmware.pk)
    if incidents is None:
        return
    quarantined = 0
    if incidents.quarantined_devices:
        quarantined = judged.filter(exclusion="quarantined").count()
    if incidents.rollbacks or incidents.failed_deployments or quarantined:
        yield LaunchWarning(
            AcknowledgedWarning.PREVIOUSLY_ROLLED_BACK.value,
            f"{firmware} has gone wrong before: {incidents.in_words(quarantined)}",
            device_count,
        )


def _downgrade_warnings(judged: Any, firmware: Firmware) -> Iterator[LaunchWarning]:
    """Tell which devices run a higher version in the order of their model."""
    _, end = VersionScheme(firmware.model.version_scheme).key_range
    higher = judged.filter(
        exclusion="", version_key__gt=firmware.precedence, version_key__lt=end
    )
    versions = list(
        higher.order_by()
        .values_list("firmware_version")
        .annotate(devices=Count("pk"))
        .order_by("-devices", "firmware_version")
    )
    if not versions:
        return
    count = sum(devices for _, devices in versions)
    shown = [
        f"{counted(devices, 'device')} from {version}"
        for version, devices in versions[:SHOWN_VERSIONS]
    ]
    if len(versions) > SHOWN_VERSIONS:
        shown.append(f"others from {len(versions) - SHOWN_VERSIONS} more versions")
    yield LaunchWarning(
        AcknowledgedWarning.DOWNGRADE.value,
        f"This is a downgrade to {firmware.version}: {', '.join(shown)}",
        count,
    )


def _irrevocable_warnings(judged: Any, firmware: Firmware) -> Iterator[LaunchWarning]:
    """Tell what cannot be taken back: a security version that rises, and devices that
    no rollback could send home, as what they run is not on this server.
    """
    home = Firmware.objects.filter(
        model_id=firmware.model_id, sha256=OuterRef("firmware_checksum")
    )
    keeps_it = DeviceState.objects.filter(
        device=OuterRef("pk"), other_slot_checksum__isnull=False
    )
    can_keep_it = ~Q(firmware_checksum__in=("", UNKNOWN_CHECKSUM)) & Q(Exists(keeps_it))
    counts = judged.filter(exclusion="").aggregate(
        rising=Count("pk", filter=Q(security_version__lt=firmware.security_version)),
        stranded=Count("pk", filter=~Q(Exists(home)) & ~can_keep_it),
    )
    rising, stranded = counts["rising"], counts["stranded"]
    if rising:
        yield LaunchWarning(
            AcknowledgedWarning.SECURITY_VERSION_RAISED.value,
            f"Devices that have not confirmed security version "
            f"{firmware.security_version} before: {rising:,}. One that has will "
            "refuse every firmware below it from then on: what has a lower one, "
            "its present firmware perhaps, cannot be rolled back to",
            rising,
        )
    if stranded:
        yield LaunchWarning(
            AcknowledgedWarning.NO_PREVIOUS_IMAGE.value,
            f"Devices whose present firmware is not on this server, or not known "
            f"yet, and which do not say that they keep it: {stranded:,}. A "
            "rollback cannot order them back. Upload the image that they run first",
            stranded,
        )


def _reach_warnings(
    request: DeploymentRequest, firmware: Firmware, device_count: int, now: datetime
) -> Iterator[LaunchWarning]:
    """Tell of a launch that leaves no device out, and of one without stages to many."""
    if device_count > 1 and is_whole_fleet(request.selection, firmware, now):
        yield LaunchWarning(
            AcknowledgedWarning.WHOLE_FLEET.value,
            f"All devices of the model {firmware.model.name} that can take it get it: "
            f"{device_count:,}",
            device_count,
        )
    if request.strategy == Strategy.DIRECT and device_count > MANY_AT_ONCE:
        yield LaunchWarning(
            AcknowledgedWarning.MANY_AT_ONCE.value,
            f"{device_count:,} devices get it at once: no earlier stage shows whether "
            "it works",
            device_count,
        )


def _plan_warnings(
    strategy: str, parameters: dict[str, Any], device_count: int
) -> Iterator[LaunchWarning]:
    """Tell of the stage of 100 % that a canary gets whose steps end below it."""
    if strategy != Strategy.CANARY:
        return
    last = [parameters["initial_percentage"], *parameters["increments"]][-1]
    rest = device_count - share_of(device_count, last)
    if rest:
        yield LaunchWarning(
            "stage_added",
            f"The steps end at {last} %: a last stage of 100 % is added, for "
            f"{counted(rest, 'more device')}",
            rest,
        )


def _zone_warnings(judged: Any, request: DeploymentRequest) -> Iterator[LaunchWarning]:
    """Tell of devices whose own time is not known, where the window goes by it."""
    window = request.maintenance_window
    if window is None or window["timezone"] != DEVICE_ZONE:
        return
    counts = (
        judged.filter(exclusion="")
        .annotate(zone=KeyTextTransform(ZONE_TAG, "tags"))
        .aggregate(
            unknown=Count(
                "pk", filter=Q(zone__isnull=False) & ~Q(zone__in=zone_names())
            ),
            absent=Count("pk", filter=Q(zone__isnull=True)),
        )
    )
    if counts["unknown"]:
        yield LaunchWarning(
            UNKNOWN_TIMEZONE,
            f"Devices whose tag {ZONE_TAG} names no time zone: "
            f"{counts['unknown']:,}. They get no order before it is corrected",
            counts["unknown"],
        )
    if counts["absent"]:
        yield LaunchWarning(
            NO_TIMEZONE_CODE,
            f"Devices without a tag {ZONE_TAG}: {counts['absent']:,}. Their window "
            f"is that of {DEFAULT_ZONE}",
            counts["absent"],
        )
