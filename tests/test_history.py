"""The checker of histories finds what it is there for."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from tests.history import (
    History,
    Order,
    Reading,
    Report,
    Stage,
    Witness,
    faults_in,
)


def at(seconds: int) -> datetime:
    return datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=seconds)


ORDER = Order(
    id="order-1",
    device="device-1",
    checksum="new",
    version="2.0.0",
    status="success",
    reboot_required=True,
    boot_id_before="boot-1",
    offered_at=at(0),
    claimed_at=at(10),
    closed_at=at(20),
)
CLAIM = Report("order-1", 5, "confirming", "boot-2")
RIGHT = History(
    orders=(ORDER,),
    stages=(Stage(1, at(0), at(20)), Stage(2, at(20))),
    reports=(CLAIM,),
    readings=(Reading("device-1", at(15), "2.0.0"),),
)
WITNESSES = {
    "device-1": Witness(
        ran=("old", "new"), acknowledged=(("order-1", 5, "confirming"),)
    )
}


def test_right_history_has_no_faults() -> None:
    assert faults_in(RIGHT, WITNESSES) == []


@pytest.mark.parametrize(
    ("history", "fault"),
    [
        (
            replace(RIGHT, orders=(ORDER, replace(ORDER, id="2", offered_at=at(19)))),
            "two open orders",
        ),
        (
            replace(RIGHT, stages=(Stage(1, at(0)), Stage(2, at(20)))),
            "opened before 1 had passed",
        ),
        (
            replace(RIGHT, stages=(Stage(1, at(0), at(9)), Stage(2, at(8)))),
            "opened before 1 had passed",
        ),
        (replace(RIGHT, reports=()), "is not stored"),
        (replace(RIGHT, reports=()), "without a claim"),
        (
            replace(RIGHT, reports=(replace(CLAIM, boot_id="boot-1"),)),
            "without a reboot",
        ),
        (
            replace(RIGHT, readings=(Reading("device-1", at(9), "2.0.0"),)),
            "without a heartbeat",
        ),
        (replace(RIGHT, orders=()), "not ordered to"),
    ],
)
def test_fault_is_found(history: History, fault: str) -> None:
    assert any(fault in found for found in faults_in(history, WITNESSES))
