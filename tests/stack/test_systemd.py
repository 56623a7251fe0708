"""The units for hosts without containers run what the containers run."""

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.live import PROJECT_DIR

UNITS = PROJECT_DIR / "deploy" / "systemd"
PYTHON = "/opt/hotswap/.venv/bin/python"
# A host has a proxy of its own, and worker and beat beside each other.
DIFFERING = {"--host", "0.0.0.0", "http://127.0.0.1:9464/health"} | {
    "http://127.0.0.1:9465/health"
}


def command_of(unit: Path) -> list[str]:
    (line,) = re.findall(r"^ExecStart=(.*)$", unit.read_text(), re.MULTILINE)
    return ["python" if word == PYTHON else word for word in line.split()]


@pytest.mark.parametrize("name", ["prepare", "web", "worker", "beat"])
def test_units_run_the_commands_of_the_containers(name: str) -> None:
    compose: Any = yaml.safe_load((PROJECT_DIR / "docker-compose.yml").read_text())
    in_container = compose["services"][name]["command"]

    in_unit = command_of(UNITS / f"hotswap-{name}.service")

    assert [word for word in in_unit if word not in DIFFERING] == [
        word for word in in_container if word not in DIFFERING
    ]


def test_environment_of_a_host_says_where_its_web_server_listens() -> None:
    lines = (UNITS / "hotswap-web.service").read_text().splitlines()

    # The file comes later, and wins; an argument would win over both.
    assert "--host" not in command_of(UNITS / "hotswap-web.service")
    assert lines.index("Environment=GRANIAN_HOST=127.0.0.1") < lines.index(
        "EnvironmentFile=/etc/hotswap/environment"
    )


def test_units_are_what_systemd_takes(tmp_path: Path) -> None:
    program = shutil.which("systemd-analyze")
    # Where there is no systemd, they have at least no line that is not one.
    if program is None:
        for unit in UNITS.iterdir():
            lines = unit.read_text().splitlines()
            assert all(not line or line[0] in "#[" or "=" in line for line in lines)
        return
    for unit in UNITS.iterdir():
        # The program is not installed here.
        text = unit.read_text().replace(PYTHON, sys.executable)
        (tmp_path / unit.name).write_text(text)

    done = subprocess.run(
        [program, "verify", *sorted(tmp_path.iterdir())],
        capture_output=True,
        text=True,
        check=False,
    )

    assert "hotswap" not in done.stderr
