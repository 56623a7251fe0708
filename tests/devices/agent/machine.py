"""A Linux device with two partitions, a boot loader and the example hooks.

The partitions, the boot loader's variables and the boot id are plain files; the hooks
are the very script of `docs/examples/ab`. A reboot kills the agent, as it would on a
real device; the boot loader then runs before the agent is started again.
"""

import json
import signal
import stat
import uuid
from dataclasses import dataclass, field
from pathlib import Path

from tests.devices.agent.device_process import REPOSITORY, DeviceProcess, sha256
from tests.devices.agent.protocol_server import ProtocolServer
from tests.waiting import wait_until

EXAMPLE = REPOSITORY / "docs" / "examples" / "ab" / "ab"
VERBS = (
    "current",
    "pre_install",
    "install",
    "activate",
    "reboot",
    "health_check",
    "confirm",
    "revert",
)
PARTITION_BYTES = 256 * 1024
CONFIGURATION = """\
PARTITION_A={folder}/partition-a
PARTITION_B={folder}/partition-b
NOTES={folder}/notes
get_env() {{ sed -n "s/^$1=//p" {folder}/bootenv; }}
set_env() {{
    cp {folder}/bootenv {folder}/bootenv.new
    for each in "$@"; do
        sed -i "s/^${{each%%=*}}=.*/$each/" {folder}/bootenv.new
    done
    mv {folder}/bootenv.new {folder}/bootenv
}}
running_slot() {{ cat {folder}/running; }}
reboot_now() {{ touch {folder}/rebooted; kill -9 "$PPID"; }}
is_healthy() {{ ! grep -q SICK {folder}/partition-$running; }}
echo "$2 $(cat {folder}/running)" >> {folder}/hooks.log
"""


def system_image(version: str, *, boots: bool = True, is_healthy: bool = True) -> bytes:
    """Give the image of a system, large enough not to fit into one write."""
    words = [b"BOOTS" if boots else b"BROKEN", version.encode()]
    if not is_healthy:
        words.append(b"SICK")
    return b" ".join(words).ljust(100_000, b".")


@dataclass
class Machine:
    """One such device."""

    folder: Path
    server: ProtocolServer
    keys: list[Path]
    device_id: str = "device-1"
    factory: bytes = field(default_factory=lambda: system_image("1.0.0"))
    overrides: dict[str, list[str]] = field(default_factory=dict)
    timeouts: dict[str, float] = field(default_factory=dict)
    application: str = ""
    device: DeviceProcess = field(init=False)

    def provision(self) -> None:
        """Flash the factory image and write the configuration."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self.partition("a").write_bytes(self.factory.ljust(PARTITION_BYTES, b"\0"))
        self.partition("b").write_bytes(b"\0" * PARTITION_BYTES)
        (self.folder / "bootenv").write_text("boot_slot=a\ntry_slot=\ntries_left=0\n")
        (self.folder / "ab.conf").write_text(
            CONFIGURATION.format(folder=self.folder.absolute())
        )
        self.boot()
        self.configure()

    def configure(self) -> None:
        hooks = {
            verb: [str(EXAMPLE), str(self.folder / "ab.conf"), verb] for verb in VERBS
        } | self.overrides
        lines = [
            "[installer]",
            'kind = "hooks"',
            f'factory_sha256 = "{sha256(self.factory)}"',
            *(f"{verb} = {json.dumps(command)}" for verb, command in hooks.items()),
            "[installer.timeout_seconds]",
            *(f"{verb} = {seconds}" for verb, seconds in self.timeouts.items()),
            self.application,
        ]
        self.device = DeviceProcess(
            self.folder / "device",
            self.server,
            self.keys,
            device_id=self.device_id,
            boot_id="kernel",
            has_slots=False,
            self_test_seconds=0.05,
            settings={"boot_id_file": str(self.folder / "boot-id")},
            tables="\n".join(lines),
        )
        self.device.provision()

    def partition(self, slot: str) -> Path:
        return self.folder / f"partition-{slot}"

    def image_in(self, slot: str, size_bytes: int = 100_000) -> bytes:
        return self.partition(slot).read_bytes()[:size_bytes]

    def variables(self) -> dict[str, str]:
        lines = (self.folder / "bootenv").read_text().splitlines()
        return dict(line.split("=", 1) for line in lines)

    def running(self) -> str:
        return (self.folder / "running").read_text()

    def hooks_run(self) -> list[str]:
        """Give the verbs in the order they were run, `current` left out."""
        log = self.folder / "hooks.log"
        lines = log.read_text().splitlines() if log.exists() else []
        verbs = [line.split()[0] for line in lines]
        return [verb for verb in verbs if verb != "current"]

    def boot(self) -> None:
        """Do what the boot loader does, up to the moment when the agent is started."""
        (self.folder / "rebooted").unlink(missing_ok=True)
        variables = self.variables()
        slot = variables["boot_slot"]
        if int(variables["tries_left"]) > 0:
            slot = variables["try_slot"]
            variables["tries_left"] = str(int(variables["tries_left"]) - 1)
            (self.folder / "bootenv").write_text(
                "".join(f"{name}={value}\n" for name, value in variables.items())
            )
            if not self.partition(slot).read_bytes().startswith(b"BOOTS"):
                # It hangs, the watchdog bites, and the boot loader runs again.
                self.boot()
                return
        assert self.partition(slot).read_bytes().startswith(b"BOOTS"), "a brick"
        (self.folder / "running").write_text(slot)
        (self.folder / "boot-id").write_text(str(uuid.uuid4()))

    def start(self, *, crash_at: str = "") -> None:
        """Start the agent, after the boot that a reboot has asked for."""
        if (self.folder / "rebooted").exists():
            self.boot()
        self.device.start(crash_at=crash_at)

    def keep_on(self) -> None:
        """Start the agent again whenever it was killed by a reboot."""
        process = self.device.process
        if process is None or process.poll() is not None:
            assert process is None or process.returncode == -signal.SIGKILL, (
                self.device.log()
            )
            self.start()

    def wait_for(self, update_id: str, *statuses: str) -> dict[str, object]:
        """Keep the device on until the latest report has one of these statuses."""

        def look() -> dict[str, object] | None:
            self.keep_on()
            return self.server.last(update_id, *statuses)

        try:
            report = wait_until(look, what=f"a report {statuses}")
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.device.log()}") from error
        assert report is not None
        return report

    def settle(self) -> None:
        """Keep the device on until it has no order left."""
        server = self.server

        def has_settled() -> bool:
            self.keep_on()
            return (
                self.device_id not in server.orders
                and self.device.state_phase() == "idle"
            )

        try:
            wait_until(has_settled, what="the end of the order")
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.device.log()}") from error

    def private_mode(self) -> int:
        """Give the permissions of the folder that images are handed over in."""
        return stat.S_IMODE((self.device.data / "hooks").stat().st_mode)
