"""The agent as a service: its unit file, its word to systemd, its exit codes."""

import configparser
import os
import shutil
import socket
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from devices.agent.config import parse_config
from devices.agent.systemd import Notifier
from tests.devices.agent.device_process import REPOSITORY, DeviceProcess
from tests.waiting import wait_until

EXAMPLES = REPOSITORY / "docs" / "examples"
UNIT = EXAMPLES / "hotswap-agent.service"


class Listener:
    """Stands for systemd: a socket that remembers what it is told."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))
        self._socket.setblocking(False)
        self._heard: list[str] = []

    def heard(self) -> list[str]:
        while True:
            try:
                self._heard.append(self._socket.recv(1024).decode())
            except BlockingIOError:
                return self._heard

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def listener(tmp_path: Path) -> Iterator[Listener]:
    listener = Listener(tmp_path / "notify")
    yield listener
    listener.close()


def test_unit_file_says_how_the_agent_is_kept_up() -> None:
    unit = configparser.ConfigParser(strict=False, interpolation=None)
    unit.optionxform = str  # type: ignore[method-assign,assignment]
    unit.read(UNIT)

    service = unit["Service"]
    assert set(unit.sections()) == {"Unit", "Service", "Install"}
    assert service["Type"] == "notify"
    assert service["Restart"] == "always"
    assert service["RestartPreventExitStatus"].split() == ["2", "5"]
    assert "--config" in service["ExecStart"]
    assert service["NoNewPrivileges"] == "yes"
    assert service["ProtectSystem"] == "strict"


def test_unit_file_is_what_systemd_takes(tmp_path: Path) -> None:
    program = shutil.which("systemd-analyze")
    # Where there is no systemd, the unit has at least no line that is not one.
    if program is None:
        lines = UNIT.read_text().splitlines()
        assert all(not line or line[0] in "#[" or "=" in line for line in lines)
        return
    # The program of the example is not installed here.
    unit = tmp_path / UNIT.name
    unit.write_text(UNIT.read_text().replace("/usr/bin/hotswap-agent", sys.executable))

    result = subprocess.run(
        [program, "verify", unit], capture_output=True, text=True, check=False
    )

    assert UNIT.name not in result.stderr


def test_agent_tells_systemd_that_it_is_up_and_alive(
    device: DeviceProcess,
    listener: Listener,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
    monkeypatch.setenv("WATCHDOG_USEC", "400000")
    monkeypatch.delenv("WATCHDOG_PID", raising=False)
    device.start()

    wait_until(lambda: listener.heard().count("WATCHDOG=1") >= 3, what="signs of life")
    device.stop()

    heard = listener.heard()
    assert heard[0] == "READY=1"
    assert heard.count("READY=1") == 1
    assert heard[-1] == "STOPPING=1"


def test_signs_of_life_do_not_flood_systemd(listener: Listener, tmp_path: Path) -> None:
    notifier = Notifier(address=str(tmp_path / "notify"), watchdog_seconds=3600)

    for _ in range(10):
        notifier.alive()

    assert listener.heard() == ["READY=1", "WATCHDOG=1"]


def test_without_systemd_nothing_is_said() -> None:
    Notifier(address="", watchdog_seconds=1).alive()


def test_systemd_that_is_gone_harms_nothing(tmp_path: Path) -> None:
    Notifier(address=str(tmp_path / "gone"), watchdog_seconds=1).alive()


def test_application_cannot_speak_for_the_agent(
    device: DeviceProcess,
    listener: Listener,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
    device.start()
    wait_until(device.executed, what="the program")

    environment = Path(f"/proc/{device.application_pid()}/environ").read_bytes()

    assert b"NOTIFY_SOCKET" not in environment


@pytest.mark.parametrize("example", ["ab", "slots"])
def test_example_configuration_is_one(example: str) -> None:
    content = tomllib.loads((EXAMPLES / example / "agent.toml").read_text())

    config = parse_config(content, folder=EXAMPLES / example)

    assert config.installer.kind == ("hooks" if example == "ab" else "slots")


@pytest.mark.parametrize("script", ["ab", "ab.conf"])
def test_example_script_is_one(script: str) -> None:
    path = EXAMPLES / "ab" / script

    assert subprocess.run(["/bin/sh", "-n", path], check=False).returncode == 0
    assert script == "ab.conf" or os.access(path, os.X_OK)


# Exit codes that no other test sees


def test_factory_image_that_is_not_there_has_its_exit_code(
    device: DeviceProcess,
) -> None:
    (device.folder / "factory.py").unlink()

    assert device.start().wait(180) == 5


def test_once_tells_a_server_that_is_away(device: DeviceProcess) -> None:
    device.server.faults.refuse_with[""] = [503] * 100

    assert device.start("--once").wait(180) == 6


@pytest.mark.parametrize("path", ["/health", "/update", "device-token"])
def test_once_tells_a_server_that_refuses_the_device(
    path: str, device: DeviceProcess
) -> None:
    device.server.faults.refuse_with[path] = [401] * 100

    assert device.start("--once").wait(180) == 9


@pytest.mark.parametrize(
    ("name", "content"), [("empty.pem", b""), ("noise.pem", b"\xff\x00 no key")]
)
def test_trusted_key_that_is_none_is_named(
    name: str, content: bytes, device: DeviceProcess
) -> None:
    device.keys = [device.folder / name]
    device.provision()
    (device.folder / name).write_bytes(content)

    assert device.start("--once").wait(180) == 2
    assert "trusted_keys" in device.log()
    assert name in device.log()


def test_command_line_that_cannot_be_used_has_its_exit_code(
    device: DeviceProcess,
) -> None:
    assert device.start("--colour").wait(180) == 2


def test_fault_of_the_agent_is_told_with_its_trace(device: DeviceProcess) -> None:
    device.settings["boot_id_file"] = "not-there"
    device.boot_id = "kernel"
    device.reboot_command = ["/bin/true"]
    device.provision()

    assert device.start().wait(180) == 1
    assert "Traceback" in device.log()
