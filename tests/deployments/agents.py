"""Real agents for devices of a running HotSwap, and what they are ordered to do."""

import contextlib
import json
import secrets
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.deployments.live import LiveAdmin
from tests.devices.agent.device_process import GOOD_PROGRAM, REPOSITORY
from tests.live import LiveStack
from tests.waiting import wait_until

QUICK_CRITERIA = {
    "healthCriteria": {
        "confirmationDuration": "PT1S",
        "heartbeatsRequired": 1,
        "watchDuration": "PT1H",
    }
}


def new_model(admin: LiveAdmin) -> str:
    name = f"model-{secrets.token_hex(3)}"
    admin.post("/device-models", {"name": name})
    return name


class AgentDevice:
    """A real agent process that is provisioned for a running stack.

    It pins the signing key that is active.
    """

    def __init__(
        self,
        folder: Path,
        admin: LiveAdmin,
        model: str,
        image: bytes,
        *,
        patience_seconds: float = 3,
        otlp_endpoint: str = "",
    ) -> None:
        self.folder = folder
        self.name = f"agent-{secrets.token_hex(3)}"
        folder.mkdir()
        (folder / "factory.py").write_bytes(image)
        registered = admin.post("/devices", {"deviceId": self.name, "model": model})
        key_file = folder / "api-key"
        key_file.write_text(registered["apiKey"])
        key_file.chmod(0o600)
        keys = []
        for key in admin.get("/signing-keys"):
            if key["status"] != "Active":
                continue
            path = folder / f"{key['keyId']}.pem"
            path.write_text(key["publicKey"])
            keys.append(str(path))
        lines = [
            f"server = {json.dumps(admin.stack.url)}",
            f"device_id = {json.dumps(self.name)}",
            f"model = {json.dumps(model)}",
            'api_key_file = "api-key"',
            'data_dir = "data"',
            f"trusted_keys = {json.dumps(keys)}",
            'factory_image = "factory.py"',
            'factory_version = "1.0.0"',
            "self_test_seconds = 0.25",
            f"otlp_endpoint = {json.dumps(otlp_endpoint)}",
            "[limits]",
            "poll_seconds = 0.3",
            "heartbeat_seconds = 0.3",
            "retry_first_seconds = 0.1",
            "retry_ceiling_seconds = 0.5",
            f"download_patience_seconds = {patience_seconds}",
        ]
        self.config = folder / "agent.toml"
        self.config.write_text("\n".join(lines))

    def forget_limits(self) -> None:
        """Leave every interval and patience of the agent at its default."""
        text = self.config.read_text()
        self.config.write_text(text.partition("[limits]")[0])

    def move(self, stack: LiveStack) -> None:
        """Ask another server from the next start on."""
        _, _, rest = self.config.read_text().partition("\n")
        self.config.write_text(f"server = {json.dumps(stack.url)}\n{rest}")

    def running_image(self) -> bytes:
        return (self.folder / "data/current/image").read_bytes()


@dataclass
class StartAgent:
    """Starts agents, each in a process group of its own."""

    running: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def __call__(self, device: AgentDevice, *options: str) -> None:
        with (device.folder / "agent.log").open("ab") as log:
            self.running[device.name] = subprocess.Popen(
                [
                    *(sys.executable, "-m", "devices.agent"),
                    *("--config", str(device.config)),
                    *options,
                ],
                cwd=REPOSITORY,
                stderr=log,
                stdout=log,
                start_new_session=True,
            )

    def pid_of(self, device: AgentDevice) -> int:
        """Return the id of an agent's process, and of its group."""
        return self.running[device.name].pid


@contextlib.contextmanager
def running_agents() -> Iterator[StartAgent]:
    """Give what starts an agent; end all of them afterwards."""
    start = StartAgent()
    try:
        yield start
    finally:
        for process in start.running.values():
            process.send_signal(signal.SIGCONT)
            process.terminate()
        for process in start.running.values():
            process.wait(180)


def program(version: str, size_bytes: int) -> bytes:
    text = GOOD_PROGRAM.replace("VERSION", version)
    return (text + "#" * (size_bytes - len(text))).encode()


def direct(admin: LiveAdmin, firmware: dict[str, Any], device: str) -> str:
    wait_until(
        lambda: admin.get(f"/devices/{device}")["status"] == "online",
        what="the agent is heard",
    )
    launched = admin.post(
        "/deployments",
        {
            "firmwareId": firmware["id"],
            "strategy": "Direct",
            "targetDevices": [device],
            "maxAttempts": 1,
            **QUICK_CRITERIA,
        },
    )
    found: str = launched["id"]
    return found
