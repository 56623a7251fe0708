"""The demo's firmware is real: built the same each time, good or bad by its code."""

import os
import signal
import subprocess
import sys
import time
import zipapp
from pathlib import Path

import pytest

from devices.simulator.programs import Program, load_program
from hotswap.demo.programs.build import VERSIONS, build_program
from tests.devices.agent.device_process import DeviceProcess, sha256
from tests.devices.agent.protocol_server import ProtocolServer, write_keys
from tests.waiting import wait_until

MODEL = "sensor-v1"


def run_in_process(version: str, folder: Path, seconds: float) -> Program:
    """Run a program for so much of its own time."""
    path = build_program(version, MODEL, folder / f"{version}.pyz")
    loaded = load_program(path, sha256(path.read_bytes()))
    now = 0.0
    program = loaded.make(lambda: now)
    while now < seconds:
        now += loaded.step_seconds
        program.step()
    return program


@pytest.mark.parametrize("version", VERSIONS)
def test_same_sources_give_the_same_bytes(version: str, tmp_path: Path) -> None:
    first = build_program(version, MODEL, tmp_path / "first.pyz")
    os.environ["TZ"] = "Asia/Tokyo"
    time.tzset()
    second = build_program(version, MODEL, tmp_path / "second.pyz")
    del os.environ["TZ"]
    time.tzset()

    assert first.read_bytes() == second.read_bytes()
    assert zipapp.get_interpreter(first) == "/usr/bin/env python3"


def test_versions_and_models_differ(tmp_path: Path) -> None:
    builds = {
        sha256(build_program(version, model, tmp_path / "build.pyz").read_bytes())
        for version in VERSIONS
        for model in ("sensor-v1", "gateway-v2")
    }

    assert len(builds) == 2 * len(VERSIONS)


def test_unknown_version_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no sources"):
        build_program("9.9.9", MODEL, tmp_path / "build.pyz")


@pytest.mark.parametrize("held_up_seconds", [1.0, 1.5, 3.0, 10.0])
@pytest.mark.parametrize("after_seconds", [0.25, 1.0, 2.0])
def test_good_version_takes_no_pause_for_an_outlier(
    after_seconds: float, held_up_seconds: float, tmp_path: Path
) -> None:
    path = build_program("2.5.0", MODEL, tmp_path / "2.5.0.pyz")
    loaded = load_program(path, sha256(path.read_bytes()))
    now = 0.0
    program = loaded.make(lambda: now)

    for _ in range(60):
        now += loaded.step_seconds
        if now == after_seconds:
            now += held_up_seconds
        program.step()

    assert program.metrics()["errors"] == 0


@pytest.mark.parametrize("version", ["2.4.0", "2.5.0"])
def test_good_versions_stay_good(version: str, tmp_path: Path) -> None:
    program = run_in_process(version, tmp_path, 600)

    assert program.metrics()["errorRate"] == 0
    assert 55 < program.metrics()["temperatureCelsius"] < 65
    assert program.memory_bytes() < 100_000


def test_bad_version_is_good_for_a_second_and_then_is_not(tmp_path: Path) -> None:
    early = run_in_process("2.6.0", tmp_path, 1.5)
    late = run_in_process("2.6.0", tmp_path, 6)

    assert early.metrics()["errorRate"] == 0
    assert late.metrics()["errorRate"] > 0.3
    assert late.memory_bytes() > 3 * early.memory_bytes()


def test_crashing_version_ends_at_once(tmp_path: Path) -> None:
    path = build_program("2.7.0", MODEL, tmp_path / "2.7.0.pyz")

    result = subprocess.run(
        [sys.executable, path],
        env={"HOTSWAP_METRICS_FILE": str(tmp_path / "metrics.json")},
        capture_output=True,
        timeout=60,
        check=False,
    )

    assert result.returncode == 1
    assert not (tmp_path / "metrics.json").exists()


def test_program_ends_on_sigterm(tmp_path: Path) -> None:
    path = build_program("2.5.0", MODEL, tmp_path / "2.5.0.pyz")
    metrics = tmp_path / "metrics.json"
    process = subprocess.Popen(
        [sys.executable, path], env={"HOTSWAP_METRICS_FILE": str(metrics)}
    )
    try:
        wait_until(metrics.exists, what="metrics")
        process.send_signal(signal.SIGTERM)

        assert process.wait(180) == 0
    finally:
        process.kill()


def test_agent_shows_the_bad_version_going_bad_after_its_claim(
    server: ProtocolServer, tmp_path: Path
) -> None:
    good = build_program("2.5.0", MODEL, tmp_path / "2.5.0.pyz").read_bytes()
    bad = build_program("2.6.0", MODEL, tmp_path / "2.6.0.pyz").read_bytes()
    device = DeviceProcess(
        tmp_path / "device",
        server,
        write_keys(tmp_path / "keys", server.signer),
        factory=good,
        self_test_seconds=1.0,
    )
    device.provision()
    try:
        device.start()
        good_beat = server.wait_for_heartbeat(
            lambda each: each["applicationMetrics"].get("sensorReadings", 0) > 2
        )
        update_id = server.order(device.device_id, bad, "2.6.0")
        server.wait_for(update_id, "confirming")
        bad_beat = server.wait_for_heartbeat(
            lambda each: each["applicationMetrics"].get("errorRate", 0) > 0.1
        )
    finally:
        device.kill()

    assert good_beat["applicationMetrics"]["errorRate"] == 0
    assert bad_beat["firmwareVersion"] == "2.6.0"
    assert bad_beat["memoryUsage"] > good_beat["memoryUsage"]
