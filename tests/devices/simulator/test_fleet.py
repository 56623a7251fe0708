"""A simulated fleet updates through the agent's own steps, over real HTTP."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from devices.agent.limits import Limits
from devices.agent.verify import load_trusted_keys
from devices.simulator.fleet import (
    FactoryImage,
    Fleet,
    FleetConfig,
    Presence,
    SimulatedDeviceConfig,
)
from hotswap.demo.programs.build import build_program
from tests.devices.agent.device_process import REPOSITORY, sha256
from tests.devices.agent.protocol_server import (
    API_KEY,
    MODEL,
    ProtocolServer,
    serving,
    write_keys,
)
from tests.waiting import wait_until

QUICK = Limits(
    retry_first_seconds=0.1,
    retry_ceiling_seconds=0.5,
    poll_seconds=0.3,
    heartbeat_seconds=0.3,
)


@pytest.fixture
def server() -> Iterator[ProtocolServer]:
    with serving() as server:
        server.heartbeat_seconds = 0.5
        server.poll_seconds = 0.5
        yield server


@contextmanager
def running_fleet(
    server: ProtocolServer,
    folder: Path,
    count: int,
    version: str = "2.4.0",
    presence: Presence | None = None,
) -> Iterator[Fleet]:
    factory = FactoryImage(
        build_program(version, MODEL, folder / f"{version}.pyz"), version
    )
    fleet = Fleet(
        [
            SimulatedDeviceConfig(f"sim-{number}", MODEL, API_KEY, factory, presence)
            for number in range(count)
        ],
        FleetConfig(
            server.url, self_test_seconds=0.6, start_spread_seconds=0.2, limits=QUICK
        ),
        load_trusted_keys(write_keys(folder / "keys", server.signer)),
    )
    fleet.start()
    try:
        yield fleet
    finally:
        assert fleet.stop()


def test_ten_devices_update_and_claim_in_a_new_boot(
    server: ProtocolServer, tmp_path: Path
) -> None:
    image = build_program("2.5.0", MODEL, tmp_path / "2.5.0.pyz").read_bytes()

    with running_fleet(server, tmp_path, 10) as fleet:
        wait_until(
            lambda: len({each["deviceId"] for each in server.heartbeats}) == 10,
            what="a heartbeat of every device",
        )
        first_boots = {each.device_id: each.boot_id for each in fleet.snapshots()}
        orders = {
            device_id: server.order(device_id, image, "2.5.0")
            for device_id in first_boots
        }
        claims = {
            device_id: server.wait_for(update_id, "confirming")
            for device_id, update_id in orders.items()
        }

    for device_id, claim in claims.items():
        assert claim["firmwareChecksum"] == sha256(image)
        assert claim["bootId"] != first_boots[device_id]
    assert {each.version for each in fleet.snapshots()} == {"2.5.0"}


def test_a_program_that_goes_bad_shows_it_in_its_own_numbers(
    server: ProtocolServer, tmp_path: Path
) -> None:
    bad = build_program("2.6.0", MODEL, tmp_path / "2.6.0.pyz").read_bytes()

    with running_fleet(server, tmp_path, 2):
        update_id = server.order("sim-0", bad, "2.6.0")
        server.wait_for(update_id, "confirming")
        bad_beat = server.wait_for_heartbeat(
            lambda each: (
                each["firmwareVersion"] == "2.6.0"
                and each["applicationMetrics"].get("errorRate", 0) > 0.1
            ),
            device_id="sim-0",
        )
        good_beat = server.heartbeats_of("sim-1")[-1]

    assert bad_beat["memoryUsage"] > good_beat["memoryUsage"]
    assert good_beat["applicationMetrics"]["errorRate"] == 0
    assert good_beat["applicationMetrics"]["sensorReadings"] > 0


def test_a_program_that_crashes_at_start_falls_back(
    server: ProtocolServer, tmp_path: Path
) -> None:
    crashing = build_program("2.7.0", MODEL, tmp_path / "2.7.0.pyz").read_bytes()

    with running_fleet(server, tmp_path, 1) as fleet:
        update_id = server.order("sim-0", crashing, "2.7.0")
        report = server.wait_for(update_id, "failed")

    assert report["errorCode"] == "self_test_failed"
    assert report["firmwareVersion"] == "2.4.0"
    assert fleet.snapshots()[0].version == "2.4.0"


def test_the_command_line_runs_a_fleet_and_ends_cleanly(
    server: ProtocolServer, tmp_path: Path
) -> None:
    build_program("2.4.0", MODEL, tmp_path / "factory.pyz")
    keys = write_keys(tmp_path / "keys", server.signer)
    (tmp_path / "fleet.json").write_text(
        json.dumps(
            {
                "server": server.url,
                "trustedKeys": [str(path) for path in keys],
                "factoryImage": {"path": "factory.pyz", "version": "2.4.0"},
                "startSpreadSeconds": 0.1,
                "limits": {"pollSeconds": 1},
                "devices": [
                    {"deviceId": f"cli-{number}", "model": MODEL, "apiKey": API_KEY}
                    for number in range(3)
                ],
            }
        )
    )
    process = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "devices.simulator",
            "--config",
            tmp_path / "fleet.json",
        ],
        cwd=REPOSITORY,
        env=dict(os.environ),
    )
    try:
        wait_until(
            lambda: len({each["deviceId"] for each in server.heartbeats}) == 3,
            what="a heartbeat of every device",
        )
        process.send_signal(signal.SIGTERM)

        assert process.wait(180) == 0
    finally:
        process.kill()


def test_a_device_comes_and_goes_and_is_updated_all_the_same(
    server: ProtocolServer, tmp_path: Path
) -> None:
    image = build_program("2.5.0", MODEL, tmp_path / "2.5.0.pyz").read_bytes()
    presence = Presence(on_seconds=1.5, off_seconds=0.2)

    with running_fleet(server, tmp_path, 1, presence=presence) as fleet:
        wait_until(lambda: fleet.snapshots()[0].boots >= 3, what="the third boot")
        update_id = server.order("sim-0", image, "2.5.0")
        claim = server.wait_for(update_id, "confirming")

    assert claim["firmwareChecksum"] == sha256(image)
