"""Who takes part in the demo, and their logins.

Rules:
- Passwords are made up once and kept in a file that only its owner can read, so that
  a second start on the same folder prints the same logins.
- People are made while the database is prepared (`hotswap.demo.prepare`), because the
  API makes them with a password that is to be changed at the first login.
"""

import json
import secrets
from dataclasses import asdict, dataclass
from pathlib import Path

from hotswap.common.secret_files import write_secret_file

ADMIN, OPERATOR, VIEWER = "Admin", "Operator", "Viewer"


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


def create_missing(cast: Cast) -> None:
    """Add those who do not exist yet; Django is set up."""
    from django.contrib.auth import get_user_model

    from hotswap.common.people import create_person
    from hotswap.common.roles import Role

    users = get_user_model()._default_manager
    for person in cast.everyone():
        if not users.filter(username=person.username).exists():
            create_person(
                username=person.username,
                password=person.password,
                role=Role(person.role),
                actor=None,
            )
