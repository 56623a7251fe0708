"""A device on disk: its configuration and the real agent process on it."""

import hashlib
import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

from devices.agent.crashpoints import POINTS
from tests.devices.agent.protocol_server import API_KEY, MODEL, ProtocolServer
from tests.waiting import wait_until

REPOSITORY = Path(__file__).parents[3]

# A temporary file is cleared the same way whether it is empty, half written or whole.
TRIED = tuple(point for point in POINTS if not point.endswith((".created", ".written")))
"""The crash points that are worth a run of their own each time."""

GOOD_PROGRAM = """\
import hashlib, json, os, signal, sys, time
own = hashlib.sha256(open(sys.argv[0], "rb").read()).hexdigest()
metrics = os.environ["HOTSWAP_METRICS_FILE"]
folder = os.path.dirname(metrics)
with open(os.path.join(folder, "executed.log"), "a") as log:
    log.write(own + "\\n")
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
count = 0
while True:
    count += 1
    with open(metrics + ".new", "w") as file:
        file.write('{"errorRate": 0.0, "sensorReadings": %d}' % count)
    os.replace(metrics + ".new", metrics)
    time.sleep(0.05)
# version VERSION
"""
CRASHING_PROGRAM = """\
import hashlib, os, sys
own = hashlib.sha256(open(sys.argv[0], "rb").read()).hexdigest()
folder = os.path.dirname(os.environ["HOTSWAP_METRICS_FILE"])
with open(os.path.join(folder, "executed.log"), "a") as log:
    log.write(own + "\\n")
sys.exit(7)
# version VERSION
"""


def program(
    version: str, *, source: str = GOOD_PROGRAM, size_bytes: int = 20_000
) -> bytes:
    """Give an image of about this size."""
    text = source.replace("VERSION", version)
    return (text + "#" * max(0, size_bytes - len(text))).encode()


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def is_alive(pid: int) -> bool:
    """Say whether a process is there and not merely waiting to be reaped."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"


@dataclass
class DeviceProcess:
    """One provisioned device."""

    folder: Path
    server: ProtocolServer
    keys: list[Path]
    device_id: str = "device-1"
    factory: bytes = field(default_factory=lambda: program("1.0.0"))
    boot_id: str = "process"
    reboot_command: list[str] = field(default_factory=list)
    self_test_seconds: float = 0.25
    limits: dict[str, float] = field(default_factory=dict)
    settings: dict[str, str | list[str] | bool] = field(default_factory=dict)
    enrols: bool = False
    tables: str = ""
    """More of the configuration, as it stands: the tables of an installer."""
    has_slots: bool = True
    module: str = "devices.agent"
    environment: dict[str, str] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = None

    def provision(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        if self.enrols:
            self.settings["enrolment_token_file"] = "token"
            (self.folder / "token").write_text("token-of-many")
        else:
            self.key_file.write_text(API_KEY)
        (self.folder / "factory.py").write_bytes(self.factory)
        limits = {
            "chunk_bytes": 8192,
            "retry_first_seconds": 0.05,
            "retry_ceiling_seconds": 0.2,
            "restart_first_seconds": 0.05,
            "progress_seconds": 0.2,
            "poll_seconds": 0.2,
            "heartbeat_seconds": 0.2,
            "connect_timeout_seconds": 5.0,
            "read_timeout_seconds": 5.0,
            **self.limits,
        }
        lines = [
            f"server = {json.dumps(self.server.url)}",
            f"device_id = {json.dumps(self.device_id)}",
            f"model = {json.dumps(MODEL)}",
            'api_key_file = "api-key"',
            'data_dir = "data"',
            f"trusted_keys = {json.dumps([str(path) for path in self.keys])}",
            *(['factory_image = "factory.py"'] if self.has_slots else []),
            'factory_version = "1.0.0"',
            f"boot_id = {json.dumps(self.boot_id)}",
            f"reboot_command = {json.dumps(self.reboot_command)}",
            f"self_test_seconds = {self.self_test_seconds}",
            *(f"{name} = {json.dumps(value)}" for name, value in self.settings.items()),
            "[limits]",
            *(f"{name} = {value}" for name, value in limits.items()),
            self.tables,
        ]
        self.config.write_text("\n".join(lines))

    @property
    def config(self) -> Path:
        return self.folder / "agent.toml"

    @property
    def key_file(self) -> Path:
        return self.folder / "api-key"

    @property
    def data(self) -> Path:
        return self.folder / "data"

    def start(
        self, *options: str, crash_at: str = "", max_file_bytes: int = 0
    ) -> subprocess.Popen[bytes]:
        """Switch the device on.

        Args:
            options: for the command line of the agent.
            crash_at: the crash point at which it kills itself, `point#n` for the nth
                time that it passes there.
            max_file_bytes: how large its files may grow: stands for a full disk.
        """
        environment = {
            **os.environ,
            "PYTHONDONTWRITEBYTECODE": "1",
            **self.environment,
        }
        if crash_at:
            environment["HOTSWAP_AGENT_CRASH_AT"] = crash_at
        with (self.folder / "agent.log").open("ab") as log:
            limit = ["prlimit", f"--fsize={max_file_bytes}"] if max_file_bytes else []
            self.process = subprocess.Popen(
                [
                    *limit,
                    sys.executable,
                    "-m",
                    self.module,
                    "--config",
                    str(self.config),
                    *options,
                ],
                cwd=REPOSITORY,
                env=environment,
                stderr=log,
                stdout=log,
            )
        return self.process

    def stop(self) -> int:
        """End the agent as an init system would and give its exit code."""
        assert self.process is not None
        self.process.terminate()
        return self.process.wait(180)

    def kill(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait(180)

    def current_sha256(self) -> str:
        """Give the digest of the bytes that would boot."""
        return sha256((self.data / "current" / "image").read_bytes())

    def executed(self) -> list[str]:
        """Give the digests of all images that ever ran, in order."""
        log = self.data / "run" / "executed.log"
        return log.read_text().split() if log.exists() else []

    def application_pid(self) -> int:
        """Give the pid that the agent notes once it has started the program."""
        noted = self.data / "run" / "application.json"
        wait_until(noted.exists, what="the note of the program's pid")
        return int(json.loads(noted.read_text())["pid"])

    def state(self) -> dict[str, object]:
        content: dict[str, object] = json.loads((self.data / "state.json").read_text())
        return content

    def state_phase(self) -> str:
        """Give the saved phase, "idle" if nothing was ever saved."""
        if not (self.data / "state.json").exists():
            return "idle"
        return str(self.state()["phase"])

    def log(self) -> str:
        return (self.folder / "agent.log").read_text()
