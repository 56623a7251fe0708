"""Whoever owns the tables may do anything to them, and all of it is found and named.

The tamperings are drawn with a seed. Each is done with the triggers off and on again
afterwards, and without the key that signs anchors.
"""

import json
import random
import shutil
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from django.db import connection

from hotswap.common.models import AuditAnchor, AuditEvent, AuditPending, AuditSeal
from hotswap.common.trail import anchors, chain
from hotswap.common.trail.chain import FindingKind as Kind
from hotswap.common.trail.sealer import content
from hotswap.common.trail.verifier import DEEDS, TRIGGERS, verify
from tests.common.trail.conftest import Trail, owner_rights, undone

ROWS = 24
# Of each kind: a thousand and more in all.
TIMES = 70
Tampering = Callable[[random.Random], None]


def one_row(chance: random.Random, *, lowest: int = 0) -> AuditEvent:
    return AuditEvent.objects.order_by("id")[chance.randint(lowest, ROWS - 1)]


def changed_field(chance: random.Random, row: AuditEvent) -> dict[str, Any]:
    """Draw a change of one column that makes a difference."""
    return chance.choice(
        [
            {"at": row.at + timedelta(microseconds=1)},
            {"actor": uuid4()},
            {"verb": f"{row.verb}x"},
            {"object_kind": "person"},
            {"object_id": str(uuid4())},
            {"details": {**row.details, "reason": ""}},
            {"details": {**row.details, "n": 1.0}},
            {"details": {}},
            {"actor_kind": "other"},
        ]
    )


def recompute(first: int, *, key: Ed25519PrivateKey | None = None) -> None:
    """Make the chain agree with the rows again, and sign its anchors with a key."""
    before = AuditSeal.objects.filter(position=first - 1).first()
    previous = bytes(before.chain_hash) if before else chain.GENESIS
    for seal in AuditSeal.objects.filter(position__gte=first).order_by("position"):
        row = AuditEvent.objects.get(pk=seal.event_id)
        seal.content_hash = chain.content_hash(
            content(
                [
                    *(row.at, row.actor_kind, row.actor, row.verb, row.object_kind),
                    *(row.object_id, json.dumps(row.details)),
                ]
            )
        )
        previous = seal.chain_hash = chain.chain_hash(
            previous,
            position=seal.position,
            event_id=seal.event_id,
            content_hash=seal.content_hash,
            sealed_at=seal.sealed_at,
        )
        seal.save()
    if key is not None:
        for anchor in AuditAnchor.objects.filter(position__gte=first):
            link = AuditSeal.objects.get(position=anchor.position)
            made = chain.sign_anchor(
                key,
                position=anchor.position,
                chain_hash=bytes(link.chain_hash),
                at=anchor.at,
            )
            anchor.chain_hash, anchor.signature = made.chain_hash, made.signature
            anchor.save()


def shift(position: int, by: int) -> None:
    """Move the links from a position on."""
    with connection.cursor() as cursor:
        for step in (1_000_000 + by, -1_000_000):
            cursor.execute(
                "UPDATE common_auditseal SET position = position + %s "
                "WHERE position >= %s",
                [step, position],
            )


def change_a_row(chance: random.Random) -> None:
    row = one_row(chance)
    AuditEvent.objects.filter(pk=row.pk).update(**changed_field(chance, row))


def remove_a_row(chance: random.Random) -> None:
    one_row(chance).delete()


def swap_rows(chance: random.Random) -> None:
    one, other = chance.sample(list(AuditEvent.objects.all()), 2)
    one.pk, other.pk = other.pk, one.pk
    one.save()
    other.save()


def insert_a_row(chance: random.Random) -> None:
    row = one_row(chance)
    row.pk = row.pk + 1_000_000
    row.save(force_insert=True)
    AuditPending.objects.filter(pk=row.pk).delete()


def change_a_link(chance: random.Random) -> None:
    link = chance.choice(AuditSeal.objects.all())
    change: dict[str, Any] = chance.choice(
        [
            {"content_hash": chance.randbytes(32)},
            {"chain_hash": chance.randbytes(32)},
            {"sealed_at": link.sealed_at + timedelta(seconds=1)},
            {"event_id": link.event_id + 1_000_000},
        ]
    )
    AuditSeal.objects.filter(pk=link.pk).update(**change)


def remove_a_row_with_its_link(chance: random.Random) -> None:
    link = chance.choice(AuditSeal.objects.filter(position__lt=ROWS))
    AuditEvent.objects.filter(pk=link.event_id).delete()
    link.delete()


def change_a_row_and_recompute(chance: random.Random) -> None:
    change_a_row(chance)
    recompute(1)


def insert_a_row_and_recompute(chance: random.Random) -> None:
    place = chance.randint(1, ROWS)
    link = AuditSeal.objects.get(position=place)
    insert_a_row(chance)
    shift(place, 1)
    link.event_id = AuditEvent.objects.latest("id").pk
    link.save(force_insert=True)
    recompute(place)


def remove_a_row_and_recompute(chance: random.Random) -> None:
    place = chance.randint(1, ROWS)
    link = AuditSeal.objects.get(position=place)
    AuditEvent.objects.filter(pk=link.event_id).delete()
    link.delete()
    shift(place + 1, -1)
    recompute(place)


def recompute_and_sign_with_another_key(chance: random.Random) -> None:
    AuditEvent.objects.filter(pk=one_row(chance).pk).update(verb="other")
    recompute(1, key=Ed25519PrivateKey.generate())


def restore_an_older_copy(chance: random.Random) -> None:
    kept = chance.randint(0, ROWS - 1)
    later = AuditSeal.objects.filter(position__gt=kept)
    AuditEvent.objects.filter(pk__in=later.values("event_id")).delete()
    later.delete()
    AuditAnchor.objects.filter(position__gt=kept).delete()


def forge_an_anchor(chance: random.Random) -> None:
    row = chance.choice(AuditAnchor.objects.all())
    change: dict[str, Any] = chance.choice(
        [
            {"chain_hash": chance.randbytes(32)},
            {"signature": chance.randbytes(64)},
            {"at": row.at + timedelta(seconds=1)},
            {"position": row.position + 1},
        ]
    )
    AuditAnchor.objects.filter(pk=row.pk).update(**change)


def remove_a_row_that_waits(chance: random.Random) -> None:
    row = one_row(chance)
    row.pk = row.pk + 1_000_000
    row.save(force_insert=True)
    AuditPending.objects.get_or_create(pk=row.pk)
    row.delete()


def drop_a_trigger(chance: random.Random) -> None:
    table, name = chance.choice(sorted(TRIGGERS))
    with connection.cursor() as cursor:
        cursor.execute(f"DROP TRIGGER {name} ON {table}")


def replace_a_function(chance: random.Random) -> None:
    name = chance.choice(sorted(DEEDS))
    with connection.cursor() as cursor:
        cursor.execute(
            f"CREATE OR REPLACE FUNCTION {name}() RETURNS trigger LANGUAGE plpgsql"
            " AS $$ BEGIN RETURN NULL; END $$"
        )


CASES: list[tuple[Tampering, set[Kind]]] = [
    (change_a_row, {Kind.ROW_CHANGED}),
    (remove_a_row, {Kind.ROW_REMOVED}),
    (swap_rows, {Kind.ROWS_SWAPPED}),
    (insert_a_row, {Kind.ROW_INSERTED}),
    (change_a_link, {Kind.LINK_CHANGED}),
    (remove_a_row_with_its_link, {Kind.LINK_REMOVED}),
    (change_a_row_and_recompute, {Kind.CHAIN_RECOMPUTED}),
    (insert_a_row_and_recompute, {Kind.CHAIN_RECOMPUTED}),
    (remove_a_row_and_recompute, {Kind.OLDER_COPY}),
    (recompute_and_sign_with_another_key, {Kind.ANCHOR_FORGED, Kind.CHAIN_RECOMPUTED}),
    (restore_an_older_copy, {Kind.OLDER_COPY}),
    (forge_an_anchor, {Kind.ANCHOR_FORGED}),
    (remove_a_row_that_waits, {Kind.ROW_REMOVED}),
    (drop_a_trigger, {Kind.TRIGGER_MISSING}),
    (replace_a_function, {Kind.TRIGGER_DISABLED}),
]


@pytest.fixture
def sealed(trail: Trail) -> Trail:
    """Rows with anchors of three days, the last before the end of the chain."""
    for count in (7, 8):
        trail.add(count)
        trail.wait_a_day()
        trail.seal()
    trail.add(ROWS - 15)
    trail.seal()
    assert AuditSeal.objects.count() == ROWS
    assert AuditAnchor.objects.count() == 2
    return trail


def test_the_tamperings_are_a_thousand_of_every_kind() -> None:
    named = set().union(*(kinds for _, kinds in CASES))

    assert len(CASES) * TIMES >= 1000
    assert named == set(Kind)


@pytest.mark.parametrize(
    ("tampering", "named"), CASES, ids=[case[0].__name__ for case in CASES]
)
def test_each_tampering_is_found_and_named(
    sealed: Trail, tampering: Tampering, named: set[Kind]
) -> None:
    assert verify(start=1).findings == ()
    for seed in range(TIMES):
        with undone():
            with owner_rights():
                tampering(random.Random(f"{tampering.__name__} {seed}"))

            found = {finding.kind for finding in verify(start=1).findings}

            assert named <= found, (seed, found)
    assert verify(start=1).findings == ()


def test_what_only_one_row_suffers_is_named_with_the_row(sealed: Trail) -> None:
    row = AuditEvent.objects.order_by("id")[3]
    with owner_rights():
        AuditEvent.objects.filter(pk=row.pk).update(verb="other")

    (finding,) = verify(start=1).findings

    assert (finding.kind, finding.position) == (Kind.ROW_CHANGED, 4)
    assert finding.event_id == row.pk
    assert f"row {row.pk} " in finding.detail


@pytest.mark.parametrize("trigger", TRIGGERS)
@pytest.mark.parametrize(
    ("change", "named"),
    [
        ("ALTER TABLE {table} DISABLE TRIGGER {name}", Kind.TRIGGER_DISABLED),
        ("ALTER TABLE {table} ENABLE REPLICA TRIGGER {name}", Kind.TRIGGER_DISABLED),
        ("ALTER TABLE {table} ENABLE TRIGGER {name}", Kind.TRIGGER_DISABLED),
        ("DROP TRIGGER {name} ON {table}", Kind.TRIGGER_MISSING),
        (
            """CREATE OR REPLACE FUNCTION {function}() RETURNS trigger
            LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$""",
            Kind.TRIGGER_DISABLED,
        ),
    ],
)
def test_a_trigger_that_does_not_guard_is_named(
    sealed: Trail, trigger: tuple[str, str], change: str, named: Kind
) -> None:
    table, name = trigger
    with connection.cursor() as cursor:
        cursor.execute(
            change.format(table=table, name=name, function=TRIGGERS[trigger])
        )

    found = [(finding.kind, finding.detail) for finding in verify().findings]

    assert any(kind == named and name in detail for kind, detail in found), found


@pytest.mark.parametrize(
    ("spoil", "named"),
    [
        (lambda text: text.replace('"position": ', '"position": 1'), "not signed"),
        (lambda text: text[:-20], "cannot be read"),
        (lambda text: "[]", "cannot be read"),
        (lambda text: text.replace("hotswap-audit-anchor-1", "x"), "cannot be read"),
        (lambda text: text.replace('"signature": "', '"signature": "ü'), "be read"),
    ],
)
def test_a_spoiled_anchor_file_is_named(
    sealed: Trail, audit_dir: Path, spoil: Callable[[str], str], named: str
) -> None:
    path = min(audit_dir.glob("anchor-*"))
    path.write_text(spoil(path.read_text()))

    found = verify().findings

    assert {finding.kind for finding in found} == {Kind.ANCHOR_FORGED}
    assert path.name in found[0].detail
    assert named in found[0].detail


def test_without_its_files_a_recomputed_chain_is_found_by_the_anchors_in_the_database(
    sealed: Trail, audit_dir: Path
) -> None:
    shutil.rmtree(audit_dir)
    with owner_rights():
        AuditEvent.objects.filter(pk=AuditEvent.objects.order_by("id")[2].pk).update(
            verb="other"
        )
        recompute(1)

    assert {each.kind for each in verify().findings} == {Kind.CHAIN_RECOMPUTED}


def test_an_anchor_file_is_written_again_but_never_over_another(
    sealed: Trail, audit_dir: Path
) -> None:
    first, second = sorted(audit_dir.glob("anchor-*"))
    text = second.read_text()
    second.unlink()
    first.write_text("spoiled")

    anchors.make_due_anchor(now=sealed.now)

    assert second.read_text() == text
    assert first.read_text() == "spoiled"
