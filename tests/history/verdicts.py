"""No success beside a breach, and no way back without evidence.

Each verdict on a new image is worked out again from what the device itself said: its
heartbeats, its reports, and its silence.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta

from tests.history.rows import (
    CLOCK_SLACK,
    Event,
    Faults,
    History,
    Order,
    Reading,
    Report,
    in_log_order,
)

FAILED_LINES = ("device.failed", "device.fell_back", "device.retry")
SERVER_CODES = (
    *("timeout", "not_proven", "unhealthy", "offline", "fell_back"),
    *("cpu", "memory", "error_rate"),
)


def faults_of_verdicts(history: History) -> list[str]:
    """Compare what was judged of each device with what it showed."""
    readings: dict[str, list[Reading]] = defaultdict(list)
    for reading in sorted(history.readings, key=lambda each: each.at):
        readings[reading.device].append(reading)
    reports: dict[str, list[Report]] = defaultdict(list)
    for report in history.reports:
        reports[report.order].append(report)
    return [
        *_successes_beside_a_breach(history, readings),
        *_failures_without_evidence(history, readings, reports),
        *_rollbacks_without_failures(history),
    ]


def breaches(
    history: History,
    order: Order,
    readings: Iterable[Reading],
    until: datetime,
    *,
    across_gaps: bool,
) -> dict[str, datetime]:
    """Return the limits that a device breached under the image of an order, and when.

    A limit is breached when every heartbeat between two exceeds it and the two are its
    duration apart.

    Args:
        across_gaps: also where more than the time of silence lies between heartbeats:
            the device may have been in contact otherwise.
    """
    limits = history.deployment.limits
    found: dict[str, datetime] = {}
    since: dict[str, datetime] = {}
    last: datetime | None = None
    for reading in readings:
        if reading.at < order.offered_at or reading.at > until:
            continue
        has_gap = (
            not across_gaps
            and last is not None
            and reading.at - last > limits.offline_after
        )
        last = reading.at
        if reading.version != order.version or reading.is_first_of_boot or has_gap:
            since.clear()
        if reading.version != order.version:
            continue
        for name, value, most, duration in (
            ("cpu", reading.cpu, limits.cpu, limits.cpu_duration),
            ("memory", reading.memory, limits.memory, limits.memory_duration),
            ("error_rate", reading.errors, limits.errors, limits.error_duration),
        ):
            if name in order.exempt or value is None or value <= most:
                since.pop(name, None)
            elif reading.at - since.setdefault(name, reading.at) >= duration:
                found.setdefault(name, reading.at)
    return found


def _successes_beside_a_breach(
    history: History, readings: Mapping[str, list[Reading]]
) -> list[str]:
    faults = Faults()
    deployment = history.deployment
    for target in history.targets:
        if target.status != "success":
            continue
        orders = [
            each
            for each in history.orders
            if each.device == target.device and each.kind == "install"
        ]
        own = [each for each in orders if each.deployment == deployment.id]
        if not own:
            continue
        order = max(own, key=lambda each: each.offered_at)
        ends = [
            each.offered_at for each in orders if each.offered_at > order.offered_at
        ]
        its = readings[target.device]
        if deployment.finished_at is not None:
            ends.append(deployment.finished_at + deployment.watch_duration)
        # What came just now is judged by the next tick.
        ends.append(max((each.at for each in its), default=order.offered_at))
        until = min(ends) - CLOCK_SLACK
        faults.found += [
            f"{target.device} is a success and breached {name} at {at:%X}"
            for name, at in breaches(
                history, order, its, until, across_gaps=False
            ).items()
        ]
    return faults.found


def _failures_without_evidence(
    history: History,
    readings: Mapping[str, list[Reading]],
    reports: Mapping[str, list[Report]],
) -> list[str]:
    faults = Faults()
    for event in in_log_order(history.events):
        code = event.message.partition(": ")[0]
        if event.event not in FAILED_LINES or not event.device:
            continue
        orders = [
            each
            for each in history.own_orders()
            if each.device == event.device
            and each.kind == "install"
            and each.offered_at <= event.at
        ]
        if not orders:
            continue
        order = max(orders, key=lambda each: each.offered_at)
        if order.error_code != code:
            continue
        said = reports[order.id]
        its = readings[event.device]
        faults.note(
            not _is_shown(history, order, code, event, its, said),
            f"{event.device} failed as {code} and nothing that it gave shows that",
        )
    return faults.found


def _is_shown(
    history: History,
    order: Order,
    code: str,
    event: Event,
    readings: list[Reading],
    reports: list[Report],
) -> bool:
    known_until = event.at + CLOCK_SLACK
    match code:
        case "cpu" | "memory" | "error_rate":
            return code in breaches(
                history, order, readings, known_until, across_gaps=True
            )
        case "offline":
            return _was_silent(history, order, event.at, readings, reports)
        case "fell_back":
            return any(
                each.version != order.version
                for each in readings
                if order.claimed_at is not None
                and order.claimed_at <= each.at <= known_until
            )
        case "not_proven" | "unhealthy":
            return order.claimed_at is not None
        case "timeout":
            return True
        case _:
            return any(each.status == "failed" and each.was_applied for each in reports)


def _was_silent(
    history: History,
    order: Order,
    at: datetime,
    readings: list[Reading],
    reports: list[Report],
) -> bool:
    """Tell whether nothing came for as long as silence may last, while it could."""
    signs = [each.at for each in readings if each.at <= at]
    signs += [each.received_at for each in reports if each.received_at <= at]
    awake = history.deployment.awake_since
    if awake is not None and awake <= at:
        signs.append(awake)
    last = max(signs, default=order.offered_at)
    # A contact is noted every few seconds only, so silence may seem that much longer.
    return at - last >= history.deployment.limits.offline_after - timedelta(seconds=6)


def _rollbacks_without_failures(history: History) -> list[str]:
    """Ask of each rollback that a gate began whether a device had failed before it."""
    faults = Faults()
    failed = 0
    for event in in_log_order(history.events):
        if event.event in FAILED_LINES:
            failed += 1
        if event.event == "rollback.started":
            faults.note(
                event.stage is not None and failed == 0,
                f"it was rolled back though no device had failed: {event.message}",
            )
    return faults.found
