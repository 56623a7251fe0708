"""What must hold of every history, whatever was killed meanwhile.

`read_history` takes the rows from a database; `faults_in` is a pure function over them
and over what the devices themselves know.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from itertools import pairwise
from typing import Any

import psycopg
from psycopg.rows import class_row


@dataclass(frozen=True, slots=True)
class Order:
    """One order to one device, as stored."""

    id: str
    device: str
    checksum: str
    version: str
    status: str
    reboot_required: bool
    boot_id_before: str
    offered_at: datetime
    claimed_at: datetime | None = None
    closed_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Stage:
    """One stage of a deployment, as stored."""

    number: int
    opened_at: datetime | None = None
    passed_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Report:
    """What a device said of an order, as stored."""

    order: str
    sequence: int
    status: str
    boot_id: str = ""


@dataclass(frozen=True, slots=True)
class Reading:
    """A heartbeat of a device, as stored."""

    device: str
    at: datetime
    version: str


@dataclass(frozen=True, slots=True)
class History:
    """All rows of one deployment; orders of its devices from any deployment."""

    orders: tuple[Order, ...] = ()
    stages: tuple[Stage, ...] = ()
    reports: tuple[Report, ...] = ()
    readings: tuple[Reading, ...] = ()


@dataclass(frozen=True, slots=True)
class Witness:
    """What a device itself knows.

    Attributes:
        ran: digests of the images it ran, in order, the first from before any order.
        acknowledged: order, sequence and status of each report that got a 200.
    """

    ran: tuple[str, ...] = ()
    acknowledged: tuple[tuple[str, int, str], ...] = ()


@dataclass(slots=True)
class _Faults:
    found: list[str] = field(default_factory=list)

    def note(self, is_fault: bool, text: str) -> None:
        if is_fault:
            self.found.append(text)


def faults_in(history: History, witnesses: Mapping[str, Witness]) -> list[str]:
    """Give everything that should not be in a history, in words; [] if it is right."""
    return [
        *_orders_at_once(history.orders),
        *_stages_too_early(history.stages),
        *_reports_lost(history, witnesses),
        *_successes_without_proof(history),
        *_images_not_ordered(history.orders, witnesses),
    ]


def _orders_at_once(orders: Iterable[Order]) -> list[str]:
    faults = _Faults()
    by_device: dict[str, list[Order]] = defaultdict(list)
    for order in orders:
        by_device[order.device].append(order)
    for device, its in by_device.items():
        for first, second in pairwise(sorted(its, key=lambda each: each.offered_at)):
            faults.note(
                first.closed_at is None or first.closed_at > second.offered_at,
                f"{device} has two open orders: {first.id}, {second.id}",
            )
    return faults.found


def _stages_too_early(stages: Iterable[Stage]) -> list[str]:
    faults = _Faults()
    for before, stage in pairwise(sorted(stages, key=lambda each: each.number)):
        faults.note(
            stage.opened_at is not None
            and (before.passed_at is None or before.passed_at > stage.opened_at),
            f"stage {stage.number} was opened before {before.number} had passed",
        )
    return faults.found


def _reports_lost(history: History, witnesses: Mapping[str, Witness]) -> list[str]:
    stored = {(each.order, each.sequence, each.status) for each in history.reports}
    return [
        f"{device}: a report was acknowledged and is not stored: {report}"
        for device, witness in witnesses.items()
        for report in witness.acknowledged
        if report not in stored
    ]


def _successes_without_proof(history: History) -> list[str]:
    faults = _Faults()
    for order in history.orders:
        if order.status != "success":
            continue
        claims = [
            each
            for each in history.reports
            if each.order == order.id and each.status == "confirming"
        ]
        faults.note(not claims, f"{order.id} succeeded without a claim")
        faults.note(
            order.reboot_required
            and not any(each.boot_id != order.boot_id_before for each in claims),
            f"{order.id} succeeded without a reboot",
        )
        beats = [
            each
            for each in history.readings
            if each.device == order.device and each.version == order.version
        ]
        faults.note(
            order.claimed_at is None
            or not any(each.at >= order.claimed_at for each in beats),
            f"{order.id} succeeded without a heartbeat after its claim",
        )
    return faults.found


def _images_not_ordered(
    orders: Iterable[Order], witnesses: Mapping[str, Witness]
) -> list[str]:
    ordered: dict[str, set[str]] = defaultdict(set)
    for order in orders:
        ordered[order.device].add(order.checksum)
    return [
        f"{device} ran {image[:16]}, which it was not ordered to"
        for device, witness in witnesses.items()
        for image in witness.ran[1:]
        if image not in ordered[device] and image != witness.ran[0]
    ]


_OF_DEVICES = """
    WITH its AS (
        SELECT device_id AS id FROM deployments_target WHERE deployment_id = %s
    )
"""
_ORDERS = """
    SELECT u.id::text, d.device_id AS device, f.sha256 AS checksum, f.version,
           u.status, u.reboot_required, u.boot_id_before, u.offered_at,
           u.claimed_at, u.closed_at
    FROM deployments_update u
    JOIN devices_device d ON d.id = u.device_id
    JOIN firmware_firmware f ON f.id = u.firmware_id
    WHERE u.device_id IN (SELECT id FROM its)
"""
_STAGES = """
    SELECT number, opened_at, passed_at
    FROM deployments_stage WHERE deployment_id = %s
"""
_REPORTS = """
    SELECT r.update_id::text AS order, r.sequence, r.status,
           coalesce(r.body ->> 'bootId', r.body ->> 'boot_id', '') AS boot_id
    FROM deployments_report r JOIN deployments_update u ON u.id = r.update_id
    WHERE u.device_id IN (SELECT id FROM its)
"""
_READINGS = """
    SELECT d.device_id AS device, r.at, r.firmware_version AS version
    FROM health_reading r JOIN devices_device d ON d.id = r.device_id
    WHERE r.device_id IN (SELECT id FROM its)
"""


def read_history(database_url: str, deployment: str) -> History:
    """Read the history of a deployment and of its devices."""

    def rows(kind: Any, query: str) -> tuple[Any, ...]:
        with connection.cursor(row_factory=class_row(kind)) as cursor:
            return tuple(cursor.execute(query, [deployment]).fetchall())

    with psycopg.connect(database_url) as connection:
        return History(
            orders=rows(Order, _OF_DEVICES + _ORDERS),
            stages=rows(Stage, _STAGES),
            reports=rows(Report, _OF_DEVICES + _REPORTS),
            readings=rows(Reading, _OF_DEVICES + _READINGS),
        )
