"""What the devices know agrees with what is stored, and all have come to an end."""

from collections import defaultdict
from collections.abc import Mapping

from tests.history.rows import (
    FAILURES,
    FINAL_DEPLOYMENTS,
    FINAL_TARGETS,
    PROOFS,
    Faults,
    History,
    Target,
    Witness,
    in_log_order,
)

ENDS = {
    "Completed": "deployment.completed",
    "RolledBack": "deployment.rolled_back",
    "Failed": "deployment.failed",
    "Cancelled": "deployment.cancelled",
}
LAST_WORDS = {
    "success": ("device.updated",),
    "rolled_back": ("device.returned",),
    "failed": FAILURES,
}


def faults_of_devices(history: History, witnesses: Mapping[str, Witness]) -> list[str]:
    """Look for what devices were told otherwise, and for what has not ended."""
    return [
        *_unfinished(history),
        *_reports_lost(history, witnesses),
        *_orders_lost(history, witnesses),
        *_images_wrong(history, witnesses),
    ]


def _unfinished(history: History) -> list[str]:
    faults = Faults()
    status = history.deployment.status
    faults.note(status not in FINAL_DEPLOYMENTS, f"the deployment is still {status}")
    if status in ENDS:
        count = sum(each.event == ENDS[status] for each in history.events)
        faults.note(count == 0, f"the log does not say that it ended as {status}")
        retried = sum(each.event == "deployment.retried" for each in history.events)
        faults.note(count > 1 + retried, f"it ended {count} times as {status}")
    last: dict[str, str] = {}
    for event in in_log_order(history.events):
        if event.event in (*PROOFS, *FAILURES):
            last[event.device] = event.event
    for target in history.targets:
        faults.note(
            target.status not in FINAL_TARGETS,
            f"{target.device} has not come to an end: {target.status}",
        )
        words = LAST_WORDS.get(target.status) if target.is_exposed else None
        word = last.get(target.device)
        faults.note(
            words is not None and word not in words,
            f"{target.device} is {target.status}, the log ends with {word}",
        )
    for order in history.own_orders():
        faults.note(order.closed_at is None, f"{order.id} is still open")
    counted = len(history.targets)
    faults.note(
        counted != history.deployment.target_count,
        f"{counted} targets are stored of {history.deployment.target_count}",
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


def _orders_lost(history: History, witnesses: Mapping[str, Witness]) -> list[str]:
    stored = {(each.device, each.id) for each in history.orders}
    return [
        f"{device} was given an order that is not stored: {order}"
        for device, witness in witnesses.items()
        for order in witness.orders
        if (device, order) not in stored
    ]


def _images_wrong(history: History, witnesses: Mapping[str, Witness]) -> list[str]:
    """Compare what each device ran with its orders and with where it should be."""
    faults = Faults()
    ordered: dict[str, set[str]] = defaultdict(set)
    installed: dict[str, str] = {}
    for order in sorted(history.orders, key=lambda each: each.offered_at):
        ordered[order.device].add(order.checksum)
        if order.deployment == history.deployment.id and order.kind == "install":
            installed[order.device] = order.checksum
    targets: dict[str, Target] = {each.device: each for each in history.targets}
    for device, witness in witnesses.items():
        if not witness.ran:
            continue
        for image in witness.ran[1:]:
            faults.note(
                image not in ordered[device] and image != witness.ran[0],
                f"{device} ran {image[:16]}, which it was not ordered to",
            )
        target = targets.get(device)
        if target is None:
            continue
        expected = {
            "success": installed.get(device),
            "rolled_back": target.from_checksum,
        }.get(target.status)
        faults.note(
            expected is not None and witness.ran[-1] != expected,
            f"{device} is {target.status} and runs {witness.ran[-1][:16]}",
        )
    return faults.found
