"""What the agent says of secure boot: the platform first, then the hook."""

from pathlib import Path

import pytest

from devices.agent.secure_boot import EFI_NAME, read_secure_boot
from tests.devices.agent.device_process import DeviceProcess

ATTRIBUTES = b"\x06\x00\x00\x00"


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (ATTRIBUTES + b"\x01", "enabled"),
        (ATTRIBUTES + b"\x00", "disabled"),
        (ATTRIBUTES + b"\x02", "unknown"),
        (ATTRIBUTES, "unknown"),
        (b"", "unknown"),
    ],
)
def test_efi_variable_tells(content: bytes, expected: str, tmp_path: Path) -> None:
    (tmp_path / EFI_NAME).write_bytes(content)

    assert read_secure_boot(efi_variables=tmp_path) == expected


@pytest.mark.parametrize(
    ("exit_code", "expected"), [(0, "enabled"), (1, "disabled"), (2, "unknown")]
)
def test_hook_tells_where_there_is_no_variable(
    exit_code: int, expected: str, tmp_path: Path
) -> None:
    command = ["/bin/sh", "-c", f"exit {exit_code}"]

    assert read_secure_boot(command, efi_variables=tmp_path) == expected


def test_platform_comes_before_the_hook(tmp_path: Path) -> None:
    (tmp_path / EFI_NAME).write_bytes(ATTRIBUTES + b"\x00")

    found = read_secure_boot(["/bin/true"], efi_variables=tmp_path)

    assert found == "disabled"


@pytest.mark.parametrize("command", [["/does/not/exist"], ["/bin/sleep", "60"], []])
def test_hook_that_cannot_tell_means_unknown(
    command: list[str], tmp_path: Path
) -> None:
    found = read_secure_boot(command, efi_variables=tmp_path, command_seconds=0.2)

    assert found == "unknown"


def test_heartbeat_says_what_the_hook_said_once(
    device: DeviceProcess, tmp_path: Path
) -> None:
    asked = tmp_path / "asked"
    device.settings["secure_boot_command"] = [
        "/bin/sh",
        "-c",
        f"echo x >> {asked}; exit 0",
    ]
    device.provision()
    device.start()
    device.server.wait_for_heartbeat(lambda each: each["uptime"] >= 1)

    beats = device.server.heartbeats_of("device-1")

    # A machine that has the variable itself answers for itself.
    said = {each["secureBoot"] for each in beats}
    assert len(beats) > 1
    if asked.exists():
        assert said == {"enabled"}
        assert asked.read_text().split() == ["x"]
    else:
        assert said <= {"enabled", "disabled"}
