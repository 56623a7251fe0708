"""What `hotswap doctor` finds, each cause planted."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from django.db import connection
from django.db.migrations.recorder import MigrationRecorder

from hotswap.monitoring import doctor
from hotswap.monitoring.doctor import Finding, Verdict, examine
from tests.live import PROJECT_DIR, LiveStack, clean_environment
from tests.waiting import wait_until

LONG = "a-long-random-text-of-this-installation-1234567890"


@pytest.fixture
def production(
    db: None, settings: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Any:
    """Settings as a well-kept installation has them."""
    monkeypatch.setenv("DJANGO_SETTINGS_MODULE", "hotswap.settings.production")
    settings.SECRET_KEY = LONG
    settings.ALLOWED_HOSTS = ["updates.example.com"]
    settings.PROXY_SECRET = "a secret of nginx and HotSwap"
    settings.PUBLIC_URL = ""
    settings.KEYS_DIR = tmp_path
    return settings


def found(name: str, verdict: Verdict) -> list[Finding]:
    return [each for each in examine() if (each.name, each.verdict) == (name, verdict)]


def said(name: str, verdict: Verdict) -> str:
    return " ".join(each.says for each in found(name, verdict))


def test_every_finding_that_is_not_well_says_what_to_do(production: Any) -> None:
    findings = list(examine())

    assert len({each.name for each in findings}) > 10
    for each in findings:
        is_told = each.verdict == Verdict.OK or each.advice or each.name == "settings"
        assert is_told, each


def test_open_doors_are_problems(production: Any, tmp_path: Path) -> None:
    production.ALLOWED_HOSTS = ["*"]
    production.SECRET_KEY = "changeme"
    key = tmp_path / "token.key"
    key.write_text("key")
    key.chmod(0o644)

    assert "any name" in said("settings", Verdict.PROBLEM)
    assert "is shorter than 50" in said("secrets", Verdict.PROBLEM)
    assert "token.key" in said("secrets", Verdict.PROBLEM)


def test_closed_doors_are_none(production: Any, tmp_path: Path) -> None:
    key = tmp_path / "token.key"
    key.write_text("key")
    key.chmod(0o600)

    assert not found("secrets", Verdict.PROBLEM)
    assert found("secrets", Verdict.OK)


def test_tables_of_another_version_are_a_problem(production: Any) -> None:
    assert "tables" not in said("database", Verdict.PROBLEM)
    recorder = MigrationRecorder(connection)
    last = recorder.migration_qs.filter(app="deployments").latest("id")
    recorder.record_unapplied(last.app, last.name)

    assert "tables are not those of this version" in said("database", Verdict.PROBLEM)


def test_a_proxy_that_nobody_knows_is_a_warning(production: Any) -> None:
    assert "No proxy is known" not in said("proxy", Verdict.WARNING)
    production.PROXY_SECRET = ""

    assert "No proxy is known" in said("proxy", Verdict.WARNING)
    assert "no https address" in said("proxy", Verdict.WARNING)


def test_a_public_address_that_nobody_answers_is_a_warning(production: Any) -> None:
    production.PUBLIC_URL = "https://127.0.0.1:1"

    assert "does not answer this host" in said("proxy", Verdict.WARNING)


def test_a_part_that_stands_still_is_a_problem(production: Any) -> None:
    assert "stand still" in said("tick", Verdict.PROBLEM)


def test_a_check_that_fails_stops_no_other(
    production: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken() -> Any:
        raise RuntimeError("broken")

    monkeypatch.setattr(doctor, "CHECKS", (broken, *doctor.CHECKS))

    assert "RuntimeError" in said("broken", Verdict.WARNING)
    assert found("database", Verdict.OK)


def examined(stack: LiveStack) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [
            *(sys.executable, "-m", "hotswap.cli.main", "doctor", "--json"),
            *("--data-dir", str(stack.data_dir)),
        ],
        cwd=PROJECT_DIR,
        env=clean_environment(),
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_command_finds_a_running_stack_well(live_stack: LiveStack) -> None:
    """On a machine with much else to do a sweep may be late, which it says."""

    def well() -> dict[str, Any] | None:
        done = examined(live_stack)
        sys.stdout.write(done.stdout + done.stderr)
        return json.loads(done.stdout) if done.returncode == 0 else None

    answer = wait_until(well, seconds=120, what="no problems")

    assert answer is not None
    assert answer["problems"] == 0
    names = {each["name"] for each in answer["findings"]}
    assert {"settings", "database", "redis", "store", "tick"} <= names
