"""The audit trail, as the database keeps it."""

import pytest
from django.db import DatabaseError, connection, transaction

from hotswap.common.audit import record
from tests.common.factories import PersonFactory

CHANGES = (
    "UPDATE common_auditevent SET verb = 'other'",
    "DELETE FROM common_auditevent",
    "TRUNCATE common_auditevent",
)
# What a session can say of itself; the last needs a superuser.
SWITCHES = (
    "SELECT 1",
    "SELECT set_config('pgtrigger.ignore', '{{{names}}}', true)",
    "SET LOCAL session_replication_role = replica",
)


@pytest.mark.django_db
@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("switch", SWITCHES)
def test_nothing_that_was_recorded_is_changed(switch: str, change: str) -> None:
    record(
        actor=PersonFactory.create(), verb="x.y", object_kind="device", object_id="1"
    )
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT string_agg(tgname, ',') FROM pg_trigger "
            "WHERE tgrelid = 'common_auditevent'::regclass AND NOT tgisinternal"
        )
        (names,) = cursor.fetchone()
        cursor.execute(switch.format(names=names))
        with pytest.raises(DatabaseError, match="append-only"), transaction.atomic():
            cursor.execute(change)
        cursor.execute("SELECT verb FROM common_auditevent")
        rows = cursor.fetchall()

    assert ("x.y",) in rows
