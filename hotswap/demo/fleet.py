"""The demo's devices: real agents in processes of their own, and a simulated fleet.

Rules:
- Every device leaves the factory with 2.4.0 and does all else by itself; the demo only
  switches it on, and on again if its process dies.
- Real agents keep their slots on disk. The simulated fleet keeps its in memory, so it
  is switched on with what each of its devices ran last.
- Nothing outlives the demo: the kernel ends what it has started.
"""

import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from hotswap.demo.programs.build import VERSIONS, build_program
from hotswap.paths import PROJECT_DIR
from hotswap.stack.folder import StackFolder
from hotswap.stack.processes import Program, Supervisor

SENSOR = "sensor-v1"
GATEWAY = "gateway-v1"
TRACKER = "tracker-v1"
MODELS = {
    SENSOR: "Temperature sensor of an industrial process",
    GATEWAY: "Gateway that measures its own cabinet",
    TRACKER: "Tracker on a lorry, which comes and goes with its network",
}
REGIONS = ("US-EAST", "US-WEST", "EU-CENTRAL", "APAC")
SITES = ("plant-1", "plant-2", "plant-3")
FACTORY_VERSION = "2.4.0"
AGENTS = 3
SIMULATED_SENSORS = 49
SIMULATED_GATEWAYS = 8
SIMULATED_TRACKERS = 8
SPARES = 2
SELF_TEST_SECONDS = 1
# Seconds in which a tracker has a network, and in which it has none: at most.
TRACKER_ON_SECONDS = 90
TRACKER_OFF_SECONDS = 60
START_SPREAD_SECONDS = 1.5
# A crash or an absent server is met quickly, as time is compressed.
LIMITS = {
    "poll_seconds": 1.0,
    "heartbeat_seconds": 1.0,
    "progress_seconds": 0.5,
    "retry_first_seconds": 0.2,
    "retry_ceiling_seconds": 2.0,
    "restart_first_seconds": 0.5,
    "restart_ceiling_seconds": 5.0,
}


class Kind(Enum):
    """How a device exists; a spare is registered and lies in a drawer."""

    AGENT = "agent process"
    SIMULATED = "simulated"
    SPARE = "spare, switched off"


@dataclass(frozen=True, slots=True)
class DemoDevice:
    """One device of the demo."""

    device_id: str
    model: str
    kind: Kind
    region: str
    site: str


def make_roster() -> tuple[DemoDevice, ...]:
    """Return all devices; the regions take turns, the agents come first."""
    names = [(f"sensor-{n:03}", SENSOR, Kind.AGENT) for n in range(1, AGENTS + 1)]
    names += [
        (f"sensor-{n:03}", SENSOR, Kind.SIMULATED)
        for n in range(AGENTS + 1, AGENTS + SIMULATED_SENSORS + 1)
    ]
    names += [
        (f"gateway-{n:03}", GATEWAY, Kind.SIMULATED)
        for n in range(1, SIMULATED_GATEWAYS + 1)
    ]
    names += [
        (f"tracker-{n:03}", TRACKER, Kind.SIMULATED)
        for n in range(1, SIMULATED_TRACKERS + 1)
    ]
    names += [(f"sensor-spare-{n}", SENSOR, Kind.SPARE) for n in range(1, SPARES + 1)]
    return tuple(
        DemoDevice(
            name,
            model,
            kind,
            REGIONS[index % len(REGIONS)],
            SITES[index % len(SITES)],
        )
        for index, (name, model, kind) in enumerate(names)
    )


@dataclass(frozen=True, slots=True)
class DemoFiles:
    """What the demo keeps beside the stack, in the same data folder."""

    root: Path

    @property
    def logins(self) -> Path:
        return self.root / "logins.json"

    @property
    def api_keys(self) -> Path:
        return self.root / "api-keys.json"

    @property
    def fleet(self) -> Path:
        return self.root / "fleet.json"

    @property
    def evidence(self) -> Path:
        return self.root / "evidence.json"

    @property
    def scratch(self) -> Path:
        return self.root / "scratch"

    def image(self, model: str, version: str) -> Path:
        return self.root / "images" / f"{model}-{version}.pyz"

    def agent(self, device_id: str) -> Path:
        return self.root / "agents" / device_id

    def trusted_keys(self) -> list[Path]:
        return sorted((self.root / "signing-keys").glob("*.pem"))

    def write_trusted_keys(self, keys: Sequence[Mapping[str, Any]]) -> None:
        """Keep the public keys that the devices trust from their provisioning on."""
        folder = self.root / "signing-keys"
        folder.mkdir(parents=True, exist_ok=True)
        for key in keys:
            (folder / f"{key['keyId']}.pem").write_text(key["publicKey"])

    def read_api_keys(self) -> dict[str, str]:
        """Return the key of each device that has one."""
        try:
            return dict(json.loads(self.api_keys.read_text()))
        except FileNotFoundError:
            return {}

    def write_api_keys(self, keys: Mapping[str, str]) -> None:
        write_private(self.api_keys, json.dumps(keys, indent=1))


def build_images(files: DemoFiles) -> None:
    """Build each version for each model."""
    for model in MODELS:
        for version in VERSIONS:
            build_program(version, model, files.image(model, version))


class DemoFleet:
    """The processes of all devices, under a supervisor of their own.

    Args:
        running: tells the version that each device ran last, by its id; a device that
            is not named has never run.
        on_event: told of restarts, one line each, from another thread.
    """

    def __init__(
        self,
        *,
        files: DemoFiles,
        folder: StackFolder,
        roster: Sequence[DemoDevice],
        server: str,
        running: Callable[[], Mapping[str, str]],
        on_event: Callable[[str], None],
    ) -> None:
        self._files = files
        self._folder = folder
        self._server = server
        self._running = running
        self._keys = files.read_api_keys()
        self._agents = [each for each in roster if each.kind is Kind.AGENT]
        self._simulated = [each for each in roster if each.kind is Kind.SIMULATED]
        files.scratch.mkdir(parents=True, exist_ok=True)
        programs = [self._agent_program(each) for each in self._agents]
        programs.append(self._simulator_program())
        for program in programs:
            folder.rotate_log(program.name)
        self._supervisor = Supervisor(programs, on_event=on_event)

    @property
    def failure(self) -> str | None:
        """Why the devices stopped by themselves; None while they did not."""
        return self._supervisor.failure

    def start(self) -> None:
        """Switch all devices on, in the background."""
        for device in self._agents:
            self._write_agent(device)
        self._supervisor.start()

    def stop(self) -> None:
        """Switch all devices off; afterwards no process of theirs is left."""
        self._supervisor.stop()

    def has_stopped(self) -> bool:
        return self._supervisor.wait(0)

    def _agent_program(self, device: DemoDevice) -> Program:
        name = f"agent-{device.device_id}"
        config = self._files.agent(device.device_id) / "agent.toml"
        return Program(
            name=name,
            command=[sys.executable, "-m", "devices.agent", "--config", str(config)],
            log=self._folder.logs / f"{name}.log",
            environment=self._environment(),
            folder=PROJECT_DIR,
        )

    def _simulator_program(self) -> Program:
        return Program(
            name="simulator",
            command=[
                *(sys.executable, "-m", "devices.simulator"),
                *("--config", str(self._files.fleet)),
            ],
            log=self._folder.logs / "simulator.log",
            environment=self._environment(),
            folder=PROJECT_DIR,
            before_start=self._write_simulated,
        )

    def _environment(self) -> dict[str, str]:
        """Devices know nothing of the server but its address."""
        inherited = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("HOTSWAP_", "DJANGO_"))
        }
        # Whatever a killed process leaves behind stays within the demo's folder.
        return {
            **inherited,
            "TMPDIR": str(self._files.scratch),
            "PYTHONUNBUFFERED": "1",
        }

    def _write_agent(self, device: DemoDevice) -> None:
        folder = self._files.agent(device.device_id)
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_private(folder / "api-key", self._keys[device.device_id])
        values: dict[str, Any] = {
            "server": self._server,
            "device_id": device.device_id,
            "model": device.model,
            "api_key_file": "api-key",
            "data_dir": "data",
            "trusted_keys": [str(path) for path in self._files.trusted_keys()],
            "factory_image": str(self._files.image(device.model, FACTORY_VERSION)),
            "factory_version": FACTORY_VERSION,
            "self_test_seconds": SELF_TEST_SECONDS,
        }
        # JSON's numbers, strings and lists are TOML's too.
        lines = [f"{name} = {json.dumps(value)}" for name, value in values.items()]
        lines += ["", "[limits]"]
        lines += [f"{name} = {value}" for name, value in LIMITS.items()]
        (folder / "agent.toml").write_text("\n".join(lines) + "\n")

    def _write_simulated(self) -> None:
        running = self._running()
        devices = []
        for each in self._simulated:
            version = running.get(each.device_id) or FACTORY_VERSION
            if not self._files.image(each.model, version).exists():
                version = FACTORY_VERSION
            device = {
                "deviceId": each.device_id,
                "model": each.model,
                "apiKey": self._keys[each.device_id],
                "factoryImage": {
                    "path": str(self._files.image(each.model, version)),
                    "version": version,
                },
            }
            if each.model == TRACKER:
                device["comesAndGoes"] = {
                    "onSeconds": TRACKER_ON_SECONDS,
                    "offSeconds": TRACKER_OFF_SECONDS,
                }
            devices.append(device)
        fleet = {
            "server": self._server,
            "trustedKeys": [str(path) for path in self._files.trusted_keys()],
            "selfTestSeconds": SELF_TEST_SECONDS,
            "startSpreadSeconds": START_SPREAD_SECONDS,
            "limits": {_camel(name): value for name, value in LIMITS.items()},
            "devices": devices,
        }
        write_private(self._files.fleet, json.dumps(fleet, indent=1))


def read_slots(folder: Path) -> dict[str, Any]:
    """Return what lies in the slots of an agent's data folder, read from outside.

    `{current, previous: {version, sha256, imageSha256} | None, phase}`; `imageSha256`
    is computed from the image itself.
    """
    from devices.agent.files import sha256_of
    from devices.agent.installer import SLOTS, SlotInstaller

    installer = SlotInstaller(folder)
    link = folder / "current"
    name = link.readlink().name if link.is_symlink() else None
    found: dict[str, Any] = {"current": None, "previous": None}
    for slot in SLOTS:
        role = "current" if slot == name else "previous"
        record = installer.current() if slot == name else installer.previous()
        if record is not None:
            found[role] = {
                "version": record.version,
                "sha256": record.sha256,
                "imageSha256": sha256_of(folder / "slots" / slot / "image"),
            }
    try:
        found["phase"] = json.loads((folder / "state.json").read_text())["phase"]
    except FileNotFoundError:
        found["phase"] = None
    return found


def write_private(path: Path, text: str) -> None:
    """Replace a file by one that only its owner can read."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(path.name + ".draft")
    draft.unlink(missing_ok=True)
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
    draft.replace(path)


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(word.capitalize() for word in rest)
