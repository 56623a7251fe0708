"""The checker of histories finds what it is there for."""

from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.history import (
    Deployment,
    Event,
    History,
    Order,
    Reading,
    Report,
    Stage,
    Target,
    Witness,
    faults_in,
)


def at(seconds: float) -> datetime:
    return datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=seconds)


# Two devices, one after the other: a canary of 50 and 100 % with 10 s in between.
WORDS = ("downloading", "verifying", "installing", "rebooting", "confirming")


def order_of(device: int, begin: float) -> Order:
    return Order(
        id=f"order-{device}",
        deployment="deployment",
        device=f"device-{device}",
        kind="install",
        checksum="new",
        version="2.0.0",
        status="success",
        reboot_required=True,
        boot_id_before="boot-1",
        offered_at=at(begin + 1),
        last_sequence=5,
        claimed_at=at(begin + 6),
        closed_at=at(begin + 8),
    )


def reports_of(device: int, begin: float) -> tuple[Report, ...]:
    return tuple(
        Report(
            number=10 * device + sequence,
            order=f"order-{device}",
            received_at=at(begin + 1 + sequence),
            sequence=sequence,
            status=word,
            was_applied=True,
            boot_id="boot-2" if word == "confirming" else "boot-1",
        )
        for sequence, word in enumerate(WORDS, 1)
    )


def events_of(stage: int, begin: float) -> tuple[Event, ...]:
    device = f"device-{stage}"
    lines = (
        ("stage.opened", 0, ""),
        ("device.notified", 1, device),
        ("device.installing", 4, device),
        ("device.rebooting", 5, device),
        ("device.claimed", 6, device),
        ("device.updated", 8, device),
        ("stage.settled", 8, ""),
        ("stage.passed", 18, ""),
    )
    return tuple(
        Event(100 * stage + index, at(begin + second), word, who, stage)
        for index, (word, second, who) in enumerate(lines)
    )


RIGHT = History(
    deployment=Deployment(
        id="deployment",
        status="Completed",
        target_count=2,
        health_threshold=99.0,
        shares=(50, 100),
    ),
    stages=(
        Stage(1, 1, 1, 10.0, at(0), at(18)),
        Stage(2, 2, 1, 10.0, at(18), at(36)),
    ),
    targets=(
        Target("device-1", 1, 1, "success", "old"),
        Target("device-2", 2, 2, "success", "old"),
    ),
    events=(
        *events_of(1, 0),
        *events_of(2, 18),
        Event(300, at(36), "deployment.completed"),
    ),
    orders=(order_of(1, 0), order_of(2, 18)),
    reports=(*reports_of(1, 0), *reports_of(2, 18)),
    readings=(
        Reading("device-1", at(7), "2.0.0"),
        Reading("device-2", at(25), "2.0.0"),
    ),
)
WITNESSES = {
    f"device-{number}": Witness(
        ran=("old", "new"),
        acknowledged=tuple(
            (f"order-{number}", sequence, word)
            for sequence, word in enumerate(WORDS, 1)
        ),
        orders=(f"order-{number}",),
    )
    for number in (1, 2)
}


def test_right_history_has_no_faults() -> None:
    assert faults_in(RIGHT, WITNESSES) == []


# How to spoil a history

Row = Any
Spoil = Callable[[History], History]


def with_rows(history: History, kind: str, rows: Iterable[Row]) -> History:
    changed: dict[str, Any] = {kind: tuple(rows)}
    return replace(history, **changed)


def change(kind: str, which: Callable[[Row], bool], **values: Any) -> Spoil:
    """Change the rows of a kind that are meant."""

    def spoil(history: History) -> History:
        rows = getattr(history, kind)
        assert any(which(row) for row in rows)
        changed = (replace(row, **values) if which(row) else row for row in rows)
        return with_rows(history, kind, changed)

    return spoil


def drop(kind: str, which: Callable[[Row], bool]) -> Spoil:
    """Drop the rows of a kind that are meant."""

    def spoil(history: History) -> History:
        rows = getattr(history, kind)
        assert any(which(row) for row in rows)
        return with_rows(history, kind, (row for row in rows if not which(row)))

    return spoil


def add(kind: str, *more: Row) -> Spoil:
    def spoil(history: History) -> History:
        return with_rows(history, kind, (*getattr(history, kind), *more))

    return spoil


def line(event: str, stage: int) -> Callable[[Row], bool]:
    return lambda row: row.event == event and row.stage == stage


def is_first(row: Row) -> bool:
    return str(row.id) == "order-1"


def is_report(sequence: int) -> Callable[[Row], bool]:
    return lambda row: row.order == "order-1" and row.sequence == sequence


def of_device_1(row: Row) -> bool:
    return str(row.device) == "device-1"


SECOND_ORDER = replace(order_of(1, 0), id="order-3", deployment="other")
LATE_REPORT = replace(RIGHT.reports[0], number=19, sequence=6)


@pytest.mark.parametrize(
    ("spoil", "fault"),
    [
        # No device in two orders at once.
        (
            lambda history: add(
                "orders", replace(SECOND_ORDER, offered_at=at(20), closed_at=at(30))
            )(change("orders", is_first, closed_at=None)(history)),
            "two open orders",
        ),
        (
            add("events", Event(102, at(2), "device.notified", "device-1", 1)),
            "two open orders",
        ),
        # No transition lost, none done twice.
        (drop("events", line("device.installing", 1)), "lost or done twice"),
        (
            add("events", Event(105, at(7), "device.claimed", "device-1", 1)),
            "lost or done twice",
        ),
        (drop("events", line("device.updated", 1)), "does not say so once"),
        (
            add("events", Event(105, at(8), "device.updated", "device-1", 1)),
            "2 lines of its proof",
        ),
        (drop("events", line("device.notified", 1)), "are in the log"),
        (drop("orders", is_first), "in the log and none is stored"),
        (
            change("events", line("device.updated", 1), event="device.returned"),
            "proved as something else",
        ),
        (
            change("orders", is_first, status="failed", error_code="timeout"),
            "failed and the log says so 0 times",
        ),
        (
            add("events", Event(105, at(8), "device.failed", "device-1", 1, ": no")),
            "both succeeded and failed",
        ),
        # No report lost, none applied twice.
        (drop("reports", is_report(1)), "is not stored"),
        (
            change("reports", is_report(3), was_applied=False),
            "lost or done twice",
        ),
        (
            lambda history: change(
                "orders",
                is_first,
                closed_at=at(90),
            )(change("reports", is_report(1), was_applied=False)(history)),
            "was acknowledged and has no effect",
        ),
        (
            add("reports", replace(RIGHT.reports[0], number=14)),
            "was applied a second time",
        ),
        (add("reports", LATE_REPORT), "was applied after a claim"),
        (change("orders", is_first, last_sequence=4), "stands at sequence 4"),
        (change("orders", is_first, claimed_at=at(5)), "its claim came at"),
        # Success only with proof.
        (drop("reports", is_report(5)), "succeeded without a claim"),
        (change("reports", is_report(5), boot_id="boot-1"), "without a reboot"),
        (change("readings", of_device_1, at=at(5)), "without a heartbeat"),
        (change("readings", of_device_1, at=at(90)), "without a heartbeat"),
        (change("readings", of_device_1, version="1.0.0"), "without a heartbeat"),
        # No gate escaped.
        (drop("events", line("stage.passed", 1)), "opened before 1 had passed"),
        (
            change("events", line("stage.opened", 2), number=99),
            "opened out of turn",
        ),
        (change("events", line("stage.passed", 2), at=at(27)), "before its wait"),
        (drop("events", line("stage.settled", 1)), "without having settled"),
        (
            change("events", line("stage.passed", 1), number=104),
            "with 1 devices at work",
        ),
        (
            change("events", line("stage.passed", 1), number=100),
            "with 0 of 1 devices exposed",
        ),
        (
            lambda history: add(
                "events",
                Event(105, at(8), "device.failed", "device-1", 1, "timeout: late"),
            )(drop("events", line("device.updated", 1))(history)),
            "at 0.0 % without a warning",
        ),
        (
            add("events", Event(108, at(18), "stage.passed", "", 1)),
            "a second stage.passed",
        ),
        (change("stages", lambda row: row.number == 2, opened_at=None), "its row or"),
        # No exposure above its share.
        (
            change("events", line("device.notified", 2), number=102),
            "before its stage was open",
        ),
        (
            change("events", line("device.notified", 2), number=102),
            "2 devices are exposed, 1 may be",
        ),
        (change("stages", lambda row: row.number == 1, boundary=3), "is no share of"),
        # Everything has come to an end.
        (change("targets", of_device_1, status="rebooting"), "not come to an end"),
        (change("targets", of_device_1, status="failed"), "the log ends with"),
        (change("orders", is_first, closed_at=None), "order-1 is still open"),
        (drop("targets", of_device_1), "1 targets are stored of 2"),
        (
            drop("events", lambda row: row.event == "deployment.completed"),
            "does not say that it ended",
        ),
        (
            add("events", Event(301, at(37), "deployment.completed")),
            "it ended 2 times",
        ),
        (
            lambda history: replace(
                history, deployment=replace(history.deployment, status="Running")
            ),
            "still Running",
        ),
    ],
)
def test_planted_defect_is_found(spoil: Spoil, fault: str) -> None:
    found = faults_in(spoil(RIGHT), WITNESSES)

    assert any(fault in each for each in found), found


def hot(*seconds: float, **fields: Any) -> Spoil:
    """Let device 1 send heartbeats that exceed the limit of its CPU."""
    values = {"cpu": 99.0, "memory": 20.0, "errors": 0.0} | fields
    return add(
        "readings",
        *(Reading("device-1", at(second), "2.0.0", **values) for second in seconds),
    )


def failed_as(code: str, second: float) -> Spoil:
    """Let device 1 fail after its proof."""

    def spoil(history: History) -> History:
        history = change("orders", is_first, status="failed", error_code=code)(history)
        history = change("targets", of_device_1, status="failed")(history)
        line = Event(250, at(second), "device.failed", "device-1", 1, f"{code}: so")
        return add("events", line)(history)

    return spoil


FIVE_MINUTES = range(60, 400, 30)


@pytest.mark.parametrize(
    "spoil",
    [
        hot(*FIVE_MINUTES),
        hot(*FIVE_MINUTES, cpu=5.0, memory=96.0),
        hot(60, 120, cpu=5.0, errors=0.2),
    ],
)
def test_success_beside_a_breach_is_found(spoil: Spoil) -> None:
    found = faults_in(spoil(RIGHT), WITNESSES)

    assert any("is a success and breached" in each for each in found), found


@pytest.mark.parametrize(
    "spoil",
    [
        # Not for long enough; with a break; over and over, but never heard meanwhile.
        hot(*range(60, 350, 30)),
        lambda history: hot(*FIVE_MINUTES)(hot(200, cpu=5.0)(history)),
        hot(60, 260, 500),
        # Exempt, and after the watch.
        lambda history: change("orders", is_first, exempt=("cpu",))(
            hot(*FIVE_MINUTES)(history)
        ),
        lambda history: replace(
            hot(*FIVE_MINUTES)(history),
            deployment=replace(
                history.deployment,
                finished_at=at(40),
                watch_duration=timedelta(minutes=5),
            ),
        ),
    ],
)
def test_what_is_no_breach_is_no_defect(spoil: Spoil) -> None:
    assert faults_in(spoil(RIGHT), WITNESSES) == []


@pytest.mark.parametrize("code", ["cpu", "offline", "fell_back", "download_failed"])
def test_failure_without_evidence_is_found(code: str) -> None:
    spoilt = failed_as(code, 60)(hot(20, 40, 60, cpu=5.0)(RIGHT))

    found = faults_in(spoilt, WITNESSES)

    assert any("nothing that it gave shows that" in each for each in found), found


def test_failure_with_evidence_is_no_defect() -> None:
    for spoilt in (
        failed_as("cpu", 390)(hot(*FIVE_MINUTES)(RIGHT)),
        failed_as("offline", 130)(RIGHT),
        failed_as("fell_back", 60)(
            add("readings", Reading("device-1", at(55), "1.0.0"))(RIGHT)
        ),
    ):
        found = faults_in(spoilt, WITNESSES)

        assert not any("nothing that it gave" in each for each in found), found


def test_silence_that_an_outage_explains_is_no_evidence() -> None:
    silent = failed_as("offline", 130)(RIGHT)
    away = replace(silent.deployment, awake_since=at(60))

    found = faults_in(replace(silent, deployment=away), WITNESSES)

    assert any("failed as offline and nothing" in each for each in found), found


def test_rollback_of_a_gate_without_a_failure_is_found() -> None:
    begun = add("events", Event(260, at(40), "rollback.started", "", 1, "stage 1"))

    found = faults_in(begun(RIGHT), WITNESSES)

    assert any("though no device had failed" in each for each in found), found


def test_ordered_bytes_under_another_version_are_no_defect() -> None:
    called_otherwise = change("readings", of_device_1, version="1.0.0")
    warned = add(
        "events", Event(109, at(8), "device.version_label_differs", "device-1", 1)
    )

    assert faults_in(warned(called_otherwise(RIGHT)), WITNESSES) == []


@pytest.mark.parametrize(
    ("witness", "fault"),
    [
        (Witness(acknowledged=(("order-1", 6, "failed"),)), "is not stored"),
        (Witness(orders=("order-9",)), "was given an order that is not stored"),
        (Witness(ran=("old", "foreign", "new")), "which it was not ordered to"),
        (Witness(ran=("old", "new", "old")), "is success and runs old"),
    ],
)
def test_contradiction_of_a_device_is_found(witness: Witness, fault: str) -> None:
    found = faults_in(RIGHT, {"device-1": witness})

    assert any(fault in each for each in found), found
