"""Heartbeats that are refused: counted, shown, and no silence."""

from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone
from prometheus_client import REGISTRY

from devices.models import Device
from health.models import DeviceState
from health.services.refusals import note_refused_heartbeat
from tests.api import Caller, problem_of
from tests.callers import PersonCaller

BODY = {
    "cpuUsage": 5,
    "memoryUsage": 20,
    "uptime": 10,
    "bootId": "boot-1",
    "firmwareVersion": "1.0.0",
    "firmwareChecksum": "a" * 64,
}


@pytest.fixture
def path(device: Device) -> str:
    return f"/devices/{device.device_id}/health"


def refused(viewer: PersonCaller, path: str) -> Any:
    return viewer.get(path).json()["refusedHeartbeats"]


@pytest.mark.parametrize(
    "raw", [b"{", b"[]", b"{}", b'{"cpuUsage": 1}', b"\xff", b"[" * 99 + b"]" * 99]
)
def test_what_is_refused_is_counted_and_shown_until_one_is_taken(
    device: Device,
    device_caller: Caller,
    viewer: PersonCaller,
    path: str,
    raw: bytes,
) -> None:
    for _ in range(3):
        problem_of(device_caller.post(path, raw=raw), 400)
    shown = refused(viewer, path)
    device_caller.post(path, BODY)

    assert shown["count"] == 3
    assert shown["reason"]
    assert refused(viewer, path) is None


def test_a_refused_heartbeat_is_a_sign_of_life(
    device: Device, device_caller: Caller, viewer: PersonCaller, path: str
) -> None:
    device_caller.post(path, BODY)
    long_ago = timezone.now() - timedelta(hours=1)
    DeviceState.objects.update(last_seen_at=long_ago, online_until=long_ago)

    device_caller.post(path, {})

    assert viewer.get(f"/devices/{device.device_id}").json()["status"] == "online"
    health = viewer.get(path).json()
    assert (health["status"], health["reason"]) == (
        "Unknown",
        "its heartbeats are refused",
    )
    assert health["cpuUsage"] == 5


def test_a_device_that_was_only_ever_refused_is_known_to_be_so(
    device_caller: Caller, viewer: PersonCaller, path: str
) -> None:
    device_caller.post(path, {})

    assert viewer.get(path).json()["reason"] == "its heartbeats are refused"


def test_who_is_not_let_in_is_not_counted(device: Device, path: str) -> None:
    Caller(token="no-token").post(path, {})

    assert not DeviceState.objects.exists()


def test_a_long_reason_is_cut(device: Device) -> None:
    note_refused_heartbeat(device=device, reason="x" * 999, now=timezone.now())

    assert len(DeviceState.objects.get().refused_reason) == 200


def test_both_are_metrics(device_caller: Caller, path: str) -> None:
    def read() -> tuple[float, float]:
        labels = {"code": "unknown"}
        return (
            REGISTRY.get_sample_value("hotswap_heartbeats_refused_total") or 0,
            REGISTRY.get_sample_value("hotswap_heartbeat_fields_ignored_total", labels)
            or 0,
        )

    before = read()
    device_caller.post(path, {})
    device_caller.post(path, BODY | {"surplus": 1})

    assert read() == (before[0] + 1, before[1] + 1)
