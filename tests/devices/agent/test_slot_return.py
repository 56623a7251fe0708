"""The way back to an image that only the device holds."""

from dataclasses import replace
from typing import Any

import pytest

from devices.agent.installer import ImageRecord
from devices.agent.protocol import (
    Order,
    ProtocolError,
    order_to_wire,
    parse_order,
)
from devices.agent.verify import (
    Floor,
    VerificationError,
    check_manifest,
    check_slot_return,
)
from tests.devices.agent.device_process import (
    CRASHING_PROGRAM,
    DeviceProcess,
    program,
    sha256,
)
from tests.devices.agent.protocol_server import MODEL, Signer, serving
from tests.devices.agent.test_process import order_and_wait
from tests.devices.agent.test_verify import trusted
from tests.waiting import wait_until

KEPT = ImageRecord("1.0.0", "a" * 64, 100)


def slots_told(device: DeviceProcess) -> list[str]:
    """Give what the heartbeats said of the other slot, in order."""
    return [
        each["otherSlotChecksum"]
        for each in device.server.heartbeats
        if "otherSlotChecksum" in each
    ]


def test_device_from_the_factory_goes_back_without_a_download(
    device: DeviceProcess,
) -> None:
    device.start()
    order_and_wait(device, program("2.0.0"), "2.0.0", security_version=0)
    device.server.wait_for_heartbeat(
        lambda each: each.get("otherSlotChecksum") == sha256(device.factory)
    )
    fetched = len(device.server.downloads())

    back = device.server.order_slot_return(
        device.device_id, sha256(device.factory), "1.0.0"
    )
    claim = device.server.wait_for(back, "confirming", "failed")

    assert device.server.statuses(back) == [
        *("verifying", "installing", "rebooting", "confirming")
    ]
    assert claim["firmwareChecksum"] == sha256(device.factory)
    assert device.current_sha256() == sha256(device.factory)
    assert len(device.server.downloads()) == fetched
    device.server.wait_for_heartbeat(
        lambda each: (
            each["bootId"] == claim["bootId"]
            and each["firmwareChecksum"] == sha256(device.factory)
        )
    )


def test_what_is_kept_is_told_once_in_a_boot(device: DeviceProcess) -> None:
    device.start()
    wait_until(lambda: len(device.server.heartbeats) >= 3, what="heartbeats")

    assert slots_told(device) == [""]


def test_image_that_failed_its_trial_is_no_way_back(device: DeviceProcess) -> None:
    device.start()
    bad = program("2.0.0", source=CRASHING_PROGRAM)
    order_and_wait(device, bad, "2.0.0")

    back = device.server.order_slot_return(device.device_id, sha256(bad), "2.0.0")
    report = device.server.wait_for(back, "confirming", "failed")

    assert report["errorCode"] == "image_not_kept"
    assert sha256(bad) not in slots_told(device)
    assert device.current_sha256() == sha256(device.factory)


def test_image_whose_bytes_have_changed_is_no_way_back(device: DeviceProcess) -> None:
    device.start()
    image = program("2.0.0")
    order_and_wait(device, image, "2.0.0", security_version=0)
    wait_until(lambda: device.state_phase() == "idle", what="the end of the order")
    current = (device.data / "current").readlink().name
    other = device.data / "slots" / ("b" if current == "a" else "a") / "image"
    other.write_bytes(other.read_bytes() + b"#")

    back = device.server.order_slot_return(
        device.device_id, sha256(device.factory), "1.0.0"
    )
    report = device.server.wait_for(back, "confirming", "failed")

    assert report["errorCode"] == "image_not_kept"
    assert "installing" not in device.server.statuses(back)
    assert device.current_sha256() == sha256(image)


def test_leave_of_before_a_later_order_is_refused(device: DeviceProcess) -> None:
    device.start()
    sequence = device.server.next_sequence()
    order_and_wait(device, program("2.0.0"), "2.0.0", security_version=0)

    back = device.server.order_slot_return(
        device.device_id, sha256(device.factory), "1.0.0", sequence=sequence
    )
    report = device.server.wait_for(back, "confirming", "failed")

    assert report["errorCode"] == "sequence_replaced"


# Pure parts


def leave(signer: Signer, **given: Any) -> dict[str, Any]:
    with serving(signer) as server:
        server.order_slot_return("device-1", KEPT.sha256, "1.0.0", **given)
        return server.orders["device-1"]


def judge(
    order: Order,
    signer: Signer,
    *,
    floor: Floor = Floor(),  # noqa: B008 - frozen
    kept: ImageRecord | None = KEPT,
) -> str:
    try:
        manifest = check_slot_return(
            order,
            keys=trusted(signer),
            device_id="device-1",
            model=MODEL,
            floor=floor,
            kept=[kept] if kept else [],
        )
    except VerificationError as error:
        return error.code.value
    assert (manifest.sha256, manifest.size_bytes) == (KEPT.sha256, KEPT.size_bytes)
    return ""


@pytest.mark.parametrize(
    ("given", "code"),
    [
        ({}, ""),
        ({"leave_changes": {"type": "firmware"}}, "manifest_refused"),
        ({"leave_changes": {"deviceId": "device-2"}}, "manifest_refused"),
        ({"leave_changes": {"model": "other"}}, "wrong_model"),
        ({"leave_changes": {"version": "1.0.1"}}, "manifest_refused"),
        ({"leave_changes": {"sha256": "b" * 64}}, "manifest_refused"),
        ({"leave_changes": {"keyId": "0" * 16}}, "unknown_key"),
        ({"leave_changes": {"sequence": -1}}, "manifest_refused"),
        ({"order_changes": {"action": "install"}}, "manifest_refused"),
        ({"order_changes": {"manifestSignature": "AAAA"}}, "manifest_refused"),
    ],
)
def test_leave_counts_for_one_device_and_one_image(
    signer: Signer, given: dict[str, Any], code: str
) -> None:
    assert judge(parse_order(leave(signer, **given)), signer) == code


@pytest.mark.parametrize(
    ("floor", "kept", "code"),
    [
        (Floor(), None, "image_not_kept"),
        (Floor(), replace(KEPT, sha256="c" * 64), "image_not_kept"),
        (Floor(7, "c" * 64), KEPT, ""),
        (Floor(8, KEPT.sha256), KEPT, ""),
        (Floor(8, "c" * 64), KEPT, "sequence_replaced"),
        (Floor(9, KEPT.sha256), KEPT, "sequence_replaced"),
        (Floor(0, "", 1), KEPT, "security_version_too_low"),
        (Floor(0, "", 1), replace(KEPT, security_version=1), ""),
    ],
)
def test_floor_decides_of_leave_as_of_manifests(
    signer: Signer, floor: Floor, kept: ImageRecord | None, code: str
) -> None:
    order = parse_order(leave(signer, sequence=8))

    assert judge(order, signer, floor=floor, kept=kept) == code


def test_leave_is_no_manifest_and_a_manifest_is_no_leave(signer: Signer) -> None:
    given = leave(signer)
    with serving(signer) as server:
        server.order("device-1", b"image", "1.0.0", action="rollback")
        manifest = server.orders["device-1"]
    posing = {**manifest, "manifest": given["manifest"]}
    posing["manifestSignature"] = given["manifestSignature"]
    swapped = {**given, "manifest": manifest["manifest"]}
    swapped["manifestSignature"] = manifest["manifestSignature"]

    with pytest.raises(VerificationError) as refused:
        check_manifest(
            parse_order(posing),
            keys=trusted(signer),
            model=MODEL,
            floor=Floor(),
            max_image_bytes=1000,
        )
    assert refused.value.code == "manifest_refused"
    kept = replace(KEPT, sha256=sha256(b"image"))
    assert judge(parse_order(swapped), signer, kept=kept) == "manifest_refused"


def test_order_survives_the_medium(signer: Signer) -> None:
    order = parse_order(leave(signer))

    assert parse_order(order_to_wire(order)) == order


def test_order_from_somewhere_unknown_is_not_understood(signer: Signer) -> None:
    with pytest.raises(ProtocolError, match="source"):
        parse_order(leave(signer, order_changes={"source": "neighbour"}))
