"""A run of tests that is out of time has failed only where a test failed."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.live import PROJECT_DIR

GOOD = "def test_first(): pass\ndef test_second(): pass\ndef test_third(): pass\n"
BAD = GOOD.replace("pass", "assert False", 1)
ODD = "import pytest\npytestmark = pytest.mark.stack\n" + GOOD


@pytest.mark.parametrize(
    ("source", "seconds", "code", "said"),
    [
        (GOOD, "0", 0, "2 tests were not reached in 0 seconds"),
        (BAD, "0", 1, "2 tests were not reached in 0 seconds"),
        (GOOD, "3600", 0, "3 passed"),
        (BAD, "3600", 1, "1 failed, 2 passed"),
        (ODD, "3600", 0, "3 deselected"),
    ],
)
def test_a_run_fails_only_where_a_test_failed(
    source: str, seconds: str, code: int, said: str, tmp_path: Path
) -> None:
    (tmp_path / "test_some.py").write_text(source)
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers = stack\n")

    run = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "--quiet", "-p", "tests.time_limit"),
            *("--seconds", seconds, "-m", "not stack", "-p", "no:cacheprovider"),
            *("-p", "no:django", "--rootdir", tmp_path, tmp_path),
        ],
        cwd=PROJECT_DIR,
        env={"PYTEST_ADDOPTS": f"-c {tmp_path / 'pytest.ini'}"},
        capture_output=True,
        text=True,
        check=False,
    )

    assert (run.returncode, said in run.stdout) == (code, True), run.stdout + run.stderr
    assert ("not reached" in run.stdout) == (seconds == "0")
