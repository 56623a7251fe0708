"""A whole fleet over HTTP: the short form of `make load-test`."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.live import PROJECT_DIR, clean_environment

DEVICES = 2_000
SECONDS = 800
needs_go = pytest.mark.skipif(not shutil.which("go"), reason="the devices need Go")


@pytest.mark.stack
@needs_go
def test_a_fleet_goes_from_its_first_login_to_its_last_proof(tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    arguments = ("--devices", str(DEVICES), "--report", str(report))

    done = subprocess.run(
        [sys.executable, "-m", "tests.load", *arguments],
        cwd=PROJECT_DIR,
        env=clean_environment(),
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )

    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(report.read_text())
    assert found["status"] == "Completed"
    # Devices repeat what an overloaded server refuses, and meet no other refusal.
    assert [what for what in found["unexpected"] if " 503" not in what] == []
    requests = found["requests"]
    assert requests["log in"]["count"] >= DEVICES
    assert requests["report"]["count"] >= 5 * DEVICES
    assert requests["order to last proof"]["count"] == DEVICES
