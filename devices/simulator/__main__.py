"""Run a simulated fleet: `python -m devices.simulator --config fleet.json`.

The file: `{server, trustedKeys: [path], factoryImage: {path, version}, devices:
[{deviceId, model, apiKey, factoryImage?, comesAndGoes?: {onSeconds, offSeconds}}],
selfTestSeconds?, memoryBytes?,
startSpreadSeconds?, allowInsecureHttp?, limits?: {chunkBytes, ...}}`. Relative paths
are relative to the file. A device that comes and goes is on and off for a random time
up to these seconds; it never goes in the middle of an update.
"""

import argparse
import json
import logging
import re
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from devices.agent.config import ConfigError, parse_limits
from devices.agent.installer import InstallError
from devices.agent.logs import LOG_FORMATS, set_up_logging
from devices.agent.transport import InsecureAddressError
from devices.agent.verify import TrustedKeys, load_trusted_keys
from devices.simulator.fleet import (
    FactoryImage,
    Fleet,
    FleetConfig,
    Presence,
    SimulatedDeviceConfig,
)

BAD_CONFIGURATION = 2
LOOK_SECONDS = 0.2


@dataclass(frozen=True, slots=True)
class FleetFile:
    """A fleet file, read and checked."""

    config: FleetConfig
    devices: tuple[SimulatedDeviceConfig, ...]
    keys: TrustedKeys


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the fleet until SIGTERM or SIGINT.

    Returns:
        0 after a stop, 2 if the file cannot be used.
    """
    options = _parse(arguments)
    is_stopping = False

    def stop(_signal: int, _frame: FrameType | None) -> None:
        # No event: a signal that strikes where its lock is held would wait for itself.
        nonlocal is_stopping
        is_stopping = True

    for each in (signal.SIGTERM, signal.SIGINT):
        signal.signal(each, stop)
    set_up_logging(options.log_format)
    logging.getLogger().handlers[0].addFilter(_name_device)
    logging.getLogger().setLevel(options.log_level.upper())
    try:
        file = load_fleet_file(options.config)
        fleet = Fleet(file.devices, file.config, file.keys)
    except (ConfigError, OSError, ValueError, InstallError) as error:
        sys.stderr.write(f"hotswap-simulator: {error}\n")
        return BAD_CONFIGURATION
    except InsecureAddressError as error:
        sys.stderr.write(f"hotswap-simulator: server: {error}\n")
        return BAD_CONFIGURATION
    fleet.start()
    while not is_stopping:
        time.sleep(LOOK_SECONDS)
    fleet.stop()
    return 0


def load_fleet_file(path: Path) -> FleetFile:
    """Read a fleet file.

    Raises:
        ConfigError: a key is missing or wrong.
        OSError, ValueError: a file it names cannot be read.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        folder = path.absolute().parent
        common = content.get("factoryImage")
        limits = {
            _snake(name): value for name, value in _get(content, "limits").items()
        }
        config = FleetConfig(
            server=content["server"],
            limits=parse_limits(limits),
            **{
                _snake(name): content[name]
                for name in (
                    "selfTestSeconds",
                    "memoryBytes",
                    "startSpreadSeconds",
                    "allowInsecureHttp",
                )
                if name in content
            },
        )
        devices = tuple(
            SimulatedDeviceConfig(
                device_id=each["deviceId"],
                model=each["model"],
                api_key=each["apiKey"],
                factory_image=_factory_image(each.get("factoryImage", common), folder),
                presence=_presence(each.get("comesAndGoes")),
            )
            for each in content["devices"]
        )
        keys = load_trusted_keys(folder / name for name in content["trustedKeys"])
    except KeyError as error:
        raise ConfigError(f"{error.args[0]}: missing") from error
    except (TypeError, AttributeError, json.JSONDecodeError) as error:
        raise ConfigError(f"{path}: {error}") from error
    return FleetFile(config, devices, keys)


def _factory_image(content: Mapping[str, Any] | None, folder: Path) -> FactoryImage:
    if content is None:
        raise ConfigError("factoryImage: missing")
    return FactoryImage(path=folder / content["path"], version=content["version"])


def _presence(content: Mapping[str, Any] | None) -> Presence | None:
    if content is None:
        return None
    seconds = (float(content["onSeconds"]), float(content["offSeconds"]))
    if not all(0 < each < float("inf") for each in seconds):
        raise ConfigError("comesAndGoes: seconds above 0 expected")
    return Presence(*seconds)


def _get(content: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = content.get(key, {})
    if not isinstance(value, dict):
        raise ConfigError(f"{key}: an object expected")
    return value


def _snake(name: str) -> str:
    return re.sub(r"[A-Z]", lambda found: f"_{found[0].lower()}", name)


def _name_device(record: logging.LogRecord) -> bool:
    record.device_id = record.threadName
    return True


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m devices.simulator", description="Run a simulated fleet."
    )
    parser.add_argument("--config", type=Path, required=True, metavar="FILE")
    parser.add_argument("--log-format", choices=LOG_FORMATS, default="auto")
    parser.add_argument(
        "--log-level", choices=("info", "warning", "error"), default="warning"
    )
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
