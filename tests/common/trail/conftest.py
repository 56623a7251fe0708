"""A trail of rows, sealed and anchored, and somebody who owns its tables."""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from django.db import connection, transaction

from hotswap.common.models import AuditAnchor, AuditEvent, AuditSeal
from hotswap.common.trail import sealer

START = datetime(2026, 3, 2, 12, 0, tzinfo=UTC)
TABLES = ("common_auditevent", "common_auditseal", "common_auditanchor")


class Trail:
    """Rows of the trail; time passes as they are added."""

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance
        self.now = START

    def add(self, count: int) -> list[AuditEvent]:
        rows = []
        for _ in range(count):
            self.now += timedelta(seconds=self.chance.randint(1, 900))
            rows.append(
                AuditEvent.objects.create(
                    at=self.now,
                    actor_kind=self.chance.choice(AuditEvent.ActorKind.values),
                    actor=self.chance.choice((None, uuid4())),
                    verb=f"device.{self.chance.choice(('changed', 'revoked'))}",
                    object_kind="device",
                    object_id=str(uuid4()),
                    details={"reason": "ü\n😀", "ratio": self.chance.random(), "n": 1},
                )
            )
        return rows

    def seal(self) -> int:
        return sealer.tend(now=self.now)

    def wait_a_day(self) -> None:
        self.now += timedelta(days=1)


@pytest.fixture
def audit_dir(settings: Any, tmp_path: Path) -> Path:
    settings.AUDIT_DIR = tmp_path / "audit"
    return tmp_path / "audit"


@pytest.fixture
def trail(db: None, audit_dir: Path) -> Trail:
    """An empty trail, whatever the run has recorded before."""
    with owner_rights():
        AuditEvent.objects.all().delete()
        AuditSeal.objects.all().delete()
        AuditAnchor.objects.all().delete()
    with connection.cursor() as cursor:
        cursor.execute("DELETE FROM common_auditpending")
    return Trail(random.Random(7))


@contextmanager
def owner_rights() -> Iterator[None]:
    """Do what the owner of the tables can: no trigger objects, and none tells of it."""
    with connection.cursor() as cursor:
        for table in TABLES:
            cursor.execute(f"ALTER TABLE {table} DISABLE TRIGGER USER")
        yield
        for table in TABLES:
            cursor.execute(
                "SELECT tgname FROM pg_trigger "
                "WHERE tgrelid = %s::regclass AND NOT tgisinternal",
                [table],
            )
            for (name,) in cursor.fetchall():
                cursor.execute(f"ALTER TABLE {table} ENABLE ALWAYS TRIGGER {name}")


class UndoneError(Exception):
    """Takes back what was done."""


@contextmanager
def undone() -> Iterator[None]:
    """Take back everything that was done to the database inside."""
    try:
        with transaction.atomic():
            yield
            raise UndoneError
    except UndoneError:
        pass
