"""A backup is taken while HotSwap runs, and a new installation goes on from it."""

import hashlib
import json
import secrets
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from hotswap.stack.backup import read_backup, restore_backup
from hotswap.stack.errors import StackError
from tests.deployments.agents import (
    AgentDevice,
    direct,
    new_model,
    program,
    running_agents,
)
from tests.deployments.live import LiveAdmin
from tests.live import PROJECT_DIR, LiveStack, clean_environment, running_stack
from tests.waiting import wait_until


def run(*arguments: str | Path) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "hotswap.cli.main", *map(str, arguments)],
        cwd=PROJECT_DIR,
        env=clean_environment(),
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.stack
def test_a_new_installation_goes_on_from_a_backup(
    live_stack: LiveStack, tmp_path: Path
) -> None:
    admin = LiveAdmin(live_stack)
    model = new_model(admin)
    second = admin.upload(model, "2.0.0", program("2.0.0", 20_000))
    third = admin.upload(model, "3.0.0", program("3.0.0", 20_000))
    device = AgentDevice(tmp_path / "device", admin, model, program("1.0.0", 20_000))
    backup, elsewhere = tmp_path / "backup", tmp_path / "elsewhere"

    with running_agents() as agents:
        agents(device)
        update(admin, second, device)
        anchored = run("audit", "--data-dir", live_stack.data_dir, "anchor")
        taken = run("backup", backup, "--data-dir", live_stack.data_dir, "--json")
        again = run("backup", backup, "--data-dir", live_stack.data_dir)
        # Lost to the backup: an order that the device has seen.
        update(admin, third, device)
    restored = run("restore", backup, "--data-dir", elsewhere, "--json")

    assert anchored.returncode == 0, anchored.stderr
    assert taken.returncode == 0, taken.stderr
    anchors = len(list((backup / "audit").glob("anchor-*.json")))
    assert anchors > 0
    assert json.loads(taken.stdout)["files"] > 4
    assert again.returncode == 1
    assert "is there already" in again.stderr
    assert restored.returncode == 0, restored.stderr
    with (
        running_stack(elsewhere, is_prepared=False) as stack,
        running_agents() as agents,
    ):
        other = LiveAdmin(stack)
        # The anchors came along, and the trail goes on from what they vouch for.
        checked = other.get("/audit-events/verify?from=1")
        assert checked["findings"] == []
        assert checked["anchorsCompared"] > anchors
        versions = other.get(f"/firmware?model={model}")["results"]
        assert {each["version"] for each in versions} == {"2.0.0", "3.0.0"}
        looked_at = other.post(f"/firmware/{second['id']}/verify", {}, status=200)
        assert looked_at["damagedAt"] is None
        # Its key is known, and it is updated, though it refuses the first order.
        device.move(stack)
        agents(device)
        wait_until(
            lambda: other.get(f"/devices/{device.name}")["firmwareVersion"] == "3.0.0",
            what="the device tells what it runs",
        )
        deployment = update(other, second, device)
        (row,) = other.get(f"/deployments/{deployment}/devices")["results"]
    assert (row["status"], row["attempt"]) == ("success", 1)
    assert device.running_image() == program("2.0.0", 20_000)
    assert "sequence_replaced" in (device.folder / "agent.log").read_text()


def update(admin: LiveAdmin, firmware: dict[str, Any], device: AgentDevice) -> str:
    deployment = direct(admin, firmware, device.name)
    wait_until(
        lambda: admin.get(f"/deployments/{deployment}")["status"] == "Completed",
        what=f"the update to {firmware['version']}",
    )
    return deployment


@pytest.fixture
def backup(tmp_path: Path) -> Path:
    """A backup as it lies there, of a database that nobody will look at."""
    folder = tmp_path / f"backup-{secrets.token_hex(3)}"
    (folder / "keys").mkdir(parents=True)
    (folder / "database.dump").write_bytes(b"dump")
    (folder / "keys" / "master.key").write_bytes(b"key")
    files = {
        name: hashlib.sha256((folder / name).read_bytes()).hexdigest()
        for name in ("database.dump", "keys/master.key")
    }
    about = {"format": 1, "takenAt": "2026-03-02T12:00:00Z", "files": files}
    (folder / "manifest.json").write_text(json.dumps(about))
    return folder


def test_a_backup_is_read_whole(backup: Path) -> None:
    assert set(read_backup(backup).files) == {"database.dump", "keys/master.key"}


def change(backup: Path) -> str:
    (backup / "keys" / "master.key").write_bytes(b"kex")
    return "keys/master.key .* is damaged"


def remove(backup: Path) -> str:
    (backup / "database.dump").unlink()
    return "database.dump is missing"


def add(backup: Path) -> str:
    (backup / "keys" / "another.key").write_bytes(b"key")
    return "another.key does not belong"


def forget(backup: Path) -> str:
    (backup / "manifest.json").unlink()
    return "is no backup"


@pytest.mark.parametrize("damage", [change, remove, add, forget])
def test_a_damaged_backup_is_refused_before_anything_is_changed(
    backup: Path, tmp_path: Path, damage: Any
) -> None:
    expected = damage(backup)

    with pytest.raises(StackError, match=expected):
        restore_backup(backup, data_dir=tmp_path / "data")

    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize("part", ["keys", "firmware", "audit", "postgres"])
def test_a_restore_overwrites_nothing(backup: Path, tmp_path: Path, part: str) -> None:
    there = tmp_path / "data" / part / "mine"
    there.parent.mkdir(parents=True)
    there.write_text("mine")

    with pytest.raises(StackError, match="is not empty"):
        restore_backup(backup, data_dir=tmp_path / "data")

    assert there.read_text() == "mine"
    shutil.rmtree(tmp_path / "data")


def test_nothing_is_backed_up_where_nothing_runs(tmp_path: Path) -> None:
    done = run("backup", tmp_path / "b", "--data-dir", tmp_path / "d", "--json")

    assert done.returncode == 1
    assert json.loads(done.stderr)["code"] == "not_running"
