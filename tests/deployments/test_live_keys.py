"""Keys turned by commands under a running stack, and what real agents make of it."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.deployments.agents import (
    AgentDevice,
    StartAgent,
    direct,
    new_model,
    program,
    running_agents,
)
from tests.deployments.live import LiveAdmin
from tests.live import PROJECT_DIR, LiveStack, clean_environment, running_stack
from tests.waiting import wait_until

pytestmark = pytest.mark.stack


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveStack]:
    """A stack of its own: its keys are turned here."""
    with running_stack(tmp_path_factory.mktemp("keys") / "data") as running:
        yield running


@pytest.fixture
def admin(stack: LiveStack) -> LiveAdmin:
    return LiveAdmin(stack)


@pytest.fixture
def agents() -> Iterator[StartAgent]:
    with running_agents() as start:
        yield start


def keys(stack: LiveStack, *words: str) -> Any:
    """Run `hotswap keys ...` as a process of its own, and give its JSON."""
    done = subprocess.run(
        [*(sys.executable, "-m", "hotswap.cli.main", "keys"), *words, "--json"],
        cwd=PROJECT_DIR,
        env={**clean_environment(), "HOTSWAP_DATA_DIR": str(stack.data_dir)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def listed(admin: LiveAdmin) -> dict[str, str]:
    return {key["keyId"]: key["status"] for key in admin.get("/signing-keys")}


def status_of(admin: LiveAdmin, deployment: str) -> str:
    status: str = admin.get(f"/deployments/{deployment}/status")["status"]
    return status


def test_agents_of_either_key_go_through_a_rotation_and_the_old_key_is_given_up(
    stack: LiveStack,
    admin: LiveAdmin,
    agents: StartAgent,
    tmp_path: Path,
) -> None:
    model, factory = new_model(admin), program("1.0.0", 20_000)
    admin.upload(model, "1.0.0", factory)
    before = admin.upload(model, "2.0.0", program("2.0.0", 100_000))
    (old,) = listed(admin)
    of_old = AgentDevice(tmp_path / "old", admin, model, factory)

    new = keys(stack, "rotate-signing")["keyId"]
    of_new = AgentDevice(tmp_path / "new", admin, model, factory)
    assert listed(admin) == {old: "Retiring", new: "Active"}
    agents(of_old)
    agents(of_new)
    first = [direct(admin, before, each.name) for each in (of_old, of_new)]
    wait_until(
        lambda: [status_of(admin, each) for each in first] == ["Completed"] * 2,
        what="both agents run 2.0.0",
    )

    keys(stack, "revoke", old, "--reason", "leaked", "--yes")
    wrapping = keys(stack, "rotate-storage")
    (unused,) = wrapping["retired"]
    keys(stack, "delete", unused, "--yes")
    assert listed(admin) == {new: "Active"}
    after = admin.upload(model, "3.0.0", program("3.0.0", 100_000))
    assert after["keyId"] == new
    second = [direct(admin, after, each.name) for each in (of_old, of_new)]
    wait_until(
        lambda: status_of(admin, second[1]) == "Completed",
        what="the agent of the new key runs 3.0.0",
    )
    refused = wait_until(
        lambda: admin.get(f"/deployments/{second[0]}/logs?event=device.failed")[
            "results"
        ],
        what="the agent of the old key has refused",
    )
    assert {line["deviceId"] for line in refused} == {of_old.name}
    assert all("unknown_key" in line["message"] for line in refused)
    assert admin.get(f"/devices/{of_old.name}")["firmwareVersion"] == "2.0.0"
