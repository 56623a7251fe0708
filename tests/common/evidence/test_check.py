"""A pack is checked with nothing but the public key, and any change to it is found."""

import base64
import hashlib
import io
import json
import zipfile
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from hotswap.common.evidence.check import UnreadableError, check_pack
from hotswap.common.evidence.pack import (
    INDEX,
    SIGNATURE,
    EvidenceFile,
    evidence_pack,
    json_file,
    ndjson_file,
)
from hotswap.common.trail import chain
from hotswap.common.trail.chain import Content, content_fields, wire_time

NOW = datetime(2026, 3, 2, 12, 0, tzinfo=UTC)
KEY = Ed25519PrivateKey.generate()
ROWS = 6
OF_OTHERS = {2, 5}


def content_of(position: int) -> Content:
    return Content(NOW, "server", None, "x.y", "firmware", "1", {"n": position})


def trail_files(*, first: int = 1) -> Iterator[EvidenceFile]:
    """Six links from `first` on; rows 2 and 5 are of something else."""
    rows, links = [], [{"position": first - 1, "chainHash": (b"\0" * 32).hex()}]
    previous = chain.GENESIS
    for position in range(first, first + ROWS):
        content = content_of(position)
        hashed = chain.content_hash(content)
        previous = chain.chain_hash(
            previous,
            position=position,
            event_id=position + 10,
            content_hash=hashed,
            sealed_at=NOW,
        )
        links.append(
            {
                "position": position,
                "eventId": position + 10,
                "contentHash": hashed.hex(),
                "chainHash": previous.hex(),
                "sealedAt": wire_time(NOW),
            }
        )
        if position not in OF_OTHERS:
            rows.append(
                {"position": position, "id": position + 10, **content_fields(content)}
            )
    end = first + ROWS - 1
    anchor = chain.sign_anchor(KEY, position=end, chain_hash=previous, at=NOW)
    yield ndjson_file("audit-events.ndjson", rows)
    yield ndjson_file("audit-chain.ndjson", links)
    yield json_file(
        "audit-anchor.json", chain.anchor_document(anchor, KEY.public_key())
    )


@pytest.fixture
def pack(tmp_path: Path) -> Path:
    path = tmp_path / "pack.zip"
    path.write_bytes(
        b"".join(
            evidence_pack(
                kind="firmware",
                subject={"id": "1", "name": "sensor 1.0.0"},
                files=[json_file("firmware.json", {"sha256": "00"}), *trail_files()],
                key=KEY,
                now=NOW,
            )
        )
    )
    return path


def contents(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def rewrite(path: Path, files: dict[str, bytes]) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)


def signed_again(files: dict[str, bytes], key: Ed25519PrivateKey) -> None:
    """Make the index agree with the files, and sign it."""
    index = json.loads(files[INDEX])
    index["files"] = [
        {"name": name, "size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        for name, data in files.items()
        if name not in (INDEX, SIGNATURE)
    ]
    files[INDEX] = json.dumps(index).encode()
    files[SIGNATURE] = base64.b64encode(key.sign(files[INDEX]))


SIGNED = {
    "meaning": "approval",
    "statement": "I approve.",
    "factor": "password",
    "nameSha256": chain.name_digest("salt", "ada"),
    "record": {"sha256": "00"},
    "recordSha256": chain.record_digest({"sha256": "00"}),
}
LISTED = {
    "auditEventId": 11,
    "at": wire_time(NOW),
    "signer": None,
    "name": "ada",
    "nameSalt": "salt",
    **{name: SIGNED[name] for name in ("meaning", "statement", "factor")},
    "recordSha256": SIGNED["recordSha256"],
}


def signed_pack(path: Path, listed: list[dict[str, Any]]) -> Path:
    """Write a pack of one signed row of the trail, and of what is listed of it."""
    content = Content(
        NOW, "person", None, "x.y", "firmware", "1", {"signature": SIGNED}
    )
    hashed = chain.content_hash(content)
    end = chain.chain_hash(
        chain.GENESIS, position=1, event_id=11, content_hash=hashed, sealed_at=NOW
    )
    anchor = chain.sign_anchor(KEY, position=1, chain_hash=end, at=NOW)
    link = {
        "position": 1,
        "eventId": 11,
        "contentHash": hashed.hex(),
        "chainHash": end.hex(),
        "sealedAt": wire_time(NOW),
    }
    start = {"position": 0, "chainHash": chain.GENESIS.hex()}
    row = {"position": 1, "id": 11, **content_fields(content)}
    files = [
        json_file("signatures.json", listed),
        ndjson_file("audit-events.ndjson", [row]),
        ndjson_file("audit-chain.ndjson", [start, link]),
        json_file("audit-anchor.json", chain.anchor_document(anchor, KEY.public_key())),
    ]
    pieces = evidence_pack(kind="firmware", subject={}, files=files, key=KEY, now=NOW)
    path.write_bytes(b"".join(pieces))
    return path


def test_signatures_of_people_are_those_of_the_trail(tmp_path: Path) -> None:
    path = signed_pack(tmp_path / "pack.zip", [LISTED])

    report = check_pack(path, KEY.public_key())

    assert report.faults == []
    assert report.signatures == 1
    erased = {**LISTED, "name": None, "nameSalt": None}
    again = check_pack(signed_pack(path, [erased]), KEY.public_key())
    assert again.faults == []


@pytest.mark.parametrize(
    ("listed", "fault"),
    [
        ([{**LISTED, "name": "eve"}], "the signature of row 11 is not the one"),
        ([{**LISTED, "statement": "I refuse."}], "the signature of row 11 is not"),
        ([{**LISTED, "recordSha256": "00" * 32}], "the signature of row 11 is not"),
        ([{**LISTED, "auditEventId": 12}], "lacks the signature of row 11"),
        ([], "lacks the signature of row 11"),
    ],
)
def test_a_signature_of_another_is_found(
    tmp_path: Path, listed: list[dict[str, Any]], fault: str
) -> None:
    path = signed_pack(tmp_path / "pack.zip", listed)

    report = check_pack(path, KEY.public_key())

    assert any(fault in found for found in report.faults), report.faults


def test_a_pack_is_what_the_server_has_signed(pack: Path) -> None:
    report = check_pack(pack, KEY.public_key())

    assert report.faults == []
    assert (report.rows, report.links) == (4, 6)
    assert report.index["kind"] == "firmware"
    assert [file["name"] for file in report.index["files"]] == [
        "firmware.json",
        "audit-events.ndjson",
        "audit-chain.ndjson",
        "audit-anchor.json",
    ]


def test_it_is_written_in_pieces_while_it_is_sent(tmp_path: Path) -> None:
    taken: list[int] = []

    def pieces() -> Iterator[bytes]:
        for number in range(200):
            taken.append(number)
            yield bytes(hashlib.sha512(str(number).encode()).digest() * 100)

    sent = evidence_pack(
        kind="x", subject={}, files=[EvidenceFile("a", pieces())], key=KEY, now=NOW
    )
    first = next(sent)

    assert len(taken) < 200
    rest = b"".join(sent)
    with zipfile.ZipFile(io.BytesIO(first + rest)) as archive:
        assert archive.testzip() is None


def test_a_pack_of_another_key_is_not_genuine(pack: Path) -> None:
    report = check_pack(pack, Ed25519PrivateKey.generate().public_key())

    assert report.faults == ["the index is not signed by this key"]


@pytest.mark.parametrize("name", ["firmware.json", "audit-events.ndjson", INDEX])
def test_a_changed_file_is_found(pack: Path, name: str) -> None:
    files = contents(pack)
    files[name] = files[name].replace(b"0", b"1", 1)
    rewrite(pack, files)

    assert not check_pack(pack, KEY.public_key()).is_genuine


def test_a_file_more_or_less_is_found(pack: Path) -> None:
    files = contents(pack)
    del files["firmware.json"]
    files["other.json"] = b"{}"
    rewrite(pack, files)

    assert check_pack(pack, KEY.public_key()).faults == [
        "other.json is not in the index",
        "firmware.json is missing",
    ]


Change = Callable[[list[dict[str, Any]]], Any]
CHANGES: list[tuple[str, Change, str]] = [
    ("audit-events", lambda rows: rows[1].update(verb="z"), "not what was sealed"),
    ("audit-events", lambda rows: rows[1].update(id=99), "not what was sealed"),
    ("audit-events", lambda rows: rows[1].update(position=9), "in no link"),
    ("audit-chain", lambda rows: rows.pop(3), "missing from the chain"),
    ("audit-chain", lambda rows: rows.pop(), "does not end at its anchor"),
    (
        "audit-chain",
        lambda rows: rows[3].update(contentHash="00" * 32),
        "does not follow from the one before",
    ),
    (
        "audit-chain",
        lambda rows: rows[0].update(chainHash="11" * 32),
        "does not follow from the one before",
    ),
]


@pytest.mark.parametrize(("name", "change", "named"), CHANGES)
def test_even_who_can_sign_an_index_cannot_tell_another_story(
    pack: Path, name: str, change: Change, named: str
) -> None:
    """The trail is held against its anchor, not only against the index."""
    files = contents(pack)
    rows = [json.loads(line) for line in files[f"{name}.ndjson"].splitlines()]
    change(rows)
    files[f"{name}.ndjson"] = b"".join(json.dumps(row).encode() + b"\n" for row in rows)
    signed_again(files, KEY)
    rewrite(pack, files)

    report = check_pack(pack, KEY.public_key())

    assert any(named in fault for fault in report.faults), report.faults


@pytest.mark.parametrize(
    "content", [b"", b"PK", b"no zip at all" * 100], ids=["empty", "cut", "text"]
)
def test_what_is_no_zip_is_said_to_be_none(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.zip"
    path.write_bytes(content)

    with pytest.raises(UnreadableError, match=r"x\.zip is no whole zip"):
        check_pack(path, KEY.public_key())


@pytest.mark.parametrize(
    "index", [b"[]", b"{}", b"no json", b'{"type": "other"}', b"[" * 100_000]
)
def test_a_zip_that_is_no_pack_is_said_to_be_none(tmp_path: Path, index: bytes) -> None:
    path = tmp_path / "x.zip"
    rewrite(path, {INDEX: index, SIGNATURE: b""})

    with pytest.raises(UnreadableError, match="no evidence pack"):
        check_pack(path, KEY.public_key())


def test_a_flipped_byte_anywhere_is_found_or_changes_nothing(pack: Path) -> None:
    """The times and comments of a zip are not its content."""
    whole = contents(pack)
    data = pack.read_bytes()
    for place in range(0, len(data), 29):
        pack.write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
        try:
            report = check_pack(pack, KEY.public_key())
        except UnreadableError:
            continue
        if report.is_genuine:
            assert contents(pack) == whole
