"""The device's key: got by enrolment, renewed in time, never lost."""

import itertools
import json
import signal
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from devices.agent.backoff import Backoff
from devices.agent.credentials import KeyFile
from devices.agent.rotation import KeyRotation
from devices.agent.transport import UnavailableError
from tests.devices.agent.device_process import TRIED, DeviceProcess
from tests.devices.agent.protocol_server import API_KEY, ProtocolServer, write_keys
from tests.waiting import wait_until

DAY = 86400.0
SIDE_BY_SIDE = 6
# A key that the server does not know is another story than a renewal that works.
ROTATE_POINTS = sorted(
    point
    for point in TRIED
    if point.startswith("rotate.") and point != "rotate.dropped"
)
ENROL_POINTS = sorted(point for point in TRIED if point.startswith("enrol."))


def settled(device: DeviceProcess) -> bool:
    """Say whether the device holds the newest key and no other."""
    keys = device.server.keys_of(device.device_id)
    next_key = device.key_file.with_name("api-key.next")
    return keys == [device.key_file.read_text()] and not next_key.exists()


def try_side_by_side(
    points: list[str], folder: Path, attempt: Callable[[DeviceProcess, str], None]
) -> dict[str, str]:
    """Try each point on a device of its own; give what went wrong by point."""
    wrong: dict[str, str] = {}

    def try_one(point: str) -> None:
        server = ProtocolServer()
        server.start()
        name = point.replace(".", "-")
        keys = write_keys(folder / name, server.signer)
        device = DeviceProcess(folder / name / "device", server, keys, device_id=name)
        try:
            attempt(device, point)
        except AssertionError as error:
            wrong[point] = str(error)
        finally:
            device.kill()
            server.stop()

    with ThreadPoolExecutor(SIDE_BY_SIDE) as pool:
        list(pool.map(try_one, points))
    return wrong


# When a key is renewed


@dataclass
class KeyServer:
    """Stands for the server's side of a renewal."""

    keys: KeyFile
    asked: int = 0
    errors: list[Exception] = field(default_factory=list)
    lasts_days: float = 90.0

    def ask_for_key(self) -> str:
        self.asked += 1
        if self.errors:
            raise self.errors.pop()
        return f"new-{self.asked}"

    def log_in(self) -> None:
        self.keys.accepted(self.keys.keys()[0], self.lasts_days * DAY)


def make_rotation(
    folder: Path, *, left_days: float | None, device_id: str = "device-1"
) -> tuple[KeyRotation, KeyServer]:
    path = folder / "api-key"
    path.write_text("old")
    keys = KeyFile(path, monotonic=lambda: 5000.0)
    keys.accepted("old", None if left_days is None else left_days * DAY)
    server = KeyServer(keys)
    rotation = KeyRotation(
        keys, server, device_id, 14 * DAY, Backoff(60, 3600), monotonic=lambda: 5000.0
    )
    return rotation, server


@pytest.mark.parametrize(
    ("left_days", "is_due"),
    [(90.0, False), (14.1, False), (11.9, True), (-1.0, True), (None, False)],
)
def test_key_is_renewed_when_its_end_is_near(
    left_days: float | None, is_due: bool, tmp_path: Path
) -> None:
    rotation, server = make_rotation(tmp_path, left_days=left_days)

    rotation.rotate_if_due()

    assert server.asked == is_due
    assert (tmp_path / "api-key").read_text() == ("new-1" if is_due else "old")


def test_fleet_does_not_renew_in_step(tmp_path: Path) -> None:
    due = sum(
        make_rotation(tmp_path, left_days=13.0, device_id=f"device-{number}")[
            0
        ].is_due()
        for number in range(400)
    )

    assert 120 < due < 280


def test_failed_renewal_is_left_for_later(tmp_path: Path) -> None:
    rotation, server = make_rotation(tmp_path, left_days=1)
    server.errors = [UnavailableError("away")]

    rotation.rotate_if_due()
    rotation.rotate_if_due()

    assert server.asked == 1
    assert (tmp_path / "api-key").read_text() == "old"


def test_keys_that_are_short_from_the_start_are_renewed_at_half_their_life(
    tmp_path: Path,
) -> None:
    now = [5000.0]
    rotation, server = make_rotation(tmp_path, left_days=2)
    rotation.monotonic = rotation.keys.monotonic = lambda: now[0]
    server.lasts_days = 2

    asked = []
    for hours in (0, 1, 22, 2, 1, 24):
        now[0] += hours * 3600
        rotation.rotate_if_due()
        asked.append(server.asked)

    assert asked == [1, 1, 1, 2, 2, 3]


def test_no_key_is_asked_for_that_cannot_be_saved(tmp_path: Path) -> None:
    rotation, server = make_rotation(tmp_path, left_days=1)
    (tmp_path / "api-key.next.new").mkdir()

    rotation.rotate_if_due()

    assert server.asked == 0


def test_key_files_are_for_the_owner_alone(tmp_path: Path) -> None:
    rotation, _ = make_rotation(tmp_path, left_days=1)
    (tmp_path / "api-key").chmod(0o600)

    rotation.rotate_if_due()

    assert (tmp_path / "api-key").stat().st_mode & 0o777 == 0o600


# Renewal by the agent


def test_agent_renews_its_key_and_goes_on_with_the_new_one(
    device: DeviceProcess,
) -> None:
    device.server.key_ends_in_seconds = DAY
    device.start()
    wait_until(lambda: "new API key in use" in device.log(), what="the renewal")
    device.stop()

    assert settled(device)
    assert device.server.keys_of("device-1") != [API_KEY]
    assert device.start("--once").wait(180) == 0


def test_lost_answers_to_a_renewal_lock_nobody_out(device: DeviceProcess) -> None:
    device.server.key_ends_in_seconds = DAY
    device.server.faults.lose_key_answers = 3
    device.limits |= {"rotate_retry_first_seconds": 0.1}
    device.limits |= {"rotate_retry_ceiling_seconds": 0.2}
    device.provision()
    device.start()

    wait_until(lambda: "new API key in use" in device.log(), what="the renewal")


def test_new_key_that_the_server_does_not_know_is_dropped(
    device: DeviceProcess,
) -> None:
    next_key = device.key_file.with_name("api-key.next")
    next_key.write_text("from-before-the-server-was-restored")

    code = device.start("--once").wait(180)

    assert code == 0
    assert not next_key.exists()
    assert device.key_file.read_text() == API_KEY


def test_renewal_can_be_left_to_others(device: DeviceProcess) -> None:
    device.server.key_ends_in_seconds = DAY
    device.settings["rotates_key"] = False
    device.provision()

    assert device.start("--once").wait(180) == 0
    assert device.server.keys_of("device-1") == [API_KEY]


def test_killed_anywhere_in_a_renewal_the_device_can_log_in(tmp_path: Path) -> None:
    def attempt(device: DeviceProcess, point: str) -> None:
        device.provision()
        device.server.key_ends_in_seconds = DAY
        assert device.start(crash_at=point).wait(180) == -signal.SIGKILL
        device.server.heartbeats.clear()
        device.start()
        wait_until(lambda: device.server.heartbeats, what="a heartbeat")
        wait_until(lambda: settled(device), what="one key in use")
        assert device.stop() == 0
        assert device.start("--once").wait(180) == 0

    assert try_side_by_side(ROTATE_POINTS, tmp_path, attempt) == {}


def test_killed_while_an_unknown_key_is_dropped_the_device_can_log_in(
    device: DeviceProcess,
) -> None:
    device.key_file.with_name("api-key.next").write_text("unknown")
    code = device.start(crash_at="rotate.dropped").wait(180)

    assert code == -signal.SIGKILL
    assert device.start("--once").wait(180) == 0
    assert settled(device)


# Enrolment


@pytest.fixture
def newcomer(server: ProtocolServer, tmp_path: Path) -> DeviceProcess:
    """A device that has a token and no key."""
    keys = write_keys(tmp_path / "keys", server.signer)
    device = DeviceProcess(tmp_path / "device", server, keys, enrols=True)
    device.provision()
    return device


def test_token_gets_a_first_key(newcomer: DeviceProcess) -> None:
    newcomer.config.write_text(
        newcomer.config.read_text()
        + '\n[enrolment]\nregion = "EU-WEST"\ntags = {site = "plant-7"}\n'
    )

    code = newcomer.start("--once").wait(180)

    (request,) = newcomer.server.enrolments
    assert code == 0
    assert len(request.pop("secret")) >= 43
    assert request == {
        "enrolmentToken": "token-of-many",
        "deviceId": "device-1",
        "model": "sensor-v1",
        "region": "EU-WEST",
        "tags": {"site": "plant-7"},
        "firmwareVersion": "1.0.0",
    }
    assert settled(newcomer)
    assert newcomer.key_file.stat().st_mode & 0o777 == 0o600
    assert not (newcomer.data / "enrolment-secret").exists()


def test_enrolled_device_does_not_enrol_again(newcomer: DeviceProcess) -> None:
    newcomer.start("--once").wait(180)

    assert newcomer.start("--once").wait(180) == 0
    assert len(newcomer.server.enrolments) == 1


def test_application_runs_while_the_enrolment_waits_for_approval(
    newcomer: DeviceProcess,
) -> None:
    newcomer.server.faults.answer_enrolments = [202, 202]
    try:
        newcomer.start()
        wait_until(newcomer.executed, what="the program")
        wait_until(lambda: newcomer.server.heartbeats, what="a heartbeat")
    finally:
        newcomer.kill()

    requests = newcomer.server.enrolments
    assert len(requests) == 3
    assert len({each["secret"] for each in requests}) == 1
    calls = [
        each.at
        for each in newcomer.server.requests
        if each.path == "/api/v1/enrolments"
    ]
    # As the server asked by `Retry-After`.
    assert all(later - earlier >= 1 for earlier, later in itertools.pairwise(calls))


@pytest.mark.parametrize(("status", "code"), [(202, 8), (403, 7), (401, 7), (409, 7)])
def test_once_tells_how_the_enrolment_went(
    newcomer: DeviceProcess, status: int, code: int
) -> None:
    newcomer.server.faults.answer_enrolments = [status]

    assert newcomer.start("--once").wait(180) == code
    assert not newcomer.key_file.exists()
    assert newcomer.start("--once").wait(180) == 0
    assert len({each["secret"] for each in newcomer.server.enrolments}) == 1


def test_refused_device_keeps_running_and_asks_rarely(newcomer: DeviceProcess) -> None:
    newcomer.server.faults.answer_enrolments = [403] * 10
    try:
        newcomer.start()
        wait_until(lambda: "heartbeat failed" in newcomer.log(), what="the refusal")
        wait_until(newcomer.executed, what="the program")
        assert newcomer.stop() == 0
    finally:
        newcomer.kill()

    (line,) = [
        line for line in newcomer.log().splitlines() if "heartbeat failed" in line
    ]
    assert "enrolment_rejected" in line
    assert json.loads(line)["retrySeconds"] >= 3600


def test_killed_anywhere_in_an_enrolment_the_device_gets_its_key(
    tmp_path: Path,
) -> None:
    def attempt(device: DeviceProcess, point: str) -> None:
        device.enrols = True
        device.provision()
        assert device.start(crash_at=point).wait(180) == -signal.SIGKILL
        assert device.start("--once").wait(180) == 0
        assert settled(device)
        assert len({each["secret"] for each in device.server.enrolments}) == 1

    assert try_side_by_side(ENROL_POINTS, tmp_path, attempt) == {}


def test_device_without_key_and_token_is_told_so(device: DeviceProcess) -> None:
    device.key_file.unlink()

    assert device.start().wait(180) == 2
    assert "api_key_file" in device.log()
