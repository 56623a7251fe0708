"""`hotswap set-password`: who has lost a password gets in again."""

import json
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from hotswap.cli.main import app
from hotswap.common.models import AuditEvent, RefreshToken, User
from hotswap.common.roles import Role
from tests.api import Caller
from tests.common.factories import PersonFactory

pytestmark = pytest.mark.django_db

Run = Callable[..., Any]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Run:
    for name in [name for name in os.environ if name.startswith("HOTSWAP_")]:
        monkeypatch.delenv(name)
    return lambda *words: CliRunner().invoke(app, ["set-password", *words])


@pytest.fixture
def person() -> User:
    return PersonFactory.create(username="admin", role=Role.ADMIN)


def logs_in(password: str) -> bool:
    answer = Caller().post("/auth/token", {"username": "admin", "password": password})
    return answer.status_code == 200


def test_made_up_password_is_printed_once_and_logs_in(run: Run, person: User) -> None:
    done = run("--json")

    assert done.exit_code == 0, done.output
    shown = json.loads(done.stdout)
    assert shown["username"] == "admin"
    assert logs_in(shown["password"])
    event = AuditEvent.objects.get(verb="person.password-set")
    assert (event.actor, event.object_id) == (None, str(person.pseudonym))
    assert shown["password"] not in str(event.details)


def test_command_leaves_the_logs_of_its_process_where_they_go(
    run: Run, person: User
) -> None:
    before = [*logging.getLogger().handlers]

    run("--json")

    assert logging.getLogger().handlers == before


def test_password_is_read_from_a_file_and_not_printed(
    run: Run, person: User, tmp_path: Path
) -> None:
    file = tmp_path / "password"
    file.write_text("a-l0ng-enough-phrase\n")

    done = run("admin", "--password-file", str(file))

    assert done.exit_code == 0, done.output
    assert "phrase" not in done.output
    assert logs_in("a-l0ng-enough-phrase")


def test_former_logins_end(run: Run, person: User) -> None:
    person.set_password("the-f0rmer-one")
    person.save()
    assert logs_in("the-f0rmer-one")

    run()

    assert not RefreshToken.objects.filter(revoked_at=None).exists()
    assert not logs_in("the-f0rmer-one")


def test_nobody_of_that_name_is_refused(run: Run, person: User) -> None:
    done = run("nobody", "--json")

    assert done.exit_code == 1
    assert json.loads(done.stderr)["code"] == "not_found"


def test_weak_password_is_refused_and_changes_nothing(
    run: Run, person: User, tmp_path: Path
) -> None:
    file = tmp_path / "password"
    file.write_text("12345")
    before = person.password

    done = run("--password-file", str(file), "--json")

    assert done.exit_code == 1
    assert json.loads(done.stderr)["code"] == "weak_password"
    person.refresh_from_db()
    assert person.password == before
