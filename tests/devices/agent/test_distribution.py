"""The agent installed alone: its own wheel, cryptography, and nothing else."""

import importlib.util
import os
import shutil
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

from tests.devices.agent.device_process import REPOSITORY, DeviceProcess, program

# What cryptography needs on its own behalf.
LIBRARIES = ("cryptography", "cffi", "_cffi_backend")


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of an environment that holds the agent's wheel."""
    folder = tmp_path_factory.mktemp("alone")
    # Building leaves things beside the sources.
    shutil.copytree(
        REPOSITORY / "devices" / "agent",
        folder / "source",
        ignore=shutil.ignore_patterns("__pycache__", "build", "*.egg-info"),
    )
    subprocess.run(
        [
            *(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps"),
            *("--no-build-isolation", "--disable-pip-version-check"),
            *("--wheel-dir", str(folder), str(folder / "source")),
        ],
        check=True,
        capture_output=True,
    )
    venv.create(folder / "venv", symlinks=True)
    packages = next((folder / "venv" / "lib").glob("python*/site-packages"))
    with zipfile.ZipFile(next(folder.glob("*.whl"))) as wheel:
        wheel.extractall(packages)
    for name in LIBRARIES:
        found = importlib.util.find_spec(name)
        assert found is not None
        assert found.origin is not None
        origin = Path(found.origin)
        source = origin.parent if origin.name == "__init__.py" else origin
        (packages / source.name).symlink_to(source)
    return folder / "venv" / "bin" / "python"


def test_the_wheel_holds_the_agent_and_nothing_of_the_server(alone: Path) -> None:
    packages = next((alone.parent.parent / "lib").glob("python*/site-packages"))

    assert [path.name for path in (packages / "devices").iterdir()] == ["agent"]
    assert not (packages / "hotswap").exists()


def test_installed_alone_it_takes_an_update(
    alone: Path, device: DeviceProcess, tmp_path: Path
) -> None:
    update_id = device.server.order("device-1", program("2.0.0"), "2.0.0")

    done = subprocess.run(
        [alone, "-m", "devices.agent", "--config", device.config, "--once"],
        cwd=tmp_path,
        env={"PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    assert device.server.last(update_id, "confirming")


@pytest.mark.parametrize("name", ["django", "hotswap", "devices.models", "httpx"])
def test_nothing_of_the_server_can_be_imported_there(
    alone: Path, tmp_path: Path, name: str
) -> None:
    done = subprocess.run(
        [alone, "-c", f"import {name}"],
        cwd=tmp_path,
        env={"PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        check=False,
    )

    assert "ModuleNotFoundError" in done.stderr
