"""What the role that HotSwap runs as may do, and what is found that it should not."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.db import ProgrammingError, connection, transaction

from health.services import history
from hotswap.common.postgresql.roles import grant_rights, rights_too_many

pytestmark = pytest.mark.django_db


def execute(statement: str) -> list[Any]:
    with connection.cursor() as cursor:
        cursor.execute(statement)
        return cursor.fetchall() if cursor.description else []


@pytest.fixture
def application() -> None:
    """A role `application` with what HotSwap needs, beside the owner of the tables."""
    execute("CREATE ROLE tables_owner NOLOGIN")
    with connection.cursor() as cursor:
        cursor.execute("CREATE ROLE application LOGIN")
        grant_rights(cursor, "application")


def test_who_owns_nothing_has_no_right_too_many(application: None) -> None:
    execute("SET ROLE application")

    assert rights_too_many() == []


def test_a_superuser_is_named() -> None:
    assert rights_too_many() == ["The role of HOTSWAP_DATABASE_URL is a superuser."]


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ("ALTER ROLE application SUPERUSER", "is a superuser"),
        ("ALTER ROLE application CREATEROLE", "may make roles"),
        ("ALTER TABLE devices_device OWNER TO application", "owns 1 tables"),
        ("ALTER TABLE devices_device OWNER TO tables_owner", None),
        (
            (
                "ALTER TABLE devices_device OWNER TO tables_owner;"
                "GRANT tables_owner TO application"
            ),
            "owns 1 tables",
        ),
        (
            "ALTER FUNCTION common_refuse_audit_change() OWNER TO application",
            "1 functions",
        ),
        ("GRANT pg_write_all_data TO application", "common_auditevent"),
        ("GRANT UPDATE (verb) ON common_auditevent TO application", "auditevent"),
        ("GRANT DELETE ON common_auditseal TO PUBLIC", "common_auditseal"),
        ("GRANT TRUNCATE ON devices_device TO application", "devices_device"),
        ("GRANT TRIGGER ON common_auditanchor TO application", "common_auditanchor"),
        ("GRANT CREATE ON SCHEMA public TO PUBLIC", "may create objects"),
    ],
)
def test_each_right_too_many_is_named(
    application: None, change: str, named: str | None
) -> None:
    execute(change)
    execute("SET ROLE application")

    found = " ".join(rights_too_many())

    assert (found == "") if named is None else (named in found)


def test_rights_that_somebody_has_granted_are_taken_back(application: None) -> None:
    execute("GRANT ALL ON common_auditevent TO application, PUBLIC")
    execute("GRANT UPDATE (verb) ON common_auditevent TO application")
    execute("GRANT CREATE ON SCHEMA public TO PUBLIC")
    execute("REVOKE INSERT ON devices_device FROM application")

    with connection.cursor() as cursor:
        grant_rights(cursor, "application")
    execute("SET ROLE application")

    assert rights_too_many() == []
    assert execute("SELECT has_table_privilege('devices_device', 'INSERT')") == [
        (True,)
    ]


def test_partitions_are_made_and_dropped_without_owning_a_table(
    application: None,
) -> None:
    far = datetime.now(UTC) + timedelta(days=400)
    execute("SET ROLE application")
    with pytest.raises(ProgrammingError), transaction.atomic():
        execute("DROP TABLE health_reading_default")

    made = history.make_partitions(now=far)
    days = history.partition_days()
    history.drop_partitions(far + timedelta(days=3), 10)

    assert made == history.DAYS_AHEAD + 1
    assert far.date() in days
    assert history.partition_days()[0] == (far + timedelta(days=3)).date()
