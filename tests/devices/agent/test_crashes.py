"""Killed with SIGKILL at every step, the agent comes back and goes on rightly.

Points of `devices.agent.crashpoints` are tried once: the agent dies there, the disk
is looked at, the agent is started again and must bring the order to its right end. The
points of one way run side by side, each on a device of its own.
"""

import json
import random
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from devices.agent.crashpoints import POINTS
from tests.devices.agent.device_process import (
    CRASHING_PROGRAM,
    TRIED,
    DeviceProcess,
    program,
    sha256,
)
from tests.devices.agent.protocol_server import (
    ProtocolServer,
    Signer,
    serving,
    write_keys,
)
from tests.waiting import wait_until

SIDE_BY_SIDE = 6
FACTORY = program("1.0.0")
FORMER = program("2.0.0")
GOOD = program("3.0.0")
BAD = program("4.0.0", source=CRASHING_PROGRAM)

PROVISION_POINTS = frozenset(
    point
    for point in TRIED
    if point.startswith(("install.", "switch.link", "switch.synced", "provision."))
)
FALL_BACK_POINTS = frozenset(
    point
    for point in TRIED
    if point.startswith(
        ("store.reverting.", "store.failing.", "fall_back.", "failure.")
    )
)
OTHER_WAYS = ("provision.", "rotate.", "enrol.", "hooks.")
"""Ways tried here under another name, or in `test_credentials` and `test_hooks`."""
UPDATE_POINTS = frozenset(
    point
    for point in TRIED
    if point not in FALL_BACK_POINTS and not point.startswith(OTHER_WAYS)
)


@pytest.fixture(scope="module")
def template(
    tmp_path_factory: pytest.TempPathFactory, signer: Signer
) -> Iterator[DeviceProcess]:
    """A device that runs 2.0.0 and keeps 1.0.0, switched off."""
    folder = tmp_path_factory.mktemp("template")
    with serving(signer) as server:
        keys = write_keys(folder / "keys", signer)
        device = DeviceProcess(folder / "device", server, keys)
        device.provision()
        server.order(device.device_id, FORMER, "2.0.0")
        assert device.start("--once").wait(180) == 0
        yield device


class Tried:
    """One device on which one crash is tried."""

    def __init__(
        self, point: str, server: ProtocolServer, folder: Path, keys: list[Path]
    ) -> None:
        self.point = point
        name = point.replace(".", "-") or "random"
        self.device = DeviceProcess(folder / name, server, keys, device_id=name)

    def copy(self, template: DeviceProcess) -> None:
        shutil.copytree(template.folder, self.device.folder, symlinks=True)
        self.device.provision()

    def crash(self) -> None:
        code = self.device.start(crash_at=self.point).wait(180)
        assert code == -signal.SIGKILL, f"not killed but {code}"

    def check_disk(self, verified: set[str], *, may_be_bare: bool = False) -> None:
        """What would boot is whole, and nothing else ever ran."""
        current = self.device.data / "current"
        if current.is_symlink() or not may_be_bare:
            record = json.loads((current / "record.json").read_text())
            assert self.device.current_sha256() == record["sha256"]
            assert record["sha256"] in verified
        assert set(self.device.executed()) <= verified

    def finish(self, image: bytes) -> None:
        """The agent settles on this image."""
        server = self.device.server
        name = self.device.device_id
        before = len(server.heartbeats_of(name))

        def has_settled() -> bool:
            beats = server.heartbeats_of(name)[before:]
            return (
                bool(beats)
                and beats[-1]["firmwareChecksum"] == sha256(image)
                and beats[-1]["applicationMetrics"]["applicationRunning"] == 1
                and name not in server.orders
                and self.device.state_phase() == "idle"
            )

        self.device.start()
        try:
            wait_until(has_settled, what="the right image")
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.device.log()}") from error
        assert self.device.current_sha256() == sha256(image)
        assert self.device.stop() == 0


def try_all(
    points: frozenset[str],
    server: ProtocolServer,
    folder: Path,
    attempt: Callable[[Tried], None],
) -> dict[str, str]:
    """Try each point on a device of its own; give what went wrong by point."""
    keys = write_keys(folder / "keys", server.signer)
    wrong: dict[str, str] = {}

    def try_one(point: str) -> None:
        tried = Tried(point, server, folder, keys)
        try:
            attempt(tried)
        except AssertionError as error:
            wrong[point] = str(error)
        finally:
            tried.device.kill()

    with ThreadPoolExecutor(SIDE_BY_SIDE) as pool:
        list(pool.map(try_one, sorted(points)))
    return wrong


def test_every_point_belongs_to_a_way() -> None:
    assert len(POINTS) == len(set(POINTS))
    here = PROVISION_POINTS | UPDATE_POINTS | FALL_BACK_POINTS
    assert all(point in here or point.startswith(OTHER_WAYS) for point in TRIED)


def test_killed_anywhere_in_provisioning_it_comes_up(
    server: ProtocolServer, tmp_path: Path
) -> None:
    def attempt(tried: Tried) -> None:
        tried.device.provision()
        tried.crash()
        tried.check_disk({sha256(FACTORY)}, may_be_bare=True)
        tried.finish(FACTORY)

    assert try_all(PROVISION_POINTS, server, tmp_path, attempt) == {}


def test_killed_anywhere_in_an_update_it_ends_on_the_new_image(
    server: ProtocolServer, template: DeviceProcess, tmp_path: Path
) -> None:
    verified = {sha256(image) for image in (FACTORY, FORMER, GOOD)}

    def attempt(tried: Tried) -> None:
        tried.copy(template)
        update_id = server.order(tried.device.device_id, GOOD, "3.0.0", sequence=1000)
        tried.crash()
        tried.check_disk(verified)
        tried.finish(GOOD)
        assert "confirming" in server.statuses(update_id)
        assert "failed" not in server.statuses(update_id)
        tried.check_disk(verified)

    assert try_all(UPDATE_POINTS, server, tmp_path, attempt) == {}


def test_killed_anywhere_in_a_fall_back_it_ends_on_the_former_image(
    server: ProtocolServer, template: DeviceProcess, tmp_path: Path
) -> None:
    verified = {sha256(image) for image in (FACTORY, FORMER, BAD)}

    def attempt(tried: Tried) -> None:
        tried.copy(template)
        update_id = server.order(tried.device.device_id, BAD, "4.0.0", sequence=1000)
        tried.crash()
        tried.check_disk(verified)
        tried.finish(FORMER)
        assert server.statuses(update_id)[-1] == "failed"
        assert "confirming" not in server.statuses(update_id)

    assert try_all(FALL_BACK_POINTS, server, tmp_path, attempt) == {}


def test_killed_again_and_again_at_any_time_it_still_arrives(
    server: ProtocolServer, template: DeviceProcess, tmp_path: Path
) -> None:
    chance = random.Random(7)
    keys = write_keys(tmp_path / "keys", server.signer)
    tried = Tried("", server, tmp_path, keys)
    tried.copy(template)
    verified = {sha256(image) for image in (FACTORY, FORMER, GOOD)}
    server.order(tried.device.device_id, GOOD, "3.0.0", sequence=1000)
    try:
        for _ in range(8):
            process = tried.device.start()
            # Not a wait for something: the moment of death is the thing tried.
            time.sleep(chance.uniform(0.15, 0.45))
            process.kill()
            process.wait(180)
            tried.check_disk(verified)
            if tried.device.state_phase() == "trying":
                break
        tried.finish(GOOD)
    finally:
        tried.device.kill()
