"""What the server says of itself to probes."""

import json
import os
import secrets
import subprocess
import sys
from typing import Any

import pytest
from django.db import connection
from django.db.migrations.recorder import MigrationRecorder
from django.test import Client
from psycopg.conninfo import make_conninfo

from hotswap import operations
from hotswap.monitoring.migrations import AppliedMigrations
from hotswap.operations import SWEEP_JOB, TICK_JOB
from tests.hotswap.job_runs import run_ago
from tests.live import PROJECT_DIR

PROBE = """
import json
import django
django.setup()
from django.test import Client
print(json.dumps({
    path: Client(headers={"host": host}).get(path).status_code
    for path in ("/health", "/health/ready", "/metrics")
    for host in ("10.1.2.3:8000",)
}))
"""


def run_at(*, tick: float | None, sweep: float | None) -> None:
    """Note when ticks and sweeps ran last, in seconds before now."""
    for name, age in ((TICK_JOB, tick), (SWEEP_JOB, sweep)):
        if age is not None:
            run_ago(name, age)


def readiness() -> Any:
    answer = Client().get("/health/ready")
    assert answer.status_code == 200
    return answer.json()


def test_probes_by_address_are_answered_in_production(db: None) -> None:
    database = connection.settings_dict
    address = make_conninfo(
        dbname=database["NAME"],
        user=database["USER"],
        password=database["PASSWORD"],
        host=database["HOST"],
        port=database["PORT"],
    )

    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", PROBE],
        cwd=PROJECT_DIR,
        env={
            **os.environ,
            "DJANGO_SETTINGS_MODULE": "hotswap.settings.production",
            "HOTSWAP_SECRET_KEY": secrets.token_hex(30),
            "HOTSWAP_ALLOWED_HOSTS": "updates.example",
            "HOTSWAP_DATABASE_URL": address,
        },
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {
        "/health": 200,
        "/health/ready": 200,
        "/metrics": 401,
    }


def test_readiness_says_that_periodic_work_goes_on(db: None) -> None:
    run_at(tick=2, sweep=4)

    said = readiness()

    assert said["periodicWork"] == "ok"
    assert 2 <= said["lastTickSecondsAgo"] < 30


@pytest.mark.parametrize(
    ("tick", "sweep"), [(440, 4), (2, 440), (None, None), (2, None), (31, 2)]
)
def test_readiness_says_that_periodic_work_is_late(
    db: None, tick: float | None, sweep: float | None
) -> None:
    run_at(tick=tick, sweep=sweep)

    said = readiness()

    assert (said["status"], said["periodicWork"]) == ("ready", "late")
    assert (said["lastTickSecondsAgo"] is None) == (tick is None)


def test_a_program_newer_than_the_tables_is_not_ready(
    db: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_at(tick=2, sweep=4)
    monkeypatch.setattr(operations, "applied_migrations", AppliedMigrations())
    recorder = MigrationRecorder(connection)
    last = recorder.migration_qs.filter(app="deployments").latest("id")
    recorder.record_unapplied(last.app, last.name)

    answer = Client().get("/health/ready")

    assert answer.status_code == 503
    assert answer.json() == {"status": "unavailable", "migrations": "missing"}
    recorder.record_applied(last.app, last.name)
    assert readiness()["status"] == "ready"


@pytest.mark.parametrize("path", ["/health", "/health/ready"])
def test_probe_of_any_host_is_answered(db: None, path: str) -> None:
    assert Client(headers={"host": "10.1.2.3"}).get(path).status_code == 200


def test_other_addresses_still_look_at_the_host(db: None) -> None:
    assert Client(headers={"host": "10.1.2.3"}).get("/api/v1/docs").status_code == 400
