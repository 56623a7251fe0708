"""The story end to end: `hotswap demo` as people and machines start it."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from hotswap.demo.checks import CHECKS
from hotswap.demo.main import run
from hotswap.stack.folder import free_port
from tests.live import PROJECT_DIR, alive, clean_environment
from tests.waiting import wait_until

# Bounds a run that hangs; how long it takes is no matter of a test.
LIMIT_SECONDS = 900


class DemoProcess:
    """One `hotswap demo` in a process of its own."""

    def __init__(self, data_dir: Path, *options: str) -> None:
        self.data_dir = data_dir
        self.output = data_dir.with_name(f"{data_dir.name}-output.txt")
        self.began_at = self.output.stat().st_size if self.output.exists() else 0
        with self.output.open("ab") as output:
            self.process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "hotswap.cli.main", "demo", *options),
                    *("--port", str(free_port()), "--data-dir", str(data_dir)),
                ],
                cwd=PROJECT_DIR,
                env=clean_environment(),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def said(self) -> str:
        """Return what this run has printed."""
        return self.output.read_bytes()[self.began_at :].decode()

    def wait_for(self, text: str) -> None:
        wait_until(
            lambda: text in self.said() or self.process.poll() is not None,
            seconds=LIMIT_SECONDS,
            what=text,
        )
        assert text in self.said(), self.said()

    def process_ids(self) -> set[int]:
        """Return the ids of all its processes, those of the devices included."""
        children = psutil.Process(self.process.pid).children(recursive=True)
        return {self.process.pid} | {child.pid for child in children}

    def logins(self) -> list[str]:
        return re.findall(
            r"^  \w+ +\S+ +(?:Admin|Operator|Viewer): .*", self.said(), re.MULTILINE
        )


@contextlib.contextmanager
def running(data_dir: Path, *options: str) -> Iterator[DemoProcess]:
    demo = DemoProcess(data_dir, *options)
    try:
        yield demo
    finally:
        if demo.process.poll() is None:
            demo.process.kill()
            demo.process.wait()


def left_of(pids: set[int]) -> str:
    """Name those that still run, for the message of a failure."""
    names = []
    for pid in alive(pids):
        with contextlib.suppress(psutil.NoSuchProcess):
            names.append(" ".join(psutil.Process(pid).cmdline())[:120])
    return "; ".join(names)


@pytest.mark.stack
def test_the_story_is_right_from_beginning_to_end(tmp_path: Path) -> None:
    with running(tmp_path / "demo", "--check") as demo:
        demo.wait_for("devices report")
        pids = demo.process_ids()
        code = demo.process.wait(LIMIT_SECONDS)
    said = demo.said()

    assert code == 0, said
    for line in (
        "HotSwap ready at http://127.0.0.1:",
        "60 devices report: 3 agent processes and 57 simulated devices",
        "2.5.0  deployment.completed   52 of 52 devices proved",
        "2.6.0  rollback.started",
        "2.6.0  deployment.rolled_back",
        f"All {len(CHECKS)} checks are right",
    ):
        assert line in said
    assert "WRONG" not in said
    assert left_of(pids) == ""
    evidence = json.loads((tmp_path / "demo/demo/evidence.json").read_text())
    assert len(evidence["sensors"]) == 52


@pytest.mark.stack
def test_a_killed_demo_leaves_nothing_and_starts_again(tmp_path: Path) -> None:
    with running(tmp_path / "demo") as demo:
        demo.wait_for("devices report")
        pids = demo.process_ids()
        logins = demo.logins()
        os.kill(demo.process.pid, signal.SIGKILL)
        demo.process.wait()
    wait_until(lambda: not alive(pids), what=f"the end of {left_of(pids)}")

    with running(tmp_path / "demo") as demo:
        demo.wait_for("devices report")
        pids = demo.process_ids()
        assert demo.logins() == logins
        demo.process.send_signal(signal.SIGINT)
        code = demo.process.wait(180)

    assert code == 0, demo.said()
    assert len(logins) == 4
    assert left_of(pids) == ""
    assert (tmp_path / "demo/demo/logins.json").stat().st_mode & 0o077 == 0


def test_settings_of_production_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DJANGO_SETTINGS_MODULE", "hotswap.settings.production")

    code = run(check=False, reset=False, port=free_port(), data_dir=tmp_path / "demo")

    assert code == 1
    assert "does not run with the settings" in capsys.readouterr().err
    assert not (tmp_path / "demo").exists()


@pytest.mark.parametrize("reset", [True, False])
def test_a_folder_of_something_else_is_left_alone(
    reset: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.delenv("DJANGO_SETTINGS_MODULE", raising=False)
    (tmp_path / "precious").write_text("keep me")

    code = run(check=True, reset=reset, port=free_port(), data_dir=tmp_path)

    assert code == 1
    assert "holds something else than a demo" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["precious"]
