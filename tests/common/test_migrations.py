"""No new migration holds a large table for as long as it takes to read or write it.

Checked is the SQL of each migration after an app's first: what locks a table of one row
a device or more and then looks at each of its rows stops the fleet meanwhile. Instead:
`AddIndexConcurrently` (`atomic = False`), `AddConstraintNotValid` and
`ValidateConstraint` of `django.contrib.postgres.operations`, and rows changed in steps.
"""

import re
from collections.abc import Iterator

import pytest
from django.db import connection
from django.db.migrations.loader import MigrationLoader

# Rows: one a device at least.
LARGE = (
    *("devices_device", "devices_devicekey", "devices_firmwarerun"),
    *("devices_devicecertificate", "devices_devicegroup_devices"),
    *("health_devicestate", "health_reading"),
    *("deployments_target", "deployments_update", "deployments_report"),
    *("deployments_event", "deployments_quarantine", "common_auditevent"),
)
TABLE = rf'(?:ONLY\s+)?"?(?P<table>{"|".join(LARGE)})"?'
BLOCKS = {
    "an index that is not made concurrently": re.compile(
        rf"CREATE\s+(?:UNIQUE\s+)?INDEX\s+(?!CONCURRENTLY).*?\bON\s+{TABLE}\b",
        re.DOTALL,
    ),
    "a constraint whose rows are all looked at": re.compile(
        rf"ALTER\s+TABLE\s+{TABLE}\b.*?\bADD\s+CONSTRAINT\s(?!.*NOT\s+VALID)"
        r"(?!.*USING\s+INDEX)",
        re.DOTALL,
    ),
    "a column of another type": re.compile(
        rf"ALTER\s+TABLE\s+{TABLE}\b.*?\bALTER\s+COLUMN\s+\S+\s+TYPE\b", re.DOTALL
    ),
    "a column that must not be empty any more": re.compile(
        rf"ALTER\s+TABLE\s+{TABLE}\b.*?\bSET\s+NOT\s+NULL\b", re.DOTALL
    ),
    "a foreign key, or an index by itself": re.compile(
        rf"ALTER\s+TABLE\s+{TABLE}\b.*?\bADD\s+COLUMN\b.*?\b(?:REFERENCES|UNIQUE)\b",
        re.DOTALL,
    ),
    "all of its rows at once": re.compile(
        rf"(?:UPDATE|DELETE\s+FROM)\s+{TABLE}\b", re.DOTALL
    ),
}
# A body of a function runs later, and comments do not run.
NOT_RUN = re.compile(r"--[^\n]*|\$(\w*)\$.*?\$\1\$", re.DOTALL)
# Written before anybody had such tables.
BEFORE_ANY_RELEASE = frozenset(
    {"deployments.0003_traces", "deployments.0004_update_closed"}
)


def faults_of(statements: list[str]) -> Iterator[str]:
    """Name what holds a large table, unless the statements themselves make it."""
    made = set(re.findall(r'CREATE\s+TABLE\s+"?(\w+)"?', "\n".join(statements)))
    for statement in statements:
        text = NOT_RUN.sub("", statement)
        for part in text.split(";"):
            for fault, pattern in BLOCKS.items():
                found = pattern.search(part)
                if found is not None and found["table"] not in made:
                    yield f"{found['table']}: {fault}"


@pytest.mark.parametrize(
    "statement",
    [
        'CREATE INDEX "a" ON "deployments_update" ("status")',
        'ALTER TABLE "health_devicestate" ADD CONSTRAINT "a" CHECK ("cpu" > 0)',
        'ALTER TABLE "devices_device" ALTER COLUMN "region" TYPE text',
        'ALTER TABLE "devices_device" ALTER COLUMN "region" SET NOT NULL',
        "ALTER TABLE deployments_target ADD COLUMN x uuid REFERENCES devices_device",
        "UPDATE devices_device SET enabled = true",
        "-- Old ones.\nSELECT 1; DELETE FROM deployments_event",
    ],
)
def test_what_holds_a_large_table_is_found(statement: str) -> None:
    assert len(list(faults_of([statement]))) == 1


@pytest.mark.parametrize(
    "statement",
    [
        'CREATE INDEX CONCURRENTLY "a" ON "deployments_update" ("status")',
        'CREATE INDEX "a" ON "firmware_firmware" ("status")',
        'ALTER TABLE "health_devicestate" ADD CONSTRAINT "a" CHECK (b > 0) NOT VALID',
        'ALTER TABLE "health_devicestate" VALIDATE CONSTRAINT "a"',
        'ALTER TABLE "devices_device" ADD COLUMN "x" integer DEFAULT 0 NOT NULL',
        "CREATE FUNCTION f() AS $$ UPDATE devices_device SET x = 1; $$",
        "-- UPDATE devices_device SET x = 1\nSELECT 1",
    ],
)
def test_what_does_not_is_let_pass(statement: str) -> None:
    assert list(faults_of([statement])) == []


def test_what_a_migration_makes_itself_is_empty() -> None:
    made = 'CREATE TABLE "devices_device" ("id" uuid)'
    filled = 'CREATE INDEX "a" ON "devices_device" ("id")'

    assert list(faults_of([made, filled])) == []


# Without a transaction around it: an index is not made concurrently within one.
@pytest.mark.django_db(transaction=True)
def test_no_migration_holds_a_large_table() -> None:
    loader = MigrationLoader(connection)
    own = ("common", "firmware", "devices", "health", "deployments")
    found = {}
    for (app, name), migration in loader.graph.nodes.items():
        if app not in own or name.startswith("0001_"):
            continue
        statements = loader.collect_sql([(migration, False)])
        faults = list(faults_of(statements))
        if faults and f"{app}.{name}" not in BEFORE_ANY_RELEASE:
            found[f"{app}.{name}"] = faults

    assert found == {}
