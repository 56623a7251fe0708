"""What every test that uses the database finds in it: roles and keys.

Rules:
- It is a copy of the migrated database with which the server began, where that is one
  of this run (`tests/prepared.py`).
- The rings of keys are made once a run (an RSA key takes longer than most tests).
- After a test with real transactions all tables are emptied but those that are alike
  in every installation; the foundation is put back. That the audit trail refuses to be
  emptied is set aside for this.
- Only what holds rows is emptied, and row by row but for the trail: to truncate every
  table, as Django would, is a second of work.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from django.contrib.auth.models import Group, Permission
from django.contrib.contenttypes.models import ContentType
from django.db import connection, transaction
from django.test import TransactionTestCase

from firmware.models import SigningKey, StorageKey
from firmware.services.keys import ensure_firmware_keys
from hotswap.common.models import KeyFingerprint
from hotswap.common.people import ensure_groups
from hotswap.common.postgresql.roles import OWNER
from hotswap.stack.postgres import DATABASE
from tests.services import has_embedded_database

NO_TRUNCATE = {
    "common_auditevent": "audit_no_truncate",
    "common_auditseal": "seal_no_truncate",
    "common_auditanchor": "anchor_no_truncate",
}
FOUNDATION = (Group, KeyFingerprint, SigningKey, StorageKey)
ALIKE = {Permission._meta.db_table, ContentType._meta.db_table}


@contextmanager
def emptiable_audit_trail() -> Iterator[None]:
    """Let the audit trail be emptied, as the owner of its table can."""
    _switch("DISABLE")
    try:
        yield
    finally:
        _switch("ENABLE ALWAYS")


def empty_tables() -> None:
    """Empty every table that has rows, whatever refers to them."""
    names = connection.introspection.django_table_names(
        only_existing=True, include_views=False
    )
    tables = sorted({*names} - ALIKE)
    with transaction.atomic(), emptiable_audit_trail(), connection.cursor() as cursor:
        # Neither triggers nor foreign keys look at each row.
        cursor.execute("SET LOCAL session_replication_role = 'replica'")
        asked = ", ".join(f"EXISTS (SELECT FROM {table})" for table in tables)
        cursor.execute(f"SELECT ARRAY[{asked}]")
        (has_rows,) = cursor.fetchone()
        for table, is_used in zip(tables, has_rows, strict=True):
            if is_used:
                how = "TRUNCATE" if table in NO_TRUNCATE else "DELETE FROM"
                cursor.execute(f"{how} {table}")


def _switch(mode: str) -> None:
    with connection.cursor() as cursor:
        for table, trigger in NO_TRUNCATE.items():
            cursor.execute(f"ALTER TABLE {table} {mode} TRIGGER {trigger}")


@pytest.fixture(scope="session")
def django_db_modify_db_settings(django_db_modify_db_settings: None) -> None:
    """Let Django copy the migrated database rather than migrate an empty one."""
    if has_embedded_database():
        connection.settings_dict["TEST"]["TEMPLATE"] = DATABASE


@pytest.fixture(scope="session")
def django_db_setup(django_db_setup: None, django_db_blocker: Any) -> Iterator[None]:
    """Lay the foundation in the new database and keep it there."""
    with django_db_blocker.unblock():
        if has_embedded_database():
            # A test does what it likes, as the one role that owns everything.
            with connection.cursor() as cursor:
                cursor.execute(f"REASSIGN OWNED BY {OWNER} TO CURRENT_USER")
        ensure_groups()
        ensure_firmware_keys()
        kept = [row for model in FOUNDATION for row in model._default_manager.all()]
    test_case: Any = TransactionTestCase
    tear_down = test_case._fixture_teardown

    def empty_and_lay_anew(case: Any) -> None:
        empty_tables()
        for row in kept:
            row.save(force_insert=True)

    test_case._fixture_teardown = empty_and_lay_anew
    yield
    test_case._fixture_teardown = tear_down
