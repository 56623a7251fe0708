"""Who takes part in the demo, and their logins.

Rules:
- Passwords are made up once and kept in a file that only its owner can read, so that
  a second start on the same folder prints the same logins.
- People are made by a process of its own, `python -m hotswap.demo.people`, because
  the API does not make people. It reads `[{username, password, role}]`.
"""

import json
import os
import secrets
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from hotswap.common.secret_files import write_secret_file
from hotswap.stack.errors import StackError

ADMIN, OPERATOR, VIEWER = "Admin", "Operator", "Viewer"
PROJECT_DIR = Path(__file__).resolve().parent.parent.parent


@dataclass(frozen=True, slots=True)
class Person:
    """One login."""

    username: str
    password: str
    role: str


@dataclass(frozen=True, slots=True)
class Cast:
    """Everyone. `release` uploads, so that `admin` may approve (four eyes)."""

    admin: Person
    operator: Person
    viewer: Person
    release: Person

    def everyone(self) -> tuple[Person, ...]:
        """All of them, the one to log in with first."""
        return (self.admin, self.operator, self.viewer, self.release)


ROLES = {"admin": ADMIN, "operator": OPERATOR, "viewer": VIEWER, "release": ADMIN}


def load_cast(path: Path) -> Cast:
    """Return the logins of this folder, made up at the first call."""
    if not path.exists():
        people = [
            Person(name, secrets.token_urlsafe(9), role) for name, role in ROLES.items()
        ]
        content = json.dumps([asdict(person) for person in people], indent=2)
        write_secret_file(path, content.encode())
    people = [Person(**fields) for fields in json.loads(path.read_text())]
    return Cast(**{person.username: person for person in people})


def begin_to_create(
    cast: Cast, environment: Mapping[str, str]
) -> "subprocess.Popen[str]":
    """Start the process that makes the people who are missing."""
    process = subprocess.Popen(
        [sys.executable, "-m", "hotswap.demo.people"],
        cwd=PROJECT_DIR,
        env=dict(environment),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdin is not None
    json.dump([asdict(person) for person in cast.everyone()], process.stdin)
    process.stdin.close()
    process.stdin = None
    return process


def finish_creating(process: "subprocess.Popen[str]") -> None:
    """Wait until all people are there.

    Raises:
        StackError: they could not be made.
    """
    output, _ = process.communicate(timeout=60)
    if process.returncode != 0:
        raise StackError(f"the demo's people could not be made:\n{output[-2000:]}")


def main() -> None:
    """Make the people named on standard input who do not exist yet."""
    from hotswap.stack.lifeline import end_with_parent

    end_with_parent()
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "hotswap.settings.local")
    import django

    import hotswap.celery  # noqa: F401

    django.setup()
    from django.contrib.auth import get_user_model

    from hotswap.common.people import create_person
    from hotswap.common.roles import Role

    users = get_user_model()._default_manager
    for fields in json.load(sys.stdin):
        person = Person(**fields)
        if not users.filter(username=person.username).exists():
            create_person(
                username=person.username,
                password=person.password,
                role=Role(person.role),
                actor=None,
            )


if __name__ == "__main__":
    main()
