"""A running stack whose parts are killed, emptied and damaged."""

import random
import time
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis

from tests.campaign import OUTCOME, SEED, is_wanted
from tests.deployments.agents import (
    QUICK_CRITERIA,
    AgentDevice,
    StartAgent,
    direct,
    new_model,
    program,
    running_agents,
)
from tests.deployments.live import LiveAdmin, LiveDevice, assert_right_history
from tests.live import LiveStack, running_stack
from tests.waiting import wait_until

pytestmark = pytest.mark.stack

WAIT_SECONDS = 2
FINAL = ("Completed", "RolledBack", "Failed", "Cancelled")


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveStack]:
    """A stack of its own: it is hurt here."""
    with running_stack(tmp_path_factory.mktemp("faults") / "data") as running:
        yield running


@pytest.fixture(scope="module")
def admin(stack: LiveStack) -> LiveAdmin:
    return LiveAdmin(stack)


def canary(admin: LiveAdmin, model: str, count: int) -> tuple[str, list[LiveDevice]]:
    """Launch a canary of 2.0.0 on devices that run 1.0.0."""
    old = admin.upload(model, "1.0.0", b"old" * 1000)
    new = admin.upload(model, "2.0.0", b"new" * 1000)
    devices = admin.register(model, count, old)
    for device in devices:
        device.beat()
    deployment = admin.post(
        "/deployments",
        {
            "firmwareId": new["id"],
            "strategy": "Canary",
            "targetDevices": [device.name for device in devices],
            "initialPercentage": 40,
            "increments": [70, 100],
            "waitDuration": f"PT{WAIT_SECONDS}S",
            **QUICK_CRITERIA,
        },
    )
    return deployment["id"], devices


def run_until(
    admin: LiveAdmin,
    deployment: str,
    devices: list[LiveDevice],
    done: Any,
    seconds: float = 60,
) -> dict[str, Any]:
    """Let all devices step, over and over, until the status is as wanted."""

    def look() -> dict[str, Any] | None:
        for device in devices:
            device.step()
        status: dict[str, Any] = admin.get(f"/deployments/{deployment}/status")
        return status if done(status) else None

    found = wait_until(look, seconds=seconds, what=f"{deployment} as wanted")
    assert found is not None
    return found


def moments(admin: LiveAdmin, deployment: str, event: str) -> list[datetime]:
    rows = admin.get(f"/deployments/{deployment}/logs?event={event}&pageSize=200")
    return sorted(datetime.fromisoformat(row["at"]) for row in rows["results"])


def assert_clean_history(
    admin: LiveAdmin, deployment: str, devices: list[LiveDevice]
) -> None:
    """No device twice, no stage early: read from the log and from the devices."""
    updated = admin.get(
        f"/deployments/{deployment}/logs?event=device.updated&pageSize=200"
    )["results"]
    assert sorted(row["deviceId"] for row in updated) == sorted(
        device.name for device in devices
    )
    assert [len(device.orders_seen) for device in devices] == [1] * len(devices)
    opened = moments(admin, deployment, "stage.opened")
    settled = moments(admin, deployment, "stage.settled")
    assert len(opened) == len(settled) == 3
    for done, following in zip(settled, opened[1:], strict=False):
        assert following - done >= timedelta(seconds=WAIT_SECONDS)
    assert_right_history(admin.stack, deployment, devices)


def test_worker_beat_and_redis_may_vanish_in_the_middle_of_a_stage(
    stack: LiveStack, admin: LiveAdmin
) -> None:
    deployment, devices = canary(admin, new_model(admin), 5)
    run_until(
        admin, deployment, devices, lambda status: status["stages"][0]["exposed"] == 2
    )

    before = {name: stack.kill(name) for name in ("worker", "beat")}
    redis.Redis.from_url(stack.state()["redis_url"]).flushall()
    wait_until(
        lambda: all(
            stack.pid(name) not in (None, before[name]) for name in ("worker", "beat")
        ),
        what="worker and beat are back",
    )
    back = time.monotonic()
    wait_until(
        lambda: (
            httpx.get(f"{stack.url}/health/ready").json()["lastTickSecondsAgo"]
            < time.monotonic() - back
        ),
        seconds=30,
        what="a tick after the return",
    )
    status = run_until(
        admin, deployment, devices, lambda status: status["status"] in FINAL
    )
    assert status["status"] == "Completed"
    assert status["progress"]["success"] == 5
    assert_clean_history(admin, deployment, devices)


@pytest.mark.parametrize("name", ["web", "redis", "postgres"])
def test_any_other_part_may_be_killed_in_the_middle_of_a_stage(
    stack: LiveStack, admin: LiveAdmin, name: str
) -> None:
    deployment, devices = canary(admin, new_model(admin), 5)
    run_until(
        admin, deployment, devices, lambda status: status["stages"][0]["exposed"] == 2
    )

    before = stack.kill(name)
    wait_until(lambda: stack.pid(name) not in (None, before), what=f"{name} is back")
    wait_until(lambda: _answers(stack), seconds=30, what="the server answers again")

    status = run_until(
        admin, deployment, devices, lambda status: status["status"] in FINAL
    )
    assert status["status"] == "Completed"
    assert_clean_history(admin, deployment, devices)


def _answers(stack: LiveStack) -> bool:
    try:
        return httpx.get(f"{stack.url}/health/ready", timeout=30).status_code == 200
    except httpx.HTTPError:
        return False


PARTS = ("web", "worker", "beat", "redis", "postgres")
ROUNDS = 6
KILLS_PER_ROUND = 3


def step_or_leave(device: LiveDevice) -> None:
    """Do the next step, or leave it for the next time if the server is away.

    The same word is said again under the same sequence until it is acknowledged.
    """
    try:
        device.beat()
        device.poll()
        if device.order is None or not device.words:
            return
        if device.sequence < len(device.words_said) + 1:
            if device.words[0] == "confirming":
                device.reboot()
            device.sequence += 1
        if device.words[0] == "confirming":
            device.beat()
        if device.report_again(device.words[0]) == 200:
            device.words_said.append(device.words.pop(0))
    except (httpx.HTTPError, AssertionError):
        # Cut off in an answer, or told 5xx by a server that lacks a part.
        return


@pytest.mark.campaign
@pytest.mark.parametrize("number", range(ROUNDS))
def test_any_parts_may_be_killed_at_any_time(
    stack: LiveStack, admin: LiveAdmin, number: int
) -> None:
    case = f"servers:{number}"
    if not is_wanted(case):
        return
    chance = random.Random(f"{SEED}-{case}")
    kills = [chance.choice(PARTS) for _ in range(KILLS_PER_ROUND)]
    after_looks = [chance.randrange(1, 12) for _ in kills]
    deployment, devices = canary(admin, new_model(admin), 5)

    def look() -> bool:
        for device in devices:
            step_or_leave(device)
        if kills and stack.pid(kills[0]) is not None:
            after_looks[0] -= 1
            if after_looks[0] <= 0:
                stack.kill(kills.pop(0))
                after_looks.pop(0)
        try:
            status = admin.get(f"/deployments/{deployment}/status")
        except (httpx.HTTPError, AssertionError):
            return False
        return status["status"] in FINAL

    OUTCOME.tried["servers"] += 1
    try:
        wait_until(look, seconds=180, what=f"the end of {deployment}")
        wait_until(lambda: _answers(stack), seconds=60, what="the server answers")
        assert admin.get(f"/deployments/{deployment}")["status"] == "Completed"
        assert_right_history(stack, deployment, devices)
    except AssertionError as error:
        OUTCOME.wrong[case] = str(error)
        raise


@pytest.fixture
def agents() -> Iterator[StartAgent]:
    """Start agents, and end them afterwards."""
    with running_agents() as start:
        yield start


def test_a_real_agent_updates_against_a_real_server(
    admin: LiveAdmin, agents: StartAgent, tmp_path: Path
) -> None:
    model = new_model(admin)
    old, new = program("1.0.0", 20_000), program("2.0.0", 300_000)
    admin.upload(model, "1.0.0", old)
    firmware = admin.upload(model, "2.0.0", new)
    device = AgentDevice(tmp_path / "device", admin, model, old)
    agents(device)

    deployment = direct(admin, firmware, device.name)

    wait_until(
        lambda: admin.get(f"/deployments/{deployment}/status")["status"] == "Completed",
        seconds=60,
        what="the agent has proved itself",
    )
    shown = admin.get(f"/devices/{device.name}")
    assert shown["firmwareVersion"] == "2.0.0"
    assert shown["firmwareChecksum"] == firmware["checksum"]
    assert shown["previousFirmwareVersion"] == "1.0.0"


def test_a_flipped_byte_in_the_stored_image_is_refused_and_shown(
    stack: LiveStack, admin: LiveAdmin, agents: StartAgent, tmp_path: Path
) -> None:
    model = new_model(admin)
    old, new = program("1.0.0", 20_000), program("2.0.0", 300_000)
    admin.upload(model, "1.0.0", old)
    known = set((stack.data_dir / "firmware/images").iterdir())
    firmware = admin.upload(model, "2.0.0", new)
    (stored,) = set((stack.data_dir / "firmware/images").iterdir()) - known
    content = bytearray(stored.read_bytes())
    content[200_000] ^= 1
    stored.write_bytes(content)
    device = AgentDevice(tmp_path / "device", admin, model, old)
    agents(device)

    deployment = direct(admin, firmware, device.name)

    status = wait_until(
        lambda: _when(
            admin.get(f"/deployments/{deployment}/status"), "Paused", "RolledBack"
        ),
        seconds=60,
        what="the damage is noticed",
    )
    assert status is not None
    shown = admin.get(f"/firmware/{firmware['id']}")
    assert shown["damagedAt"] is not None
    assert "does not verify" in shown["damage"]
    verbs = admin.get(f"/audit-events?objectId={firmware['id']}")["results"]
    assert "firmware.damaged" in {row["verb"] for row in verbs}
    assert status["progress"]["success"] == 0
    wait_until(
        lambda: (
            admin.get(f"/deployments/{deployment}/devices/{device.name}")["errorCode"]
            == "download_failed"
        ),
        seconds=60,
        what="the agent has given up and said why",
    )
    assert device.running_image() == old
    assert admin.get(f"/devices/{device.name}")["firmwareVersion"] == "1.0.0"


def _when(status: dict[str, Any], *wanted: str) -> dict[str, Any] | None:
    return status if status["status"] in wanted else None
