"""New migrations neither hold a large table for long nor break the programs of before.

**Programs of before** run on while an upgrade goes from host to host
(docs/operate/upgrade.md): the tables are first widened, then used, and what nobody uses
any more goes with the release after that. So no migration takes away or renames what
they read, or demands of a new row what they do not write: a column that must not be
empty has a default in the database (`db_default`).

**Large tables**: what locks a table of one row a device or more and then looks at each
of its rows stops the fleet meanwhile. Instead:
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
# What programs of the release before could not live with.
NAME = r'(?:ONLY\s+)?"?(\w+)"?'
BREAKS = {
    "a table is removed": re.compile(rf"DROP\s+TABLE\s+(?:IF\s+EXISTS\s+)?{NAME}"),
    "a table or a column is renamed": re.compile(
        rf"ALTER\s+TABLE\s+{NAME}\s+RENAME\s+(?!CONSTRAINT)", re.DOTALL
    ),
    "a column is removed": re.compile(
        rf"ALTER\s+TABLE\s+{NAME}\s.*?\bDROP\s+COLUMN\b", re.DOTALL
    ),
    "a column has another type": re.compile(
        rf"ALTER\s+TABLE\s+{NAME}\s.*?\bALTER\s+COLUMN\s+\S+\s+TYPE\b", re.DOTALL
    ),
    "a column that was empty must not be": re.compile(
        rf"ALTER\s+TABLE\s+{NAME}\s.*?\bSET\s+NOT\s+NULL\b", re.DOTALL
    ),
    "a new column must be written": re.compile(
        rf"ALTER\s+TABLE\s+{NAME}\s.*?\bADD\s+COLUMN\b(?!.*\bDEFAULT\b)"
        r".*?\bNOT\s+NULL\b",
        re.DOTALL,
    ),
    # As Django does with a default that is its own alone.
    "a default is for the rows of now alone": re.compile(
        rf"ALTER\s+TABLE\s+{NAME}\s.*?\bDROP\s+DEFAULT\b", re.DOTALL
    ),
}
# The last migrations of before these rules; none of them was released.
BEFORE_THE_RULES = {
    "common": "0012",
    "firmware": "0003",
    "devices": "0002",
    "health": "0001",
    "deployments": "0007",
}
# Migrations that take away what the release before did not use any more: which one
# stopped to use it.
CONTRACTS: dict[str, str] = {}
# A body of a function runs later, and comments do not run.
NOT_RUN = re.compile(r"--[^\n]*|\$(\w*)\$.*?\$\1\$", re.DOTALL)
# Written before anybody had such tables.
BEFORE_ANY_RELEASE = frozenset(
    {"deployments.0003_traces", "deployments.0004_update_closed"}
)


def parts_of(statements: list[str]) -> Iterator[str]:
    """Yield what is run, statement by statement."""
    for statement in statements:
        yield from NOT_RUN.sub("", statement).split(";")


def made_by(statements: list[str]) -> set[str]:
    return set(re.findall(r'CREATE\s+TABLE\s+"?(\w+)"?', "\n".join(statements)))


def faults_of(statements: list[str]) -> Iterator[str]:
    """Name what holds a large table, unless the statements themselves make it."""
    made = made_by(statements)
    for part in parts_of(statements):
        for fault, pattern in BLOCKS.items():
            found = pattern.search(part)
            if found is not None and found["table"] not in made:
                yield f"{found['table']}: {fault}"


def breaks_of(statements: list[str]) -> Iterator[str]:
    """Name what programs of before could not live with."""
    made = made_by(statements)
    for part in parts_of(statements):
        for fault, pattern in BREAKS.items():
            found = pattern.search(part)
            if found is not None and found[1] not in made:
                yield f"{found[1]}: {fault}"


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


@pytest.mark.parametrize(
    "statement",
    [
        'DROP TABLE "firmware_sbom" CASCADE',
        'ALTER TABLE "common_clock" RENAME TO "common_jobrun"',
        'ALTER TABLE "common_user" RENAME COLUMN "a" TO "b"',
        'ALTER TABLE "common_user" DROP COLUMN "a" CASCADE',
        'ALTER TABLE "common_user" ALTER COLUMN "a" TYPE text USING "a"::text',
        'ALTER TABLE "common_user" ALTER COLUMN "a" SET NOT NULL',
        'ALTER TABLE "common_user" ADD COLUMN "a" integer NOT NULL',
        'ALTER TABLE "common_user" ALTER COLUMN "a" DROP DEFAULT',
    ],
)
def test_what_breaks_the_programs_of_before_is_found(statement: str) -> None:
    assert len(list(breaks_of([statement]))) == 1


@pytest.mark.parametrize(
    "statement",
    [
        'CREATE TABLE "a" ("b" integer NOT NULL)',
        'ALTER TABLE "common_user" ADD COLUMN "a" integer NULL',
        'ALTER TABLE "common_user" ADD COLUMN "a" integer DEFAULT 0 NOT NULL',
        'ALTER TABLE "common_user" ALTER COLUMN "a" DROP NOT NULL',
        'ALTER TABLE "common_user" RENAME CONSTRAINT "a" TO "b"',
        'DROP INDEX "a"',
    ],
)
def test_what_the_programs_of_before_do_not_notice_is_let_pass(statement: str) -> None:
    assert list(breaks_of([statement])) == []


@pytest.mark.django_db(transaction=True)
def test_programs_of_before_run_on_after_every_new_migration() -> None:
    found = {}
    for name, statements in own_migrations():
        app, number = name.split(".")[0], name.split(".")[1][:4]
        if number <= BEFORE_THE_RULES[app] or name in CONTRACTS:
            continue
        if breaks := list(breaks_of(statements)):
            found[name] = breaks

    assert found == {}


def own_migrations() -> Iterator[tuple[str, list[str]]]:
    """Yield each migration of HotSwap's own apps, as `app.name`, and its SQL."""
    loader = MigrationLoader(connection)
    for (app, name), migration in loader.graph.nodes.items():
        if app in BEFORE_THE_RULES:
            yield f"{app}.{name}", loader.collect_sql([(migration, False)])


# Without a transaction around it: an index is not made concurrently within one.
@pytest.mark.django_db(transaction=True)
def test_no_migration_holds_a_large_table() -> None:
    found = {}
    for name, statements in own_migrations():
        if ".0001_" in name or name in BEFORE_ANY_RELEASE:
            continue
        if faults := list(faults_of(statements)):
            found[name] = faults

    assert found == {}
