"""The command line, apart from what its commands do."""

import json
import os
import subprocess
import sys
import types

import pytest
from typer.testing import CliRunner

from hotswap.cli.main import app
from tests.live import PROJECT_DIR, clean_environment


@pytest.fixture
def run(monkeypatch):
    for name in [name for name in os.environ if name.startswith("HOTSWAP_")]:
        monkeypatch.delenv(name)
    return lambda *words: CliRunner().invoke(app, words)


@pytest.fixture
def demo_calls(monkeypatch):
    """Put a recorder in the place of the demo."""
    calls = []
    module = types.ModuleType("hotswap.demo.main")
    module.run = lambda **options: calls.append(options) or 3
    monkeypatch.setitem(sys.modules, "hotswap.demo.main", module)
    return calls


def test_the_version_is_printed(run):
    assert run("version").stdout.startswith("hotswap ")


def test_the_demo_gets_its_options_and_gives_its_exit_code(run, demo_calls, tmp_path):
    result = run("demo", "--check", "--port", "8123", "--data-dir", str(tmp_path))

    assert result.exit_code == 3
    assert demo_calls == [
        {"check": True, "reset": False, "port": 8123, "data_dir": tmp_path}
    ]


def test_options_come_from_the_environment_too(run, demo_calls, monkeypatch):
    monkeypatch.setenv("HOTSWAP_PORT", "8124")

    run("demo")

    assert demo_calls[0]["port"] == 8124


def test_a_demo_for_people_and_one_for_checks_keep_apart(run, demo_calls):
    run("demo")
    run("demo", "--check")

    folders = [call["data_dir"] for call in demo_calls]
    assert folders == [
        PROJECT_DIR / ".hotswap-demo",
        PROJECT_DIR / ".hotswap-demo-check",
    ]


@pytest.mark.parametrize("port", ["0", "65536", "http"])
def test_an_impossible_port_is_refused(run, port):
    assert run("serve", "--port", port).exit_code == 2


def test_serve_says_why_it_cannot_start(tmp_path):
    (tmp_path / "file").touch()

    done = subprocess.run(
        [
            *(sys.executable, "-m", "hotswap.cli.main", "serve"),
            *("--data-dir", str(tmp_path / "file")),
        ],
        cwd=PROJECT_DIR,
        env=clean_environment(),
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 1
    line = json.loads(done.stderr)
    assert line["level"] == "CRITICAL"
    assert line["message"].startswith("cannot use ")
    assert "exception" not in line


def test_asking_for_help_loads_neither_django_nor_the_stack_nor_the_agent():
    code = (
        "import sys; sys.argv = ['hotswap', '--help']\n"
        "from hotswap.cli.main import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "unused = {'django', 'hotswap.stack', 'psycopg', 'devices'}\n"
        "loaded = unused & set(sys.modules)\n"
        "sys.exit(str(loaded) if loaded else 0)"
    )

    assert subprocess.run([sys.executable, "-c", code], cwd=PROJECT_DIR).returncode == 0
