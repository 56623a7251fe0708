"""No device in two orders at once; no report and no transition lost or done twice.

Each order is replayed: what its device said, under the rules of sequence and claim,
gives which reports must have been applied and which lines the log must hold.
"""

from collections import defaultdict
from datetime import datetime
from itertools import pairwise

from tests.history.rows import (
    CLOCK_SLACK,
    FAILURES,
    OPENINGS,
    PROOFS,
    Event,
    Faults,
    History,
    Order,
    Reading,
    Report,
    in_log_order,
)

AFTER_CLAIM = ("confirming", "failed")
SAID = {
    "installing": "device.installing",
    "rebooting": "device.rebooting",
    "confirming": "device.claimed",
}
OPENING = {"install": "device.notified", "rollback": "device.ordered_back"}
# Proved by its bytes, whatever its heartbeats call them.
WRONG_LABEL = "device.version_label_differs"
PROOF = {"install": "device.updated", "rollback": "device.returned"}


def faults_of_orders(history: History) -> list[str]:
    """Look at each order by itself, and at those of one device beside each other."""
    reports: dict[str, list[Report]] = defaultdict(list)
    for report in sorted(history.reports, key=lambda each: each.number):
        reports[report.order].append(report)
    readings: dict[str, list[Reading]] = defaultdict(list)
    for reading in history.readings:
        readings[reading.device].append(reading)
    events: dict[str, list[Event]] = defaultdict(list)
    for event in in_log_order(history.events):
        events[event.device].append(event)
    own: dict[str, list[Order]] = defaultdict(list)
    for order in history.own_orders():
        own[order.device].append(order)

    found = _orders_at_once(history)
    for device, orders in own.items():
        lines = _by_order(events[device])
        if [OPENING[order.kind] for order in orders] != [
            each[0].event for each in lines
        ]:
            found.append(
                f"{device} has {len(orders)} orders and {len(lines)} are in the log"
            )
            continue
        for order, its in zip(orders, lines, strict=True):
            said = reports[order.id]
            found += _reports_misjudged(order, said)
            found += _transitions(order, said, its[1:])
            if order.status == "success":
                is_called_otherwise = any(each.event == WRONG_LABEL for each in its)
                found += _proof_missing(
                    order,
                    said,
                    [
                        each.at
                        for each in readings[device]
                        if each.version == order.version or is_called_otherwise
                    ],
                )
    found += [
        f"{device} has an order in the log and none is stored"
        for device, its in events.items()
        if device not in own and any(each.event in OPENINGS for each in its)
    ]
    return found


def _by_order(events: list[Event]) -> list[list[Event]]:
    """Cut the log of a device where its orders begin."""
    cut: list[list[Event]] = []
    for event in events:
        if event.event in OPENINGS:
            cut.append([event])
        elif cut:
            cut[-1].append(event)
    return cut


def _orders_at_once(history: History) -> list[str]:
    faults = Faults()
    by_device: dict[str, list[Order]] = defaultdict(list)
    for order in history.orders:
        by_device[order.device].append(order)
    for device, its in by_device.items():
        for first, second in pairwise(sorted(its, key=lambda each: each.offered_at)):
            faults.note(
                first.closed_at is None
                or first.closed_at > second.offered_at + CLOCK_SLACK,
                f"{device} has two open orders: {first.id}, {second.id}",
            )
    for device, lines in _device_lines(history).items():
        for first_lines, _ in pairwise(_by_order(lines)):
            opening = first_lines[0]
            ended = any(each.event in (*PROOFS, *FAILURES) for each in first_lines)
            faults.note(
                not ended and not _was_called_off(history, device, opening),
                f"{device} has two open orders: that of line {opening.number} was not"
                " closed before the next",
            )
    return faults.found


def _device_lines(history: History) -> dict[str, list[Event]]:
    lines: dict[str, list[Event]] = defaultdict(list)
    for event in in_log_order(history.events):
        if event.device:
            lines[event.device].append(event)
    return lines


def _was_called_off(history: History, device: str, opening: Event) -> bool:
    """Tell whether the order was closed by the server alone, which no line says."""
    return any(
        order.status in ("superseded", "cancelled")
        for order in history.own_orders()
        if order.device == device and order.offered_at == opening.at
    )


def _reports_misjudged(order: Order, reports: list[Report]) -> list[str]:
    """Apply the reports again, in the order of their arrival."""
    faults = Faults()
    last = 0
    claimed_at = None
    for report in reports:
        may_follow = claimed_at is None or report.status in AFTER_CLAIM
        is_new = report.sequence > last
        name = f"{order.id}: report {report.sequence} ({report.status})"
        was_open = (
            order.closed_at is None
            or report.received_at + CLOCK_SLACK < order.closed_at
        )
        faults.note(
            report.was_applied and not is_new, f"{name} was applied a second time"
        )
        faults.note(
            report.was_applied and not may_follow, f"{name} was applied after a claim"
        )
        faults.note(
            not report.was_applied and is_new and may_follow and was_open,
            f"{name} was acknowledged and has no effect",
        )
        if report.was_applied:
            last = max(last, report.sequence)
            if report.status == "confirming":
                claimed_at = report.received_at
    faults.note(
        order.last_sequence != last,
        f"{order.id} stands at sequence {order.last_sequence}; {last} was applied",
    )
    faults.note(
        order.claimed_at != claimed_at,
        f"{order.id} is claimed at {order.claimed_at}, its claim came at {claimed_at}",
    )
    return faults.found


def _transitions(order: Order, reports: list[Report], lines: list[Event]) -> list[str]:
    """Compare the lines of an order with what must have come of it, once each."""
    faults = Faults()
    status = "notified"
    words = []
    for report in reports:
        if report.was_applied and report.status != status:
            status = report.status
            if status in SAID:
                words.append(SAID[status])
    logged = [each.event for each in lines if each.event in SAID.values()]
    faults.note(
        logged != words,
        f"{order.id}: transitions lost or done twice: {logged} instead of {words}",
    )
    proofs = [each for each in lines if each.event == PROOF[order.kind]]
    others = [
        each
        for each in lines
        if each.event in PROOFS and each.event != PROOF[order.kind]
    ]
    faults.note(bool(others), f"{order.id}: proved as something else than it is")
    failures = [
        each
        for each in lines
        if each.event in FAILURES
        and (
            each.message.startswith(f"{order.error_code}: ")
            or order.error_code == "rollback_unconfirmed"
        )
    ]
    # A proved device that breaches a limit later has both lines.
    may_be_proved = order.status in ("success", "failed")
    faults.note(
        len(proofs) > may_be_proved, f"{order.id}: {len(proofs)} lines of its proof"
    )
    if order.status == "success":
        faults.note(
            [each.at for each in proofs] != [order.closed_at],
            f"{order.id} succeeded and the log does not say so once",
        )
        faults.note(bool(failures), f"{order.id} both succeeded and failed")
    if order.status == "failed":
        faults.note(
            len(failures) != 1,
            f"{order.id} failed and the log says so {len(failures)} times",
        )
    return faults.found


def _proof_missing(
    order: Order, reports: list[Report], heartbeats: list[datetime]
) -> list[str]:
    faults = Faults()
    claims = [
        each for each in reports if each.status == "confirming" and each.was_applied
    ]
    faults.note(not claims, f"{order.id} succeeded without a claim")
    faults.note(
        order.reboot_required
        and not any(each.boot_id != order.boot_id_before for each in claims),
        f"{order.id} succeeded without a reboot",
    )
    beats = [
        at
        for at in heartbeats
        if order.claimed_at is not None
        and order.closed_at is not None
        and order.claimed_at <= at <= order.closed_at + CLOCK_SLACK
    ]
    faults.note(not beats, f"{order.id} succeeded without a heartbeat after its claim")
    return faults.found
