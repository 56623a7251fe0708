"""A fleet that is not there, through the agent's own code: `hotswap simulate`.

Rules:
- The devices are real to the server: registered, with keys and tokens of their own,
  and tagged `simulated: yes`.
- What is printed at the end is counted on the devices; the report names beside it what
  the server says of the same devices at that moment.
"""

import hashlib
import json
import secrets
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from devices.agent.limits import Limits
from devices.agent.states import Phase
from devices.agent.verify import TrustedKeys, load_trusted_keys
from devices.simulator.fleet import (
    DeviceSnapshot,
    FactoryImage,
    Fleet,
    FleetConfig,
    SimulatedDeviceConfig,
)
from devices.simulator.synthetic import SyntheticApplication, Temper
from hotswap.cli.client import Api, RefusedError
from hotswap.cli.devices import path_of, write_trusted_keys
from hotswap.cli.firmware import find_firmware
from hotswap.cli.output import count_progress, print_document, say
from hotswap.common.pluralize import counted

SIMULATED = {"simulated": "yes"}
REGISTRATIONS_AT_ONCE = 8
LOOK_SECONDS = 0.5
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)
FACTORY_IMAGE = b"the image that a simulated device is delivered with\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Simulation:
    """What is simulated.

    Attributes:
        regions: dealt out to the devices in turn; empty for none.
        prefix: how their ids begin; None for a new one.
        fail_rate, sick_rate: shares of the devices, 0 to 1, on which a new image never
            comes up, or comes up and errs; `seed` chooses them.
        seconds: after which it ends; None for no such end.
        until_version: at which it ends, once every device that can runs it.
    """

    device_count: int
    model: str
    regions: Sequence[str]
    prefix: str | None
    factory_version: str
    fail_rate: float
    sick_rate: float
    seed: int
    seconds: float | None
    until_version: str | None


def run_simulation(
    api: Api, wanted: Simulation, *, report: Path | None, erases: bool, as_json: bool
) -> None:
    """Register the devices, run them to the end, print the summary.

    Args:
        report: the file that the summary is written to, too.
        erases: whether the devices are erased at the end.

    Raises:
        RefusedError: the time was up before all devices that can had `until_version`.
    """
    temper = Temper(wanted.fail_rate, wanted.sick_rate, wanted.seed)
    names = _names(wanted.prefix or f"sim-{secrets.token_hex(3)}", wanted.device_count)
    able = set(names)
    until_version = wanted.until_version
    if until_version is not None:
        checksum = find_firmware(api, f"{wanted.model}:{until_version}")["checksum"]
        able = {name for name in names if not any(temper.draw(name, checksum))}
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        factory = FactoryImage(folder / "factory.bin", wanted.factory_version)
        factory.path.write_bytes(FACTORY_IMAGE)
        if erases:
            stack.callback(_erase, api, names)
        fleet = _make_fleet(
            api,
            _register(api, names, wanted.model, wanted.regions, factory),
            load_trusted_keys(write_trusted_keys(api, folder)),
            temper,
        )
        say(
            f"{counted(len(names), 'device')}"
            f", {names[0]} to {names[-1]}; Ctrl+C ends them."
        )
        seen, duration_seconds = _run(fleet, able, wanted.seconds, until_version)
        summary = _summarize(seen, duration_seconds) | {
            "server": _ask_server(api, names)
        }
        # Before the devices are erased: that may fail, and the result is there.
        if report is not None:
            report.write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
        print_document(summary, as_json=as_json)
    arrived = {each.device_id for each in seen if each.version == until_version}
    if until_version is not None and not able <= arrived:
        raise RefusedError(
            f"{len(able - arrived)} of {len(able)} devices do not run {until_version}"
        )


def _names(prefix: str, count: int) -> list[str]:
    width = len(str(count))
    return [f"{prefix}-{number:0{width}}" for number in range(1, count + 1)]


def _register(
    api: Api,
    names: Sequence[str],
    model: str,
    regions: Sequence[str],
    factory: FactoryImage,
) -> list[SimulatedDeviceConfig]:
    with count_progress() as progress:
        task = progress.add_task("Registering", total=len(names))

        def register(item: tuple[int, str]) -> SimulatedDeviceConfig:
            index, name = item
            body: dict[str, Any] = {
                "deviceId": name,
                "model": model,
                "tags": SIMULATED,
                "firmwareVersion": factory.version,
            }
            if regions:
                body["region"] = regions[index % len(regions)]
            key = api.post("/devices", body)["apiKey"]
            progress.advance(task)
            return SimulatedDeviceConfig(name, model, key, factory)

        # The first alone: what is wrong with it is wrong with all.
        first = register((0, names[0]))
        with ThreadPoolExecutor(REGISTRATIONS_AT_ONCE) as pool:
            rest = pool.map(register, list(enumerate(names))[1:])
            return [first, *rest]


def _make_fleet(
    api: Api,
    configs: Sequence[SimulatedDeviceConfig],
    keys: TrustedKeys,
    temper: Temper,
) -> Fleet:
    factory_sha256 = hashlib.sha256(FACTORY_IMAGE).hexdigest()
    return Fleet(
        configs,
        FleetConfig(
            server=api.connection.server,
            start_spread_seconds=min(10.0, len(configs) / 50),
            # The address was checked when the connection was put together.
            allow_insecure_http=True,
            limits=Limits(retry_ceiling_seconds=10.0),
        ),
        keys,
        make_application=lambda each: SyntheticApplication(
            each.device_id, factory_sha256, temper
        ),
    )


def _run(
    fleet: Fleet,
    able: set[str],
    seconds: float | None,
    until_version: str | None,
) -> tuple[list[DeviceSnapshot], float]:
    is_stopping = False

    def stop(_signal: int, _frame: FrameType | None) -> None:
        # No event: a signal that strikes where its lock is held would wait for itself.
        nonlocal is_stopping
        is_stopping = True

    before = {each: signal.signal(each, stop) for each in STOP_SIGNALS}
    began_at = time.monotonic()
    fleet.start()
    try:
        with count_progress() as progress:
            task = progress.add_task("Starting", total=len(able))
            while not is_stopping:
                time.sleep(LOOK_SECONDS)
                seen = fleet.snapshots()
                if seconds is not None and time.monotonic() - began_at >= seconds:
                    break
                arrived = sum(
                    each.device_id in able
                    and each.version == until_version
                    and each.phase is Phase.IDLE
                    for each in seen
                )
                phases = Counter(str(each.phase) for each in seen)
                words = ", ".join(f"{count} {name}" for name, count in phases.items())
                progress.update(task, completed=arrived, description=words)
                if until_version is not None and arrived == len(able):
                    break
        return fleet.snapshots(), time.monotonic() - began_at
    finally:
        fleet.stop()
        for number, handler in before.items():
            signal.signal(number, handler)


def _summarize(
    seen: Sequence[DeviceSnapshot], duration_seconds: float
) -> dict[str, Any]:
    return {
        "devices": len(seen),
        "seconds": round(duration_seconds, 1),
        "running": dict(Counter(each.version for each in seen)),
        "phases": dict(Counter(str(each.phase) for each in seen)),
        "boots": sum(each.boots for each in seen),
    }


def _ask_server(api: Api, names: Sequence[str]) -> dict[str, int]:
    """Count the versions that the server has on record for these devices."""
    own = set(names)
    prefix = names[0].rpartition("-")[0]
    return dict(
        Counter(
            row["firmwareVersion"]
            for row in api.results("/devices", search=f"{prefix}-")
            if row["deviceId"] in own
        )
    )


def _erase(api: Api, names: Sequence[str]) -> None:
    with count_progress() as progress:
        task = progress.add_task("Erasing", total=len(names))
        for name in names:
            try:
                api.request("DELETE", path_of(name))
            except RefusedError as error:
                # One that was never registered need not be erased.
                if not error.document or error.document.get("status") != 404:
                    raise
            progress.advance(task)
