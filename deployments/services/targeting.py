"""Which devices a deployment gets, and why others are left out.

Everything here is one statement, whatever the size of the fleet.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from django.conf import settings
from django.db import connection
from django.db.models import (
    BooleanField,
    Case,
    CharField,
    Count,
    F,
    Q,
    Subquery,
    Value,
    When,
)
from django.db.models.functions import Coalesce

from deployments.choices import AcknowledgedWarning
from deployments.models import Deployment, Stage, Target
from deployments.rules.codes import message_of
from deployments.rules.eligibility import Launch, exclusions, open_updates
from deployments.services.requests import Selection
from deployments.strategies.types import Fleet, Plan
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


def count_regions(judged: Any, regions: tuple[str, ...]) -> Fleet:
    """Count the devices that fit, by region in this order."""
    rows = judged.filter(exclusion="").order_by().values_list("region")
    return _in_order(dict(rows.annotate(Count("pk"))), regions)


def count_green(judged: Any) -> Fleet:
    """Count the devices that fit, and how many of them are named as green."""
    counts = judged.filter(exclusion="").aggregate(
        all=Count("pk"), green=Count("pk", filter=Q(is_green=True))
    )
    return Fleet(counts["all"], green_count=counts["green"])


def _in_order(counts: dict[str, int], regions: tuple[str, ...]) -> Fleet:
    # A region that is not in the order comes after those that are.
    order = [*regions, *sorted(set(counts) - set(regions))]
    return Fleet(
        sum(counts.values()),
        tuple((region, counts[region]) for region in order if region in counts),
    )


def write_plan(
    deployment: Deployment,
    plan: Plan,
    judged: Any,
    regions: tuple[str, ...] = (),
    *,
    names_green: bool = False,
) -> Fleet:
    """Write the stages and, by one statement, all targets with their ranks.

    The rank is a hash of the device salted with the deployment, so that the canaries
    are not always the same devices, and the order is the same however often it is
    computed. Regions come before that, where their order matters, and the green half,
    where it is named.

    Returns:
        What was written, to be compared with what was planned for.
    """
    earlier = 0
    stages = []
    for stage in plan.stages:
        stages.append(
            Stage(
                deployment=deployment,
                number=stage.number,
                name=stage.name,
                boundary=stage.boundary,
                size=stage.boundary - earlier,
                wait_seconds=stage.wait.total_seconds(),
            )
        )
        earlier = stage.boundary
    Stage.objects.bulk_create(stages)
    green = ("is_green",) if names_green else ()
    chosen = (
        judged.filter(exclusion="")
        .order_by()
        .annotate(version=Coalesce(F("firmware_version"), Value("")))
        .values("id", "version", "firmware_checksum", "region", *green)
    )
    query, parameters = chosen.query.sql_with_params()
    boundaries = [stage.boundary for stage in plan.stages]
    first = "array_position(%s::varchar[], region), region," if regions else ""
    if names_green:
        first = "is_green DESC,"
    counted_green = "count(*) FILTER (WHERE is_green)" if names_green else "0"
    with connection.cursor() as cursor:
        cursor.execute(
            f"""
            WITH ranked AS (
                SELECT chosen.*, row_number() OVER (
                    ORDER BY {first} hashtextextended(id::text || %s, 0), id
                ) AS rank
                FROM ({query}) AS chosen
            ), written AS (
                INSERT INTO deployments_target (
                    deployment_id, device_id, rank, stage_number, status, attempt,
                    rollback_attempt, from_version, from_checksum, error_code, message,
                    updated_at
                )
                SELECT %s, id, rank, width_bucket(rank::int - 1, %s::int[]) + 1,
                       'pending', 0, 0, version, firmware_checksum, '', '', %s
                FROM ranked
                -- In the order of the indexes, which then fill from left to right.
                ORDER BY id
            )
            SELECT count(*), {counted_green} FROM ranked
            """,
            [
                *([list(regions)] if regions else []),
                str(deployment.pk),
                *parameters,
                deployment.pk,
                boundaries,
                deployment.created_at,
            ],
        )
        written, green_count = cursor.fetchone()
    if names_green:
        return Fleet(written, green_count=green_count)
    if not regions:
        return Fleet(written)
    targets = Target.objects.filter(deployment=deployment).order_by()
    rows = targets.values_list("device__region").annotate(Count("pk"))
    return _in_order(dict(rows), regions)


def too_many(count: int) -> bool:
    """Tell whether a deployment of so many devices exceeds the limit."""
    return count > settings.MAX_DEVICES_PER_DEPLOYMENT
