"""What keeps the trail as it is: nothing starts without, and a role of its own."""

from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import ProgrammingError, connection, transaction

from hotswap.common import audit
from hotswap.common.models import AuditEvent, AuditSeal
from hotswap.common.postgresql.roles import grant_rights
from hotswap.common.trail import sealer
from hotswap.common.trail.verifier import verify
from tests.common.trail.conftest import Trail


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (
            "ALTER TABLE common_auditevent DISABLE TRIGGER audit_append_only",
            "the trigger audit_append_only of common_auditevent is disabled",
        ),
        (
            "DROP TRIGGER seal_append_only ON common_auditseal",
            "the trigger seal_append_only of common_auditseal is missing",
        ),
    ],
)
def test_nothing_starts_without_the_triggers(db: None, change: str, named: str) -> None:
    call_command("prepare")
    with connection.cursor() as cursor:
        cursor.execute(change)

    with pytest.raises(CommandError, match=named):
        call_command("prepare")


@pytest.fixture
def as_application(trail: Trail) -> Any:
    """Act as the role that HotSwap runs as."""
    with connection.cursor() as cursor:
        cursor.execute("CREATE ROLE application LOGIN")
        grant_rights(cursor, "application")
        cursor.execute("SET ROLE application")
        yield trail
        cursor.execute("RESET ROLE")


def test_the_application_records_seals_and_checks_without_owning_the_tables(
    as_application: Trail,
) -> None:
    audit.record(actor=None, verb="x.y", object_kind="test", object_id="1")
    as_application.add(3)

    assert sealer.tend(now=as_application.now) == 4
    assert verify(start=1).is_intact
    assert AuditSeal.objects.count() == 4


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE common_auditevent SET verb = 'other'",
        "DELETE FROM common_auditevent",
        "TRUNCATE common_auditevent",
        "ALTER TABLE common_auditevent DISABLE TRIGGER USER",
        "DROP TRIGGER audit_append_only ON common_auditevent",
        "DROP TABLE common_auditseal",
        "UPDATE common_auditseal SET position = position + 1",
        "DELETE FROM common_auditanchor",
        """CREATE OR REPLACE FUNCTION common_refuse_audit_change() RETURNS trigger
        LANGUAGE plpgsql AS $$ BEGIN RETURN OLD; END $$""",
        "SET session_replication_role = replica",
    ],
)
def test_the_application_cannot_change_what_it_does_not_own(
    as_application: Trail, change: str
) -> None:
    as_application.add(1)

    with pytest.raises(ProgrammingError), transaction.atomic():
        with connection.cursor() as cursor:
            cursor.execute(change)

    assert AuditEvent.objects.count() == 1
