"""The judgement on manifests and images, as a pure function."""

import base64
import json
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from devices.agent.protocol import ErrorCode, Order, ProtocolError, parse_order
from devices.agent.verify import (
    Floor,
    TrustedKeys,
    VerificationError,
    check_image,
    check_manifest,
    key_id_of,
)
from tests.devices.agent.device_process import sha256
from tests.devices.agent.protocol_server import MODEL, ProtocolServer, Signer, serving

IMAGE = b"an image of some bytes"


def trusted(*signers: Signer) -> TrustedKeys:
    keys = {}
    for signer in signers:
        key = serialization.load_pem_public_key(signer.pem)
        assert isinstance(key, rsa.RSAPublicKey)
        keys[key_id_of(key)] = key
    return TrustedKeys(keys)


def instruction(signer: Signer, version: str = "2.0.0", **order: Any) -> dict[str, Any]:
    with serving(signer) as server:
        server.order("device", IMAGE, version, **order)
        return server.orders["device"]


def judge(order: Order, signer: Signer, floor: Floor, limit_bytes: int = 1000) -> str:
    """Give the code of the refusal, "" if there is none."""
    try:
        check_manifest(
            order,
            keys=trusted(signer),
            model=MODEL,
            floor=floor,
            max_image_bytes=limit_bytes,
        )
    except VerificationError as error:
        return error.code.value
    return ""


def test_key_id_is_the_head_of_the_digest_of_the_der_key(signer: Signer) -> None:
    assert list(trusted(signer).by_id) == [signer.key_id]


@pytest.mark.parametrize(
    ("sequence", "security_version", "floor", "code"),
    [
        (5, 1, Floor(), ""),
        (5, 1, Floor(5, sha256(IMAGE), 1), ""),
        (5, 1, Floor(4, "0" * 64, 1), ""),
        (5, 1, Floor(5, "0" * 64, 1), "sequence_replaced"),
        (5, 1, Floor(6, sha256(IMAGE), 1), "sequence_replaced"),
        (5, 1, Floor(0, "", 2), "security_version_too_low"),
        (5, 2, Floor(0, "", 2), ""),
    ],
)
def test_floor_decides_what_is_too_old(
    signer: Signer, sequence: int, security_version: int, floor: Floor, code: str
) -> None:
    order = parse_order(
        instruction(signer, sequence=sequence, security_version=security_version)
    )

    assert judge(order, signer, floor) == code


@pytest.mark.parametrize(
    "version", ["1.7.1.10", "2026-01-05", "v2.3-14-gabcdef", "../Sommer (ü)"]
)
def test_a_version_may_be_any_text(signer: Signer, version: str) -> None:
    order = parse_order(instruction(signer, version))

    assert order.firmware.version == version
    assert judge(order, signer, Floor()) == ""


def test_image_above_the_limit_is_refused(signer: Signer) -> None:
    order = parse_order(instruction(signer))

    assert judge(order, signer, Floor(), len(IMAGE)) == ""
    assert judge(order, signer, Floor(), len(IMAGE) - 1) == "manifest_refused"


def test_manifest_with_a_key_twice_is_refused_though_signed(signer: Signer) -> None:
    wire = instruction(signer)
    raw = base64.b64decode(wire["manifest"]).replace(
        b'"type":"firmware"', b'"type":"firmware","type":"firmware"'
    )
    wire["manifest"] = base64.b64encode(raw).decode()
    wire["manifestSignature"] = signer.sign(raw)

    assert judge(parse_order(wire), signer, Floor()) == "manifest_refused"


def test_signature_counts_for_the_exact_bytes(signer: Signer) -> None:
    wire = instruction(signer)
    fields = json.loads(base64.b64decode(wire["manifest"]))
    wire["manifest"] = base64.b64encode(json.dumps(fields).encode()).decode()

    assert judge(parse_order(wire), signer, Floor()) == "manifest_refused"


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (IMAGE, None),
        (IMAGE + b"!", ErrorCode.SIZE_MISMATCH),
        (IMAGE[:-1], ErrorCode.SIZE_MISMATCH),
        (IMAGE[:-1] + b"!", ErrorCode.CHECKSUM_MISMATCH),
    ],
)
def test_image_is_judged_by_size_then_digest(
    signer: Signer, content: bytes, code: ErrorCode | None
) -> None:
    order = parse_order(instruction(signer))

    try:
        check_image([content[:3], content[3:]], order, trusted(signer))
        found = None
    except VerificationError as error:
        found = error.code

    assert found is code


@pytest.mark.parametrize(
    "change",
    [
        {"updateId": None},
        {"updateId": "../../devices"},
        {"updateId": ""},
        {"action": "dance"},
        {"firmware": []},
        {"rebootRequired": 1},
        {"manifest": 7},
    ],
)
def test_order_that_breaks_the_protocol_is_not_understood(
    signer: Signer, change: dict[str, Any]
) -> None:
    with pytest.raises(ProtocolError):
        parse_order({**instruction(signer), **change})


@pytest.mark.parametrize("traceparent", ["", "a\r\nX-Evil: 1", 7, None, "00-ab-cd-01"])
def test_traceparent_that_is_none_is_left_out(
    signer: Signer, traceparent: object
) -> None:
    order = parse_order({**instruction(signer), "traceparent": traceparent})

    assert order.traceparent == ""


def test_unknown_keys_of_an_order_are_ignored(
    server: ProtocolServer, signer: Signer
) -> None:
    assert parse_order({**instruction(signer), "later": 1}).firmware.version == "2.0.0"
