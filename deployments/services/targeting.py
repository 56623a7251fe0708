"""Which devices a deployment gets, and why others are left out.

Everything here is one statement, whatever the size of the fleet.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from django.db.models import (
    BooleanField,
    Case,
    CharField,
    Count,
    Q,
    Subquery,
    Value,
    When,
)

from deployments.choices import AcknowledgedWarning, BusyDevices, OfflineDevices
from deployments.rules.codes import message_of
from deployments.rules.eligibility import Launch, exclusions, open_updates
from deployments.services.requests import DeploymentRequest, Selection
from deployments.strategies.types import Fleet
from devices.models import Device, DeviceGroup
from devices.selectors import group_condition
from firmware.models import Firmware

SHOWN_EXCLUSIONS = 100


@dataclass(frozen=True, slots=True)
class Exclusion:
    """A device that is left out; `busy_with` names the deployment that has it."""

    device_id: str
    code: str
    busy_with: str = ""

    @property
    def detail(self) -> str:
        message = message_of(self.code)
        if self.busy_with:
            return f"{message}, by the deployment {self.busy_with!r}"
        return message


@dataclass(frozen=True, slots=True)
class LaunchWarning:
    """What a launch would bring about that is easily overlooked."""

    code: str
    detail: str
    count: int

    @property
    def must_acknowledge(self) -> bool:
        """Whether a launch is refused that does not name its code."""
        return self.code in AcknowledgedWarning


@dataclass(frozen=True, slots=True)
class Audience:
    """How many devices were meant, how many fit, and those that do not, by name.

    Of a list all of those; else the first hundred. The warnings are about those that
    fit.
    """

    matched: int
    eligible: int
    excluded: tuple[Exclusion, ...] = field(default=())
    warnings: tuple[LaunchWarning, ...] = ()

    def shortened(self) -> "Audience":
        """Return the same with as many exclusions as are shown."""
        return replace(self, excluded=self.excluded[:SHOWN_EXCLUSIONS])


def selection_condition(selection: Selection) -> Q:
    """Write whom a selection names, fitting or not, as a condition on devices."""
    if selection.device_ids:
        return Q(device_id__in=selection.device_ids)
    if selection.group_ids:
        return group_condition(DeviceGroup.objects.filter(pk__in=selection.group_ids))
    if selection.regions:
        return Q(region__in=selection.regions)
    return Q() if selection.everyone else Q(pk__in=[])


def matched_devices(selection: Selection) -> Any:
    """Return the devices that a selection names, fitting or not."""
    return Device.objects.filter(selection_condition(selection))


def green_condition(green_fleet: Mapping[str, Any]) -> Q:
    """Return which devices are named as the green half.

    Args:
        green_fleet: `group` with the id of one, or `tag` with one name and its value.
    """
    if "group" in green_fleet:
        return group_condition(DeviceGroup.objects.filter(pk=green_fleet["group"]))
    return Q(tags__contains=green_fleet["tag"])


def judged_devices(
    selection: Selection,
    firmware: Firmware,
    *,
    offline: str,
    busy: str,
    now: datetime,
    green_fleet: Mapping[str, Any] | None = None,
) -> Any:
    """Annotate each matched device with `exclusion`: the code, or empty if it fits.

    Where a green fleet is named, `is_green` says who is in it.

    Source: FR-FW-003 (targets exist, are online, are compatible);
    docs/deployments.md#eligible-devices.
    """
    rules = exclusions(Launch(firmware, offline=offline, busy=busy, now=now))
    reasons = [When(condition, then=Value(code)) for code, condition in rules]
    matched = matched_devices(selection)
    if green_fleet is not None:
        matched = matched.annotate(
            is_green=Case(
                When(green_condition(green_fleet), then=Value(True)),
                default=Value(False),
                output_field=BooleanField(),
            )
        )
    return matched.annotate(
        exclusion=Case(*reasons, default=Value(""), output_field=CharField())
    ).annotate(
        # Looked up for those that are shown alone.
        busy_with=Case(
            When(
                exclusion="busy",
                then=Subquery(open_updates().values("deployment__name")[:1]),
            ),
            default=Value(""),
            output_field=CharField(),
        )
    )


def find_audience(judged: Any, *, show_all: bool = False) -> Audience:
    """Count who fits and list who does not, by name."""
    counts = judged.aggregate(
        matched=Count("pk"), eligible=Count("pk", filter=Q(exclusion=""))
    )
    if counts["matched"] == counts["eligible"]:
        # PostgreSQL would go through all devices by name to find none.
        return Audience(counts["matched"], counts["eligible"], ())
    left_out = (
        judged.exclude(exclusion="")
        .order_by("device_id")
        .values_list("device_id", "exclusion", "busy_with")
    )
    if not show_all:
        left_out = left_out[:SHOWN_EXCLUSIONS]
    return Audience(
        counts["matched"],
        counts["eligible"],
        tuple(Exclusion(name, code, busy or "") for name, code, busy in left_out),
    )


@dataclass(frozen=True, slots=True)
class Chosen:
    """The devices that a launch means, and those of them that take part.

    Attributes:
        judged: all that are meant, each annotated with its `exclusion`; not read yet.
        audience: how many take part, and who does not. Of a list it names all of those.
        fleet: those that take part, as far as the strategy tells them apart.
    """

    judged: Any
    audience: Audience
    fleet: Fleet


def choose_devices(
    request: DeploymentRequest, firmware: Firmware, now: datetime
) -> Chosen:
    """Find the devices that a launch means, and count those that take part."""
    judged = judged_devices(
        request.selection,
        firmware,
        offline=request.offline_policy,
        busy=request.busy_devices,
        now=now,
        green_fleet=request.green_fleet,
    )
    audience = find_audience(judged, show_all=bool(request.selection.device_ids))
    if request.green_fleet is not None:
        fleet = _count_green(judged)
    elif request.region_order:
        fleet = _count_regions(judged, request.region_order)
    else:
        fleet = Fleet(audience.eligible)
    return Chosen(judged, audience, fleet)


def _count_regions(judged: Any, regions: tuple[str, ...]) -> Fleet:
    """Count the devices that fit, by region in this order."""
    rows = judged.filter(exclusion="").order_by().values_list("region")
    return Fleet.of_regions(dict(rows.annotate(Count("pk"))), regions)


def _count_green(judged: Any) -> Fleet:
    """Count the devices that fit, and how many of them are named as green."""
    counts = judged.filter(exclusion="").aggregate(
        all=Count("pk"), green=Count("pk", filter=Q(is_green=True))
    )
    return Fleet(counts["all"], green_count=counts["green"])


def is_whole_fleet(selection: Selection, firmware: Firmware, now: datetime) -> bool:
    """Tell whether no device that could take the firmware is outside the selection.

    Offline and busy devices could.
    """
    if selection.everyone:
        return True
    everyone = judged_devices(
        Selection(everyone=True),
        firmware,
        offline=OfflineDevices.WAIT,
        busy=BusyDevices.WAIT,
        now=now,
    )
    others = everyone.filter(exclusion="").exclude(selection_condition(selection))
    return not others.exists()
