"""Updates that must not be: each refused for its own reason, by the real agent.

One device works through the table as a fleet would: its agent is a process, what it is
told comes over HTTP. What runs is never touched: the program of the factory is started
once, stays in its slot, and a good update still comes through at the end.
"""

import base64
import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from devices.agent.installer import ImageRecord, InstallError, SlotInstaller
from tests.devices.agent.device_process import DeviceProcess, program, sha256
from tests.devices.agent.protocol_server import (
    ProtocolServer,
    Signer,
    serving,
    write_keys,
)
from tests.devices.agent.test_hostile_answers import RawServer, raw
from tests.devices.agent.test_process import order_and_wait
from tests.devices.agent.test_wrong_clock import IN_1970, YEAR, start_by_clock
from tests.waiting import wait_until

IN_2099 = 73 * YEAR
DEVICE = "device-1"
IMAGE = program("2.0.0", size_bytes=6_000)
OTHER_IMAGE = program("3.0.0", size_bytes=5_000)
NOT_UNDERSTOOD = "not understood"

Order = dict[str, Any]


@dataclass(frozen=True)
class Bench:
    """The device that is attacked, its server, and a key that nobody has pinned.

    Attributes:
        ran: the digests of what had run before the first attack, in order.
    """

    device: DeviceProcess
    server: ProtocolServer
    foreign: Signer
    ran: list[str]

    def order(self, **changes: Any) -> Order:
        """Make an order that is good but for the changes; it is not given yet."""
        self.server.order(DEVICE, IMAGE, "2.0.0", **{"security_version": 3, **changes})
        return self.server.orders.pop(DEVICE)


@dataclass(frozen=True)
class Attack:
    """A hostile update.

    Attributes:
        make: gives the order as the device is told it; may prepare the server.
        code: the code of the failure that the device reports.
    """

    name: str
    make: Callable[[Bench], Order]
    code: str


def manifest_of(order: Order) -> bytes:
    return base64.b64decode(order["manifest"])


def with_manifest(order: Order, content: bytes, signature: str = "") -> Order:
    order["manifest"] = base64.b64encode(content).decode()
    if signature:
        order["manifestSignature"] = signature
    return order


def flipped(content: bytes, position: int, bit: int = 0) -> bytes:
    changed = bytearray(content)
    changed[position] ^= 1 << bit
    return bytes(changed)


def spread(length: int, number: int) -> list[int]:
    """Give so many positions, from the first to the last byte."""
    return sorted({each * (length - 1) // (number - 1) for each in range(number)})


def attacks() -> Iterator[Attack]:
    yield from manifests_of_another()
    yield from fields_of_manifests()
    yield from fields_of_orders()
    yield from keys_of_others()
    yield from flipped_bits()
    yield from cut_and_longer()
    yield from ways()
    yield from odd_orders()


def changed(name: str, code: str, **changes: Any) -> Attack:
    return Attack(name, lambda bench: bench.order(**changes), code)


def manifests_of_another() -> Iterator[Attack]:
    """A manifest that was signed for something else."""

    def swapped(bench: Bench) -> Order:
        order = bench.order()
        bench.server.order(DEVICE, OTHER_IMAGE, "3.0.0")
        other = bench.server.orders.pop(DEVICE)
        return {
            **order,
            "manifest": other["manifest"],
            "manifestSignature": other["manifestSignature"],
        }

    def signature_of_another(bench: Bench) -> Order:
        other = bench.order()
        return {**bench.order(), "manifestSignature": other["manifestSignature"]}

    def image_signature(bench: Bench) -> Order:
        order = bench.order()
        return {**order, "manifestSignature": order["firmware"]["signature"]}

    def other_image(bench: Bench) -> Order:
        order = bench.order()
        bench.server.images[order["firmware"]["checksum"]] = OTHER_IMAGE
        return order

    def other_image_of_this_size(bench: Bench) -> Order:
        order = bench.order()
        bench.server.images[order["firmware"]["checksum"]] = b"#" * len(IMAGE)
        return order

    def another_address(bench: Bench) -> Order:
        bench.server.order(DEVICE, OTHER_IMAGE, "3.0.0")
        other = bench.server.orders.pop(DEVICE)
        order = bench.order()
        order["firmware"]["downloadUrl"] = other["firmware"]["downloadUrl"]
        return order

    def slot_return(bench: Bench) -> Order:
        bench.server.order_slot_return(DEVICE, sha256(IMAGE), "2.0.0")
        return bench.server.orders.pop(DEVICE)

    def install_by_slot_return(bench: Bench) -> Order:
        leave = slot_return(bench)
        return {
            **bench.order(),
            "manifest": leave["manifest"],
            "manifestSignature": leave["manifestSignature"],
        }

    def slot_return_by_manifest(bench: Bench) -> Order:
        return {**bench.order(), "source": "slot", "action": "rollback"}

    yield Attack("manifest of another image", swapped, "manifest_refused")
    yield Attack("signature of another", signature_of_another, "manifest_refused")
    yield Attack("signature of the image", image_signature, "manifest_refused")
    yield Attack("bytes of another image", other_image, "size_mismatch")
    yield Attack(
        "other bytes of its size", other_image_of_this_size, "checksum_mismatch"
    )
    yield Attack("address of another image", another_address, "size_mismatch")
    yield Attack("leave for what no slot keeps", slot_return, "image_not_kept")
    yield Attack("leave for a manifest", install_by_slot_return, "manifest_refused")
    yield Attack("manifest for a leave", slot_return_by_manifest, "manifest_refused")


def fields_of_manifests() -> Iterator[Attack]:
    """What a manifest states, signed as it is."""

    def stated(field: str, value: Any, code: str) -> Attack:
        name = f"manifest: {field} is {str(value)[:24]!r}"
        return changed(name, code, manifest_changes={field: value})

    def without(field: str) -> Attack:
        def make(bench: Bench) -> Order:
            order = bench.order()
            fields = json.loads(manifest_of(order))
            del fields[field]
            content = json.dumps(fields).encode()
            return with_manifest(order, content, bench.server.signer.sign(content))

        return Attack(f"manifest: no {field}", make, "manifest_refused")

    refused = "manifest_refused"
    for field in (
        *("type", "model", "version", "sequence", "securityVersion"),
        *("sha256", "size", "keyId"),
    ):
        yield without(field)
        yield stated(field, None, refused)
        yield stated(field, ["a", "list"], refused)
    for field in ("sequence", "securityVersion", "size"):
        for value in (-1, True, 1.5, "1"):
            yield stated(field, value, refused)
    for value in ("slot-return", "Firmware", "", "key"):
        yield stated("type", value, refused)
    for value in ("sensor-v2", "SENSOR-V1", "sensor-v1 ", "", "sensor"):
        yield stated("model", value, "wrong_model")
    yield changed("order and manifest of another model", "wrong_model", model="other")
    for value in ("2.0.1", "", "1.0.0"):
        yield stated("version", value, refused)
    for value in (sha256(OTHER_IMAGE), sha256(IMAGE).upper(), "", "0" * 64):
        yield stated("sha256", value, refused)
    for value in (0, len(IMAGE) - 1, len(IMAGE) + 1, 10**18):
        yield stated("size", value, refused)
    yield changed("older sequence", "sequence_replaced", sequence=1)
    yield changed("sequence of what runs", "sequence_replaced", sequence=5)
    yield changed("sequence 0", "sequence_replaced", sequence=0)
    yield changed(
        "lower security version", "security_version_too_low", security_version=2
    )
    yield changed("security version 0", "security_version_too_low", security_version=0)


def fields_of_orders() -> Iterator[Attack]:
    """What an order says of an image, against its manifest."""
    for field, value, code in (
        ("version", "2.0.1", "manifest_refused"),
        ("version", "", "manifest_refused"),
        ("model", "sensor-v2", "manifest_refused"),
        ("size", len(IMAGE) - 1, "manifest_refused"),
        ("size", len(IMAGE) + 1, "manifest_refused"),
        ("size", 0, "manifest_refused"),
        ("size", -1, "manifest_refused"),
        ("checksum", sha256(OTHER_IMAGE), "manifest_refused"),
        ("checksum", sha256(IMAGE).upper(), "manifest_refused"),
        ("checksum", "../../../etc/passwd", "manifest_refused"),
        ("signatureAlgorithm", "none", "manifest_refused"),
        ("signatureAlgorithm", "RSA-PKCS1v15-SHA1", "manifest_refused"),
        ("signatureAlgorithm", "", "manifest_refused"),
        ("keyId", "", "unknown_key"),
        ("keyId", "0" * 16, "unknown_key"),
        ("signature", "", "signature_invalid"),
        ("signature", "not base64!", "signature_invalid"),
        ("signature", base64.b64encode(bytes(256)).decode(), "signature_invalid"),
    ):
        name = f"order: {field} is {str(value)[:20]!r}"
        yield changed(name, code, firmware_changes={field: value})
    for field in ("manifest", "manifestSignature"):
        for value in ("", "not base64!", "é", "AAAA"):
            yield changed(
                f"order: {field} is {value!r}",
                "manifest_refused",
                order_changes={field: value},
            )


def keys_of_others() -> Iterator[Attack]:
    """Signatures of a key that the device has not pinned."""

    def signed_by(
        name: str, code: str, make: Callable[[Bench], dict[str, Any]]
    ) -> Attack:
        return Attack(name, lambda bench: bench.order(**make(bench)), code)

    yield signed_by(
        "manifest by a foreign key",
        "unknown_key",
        lambda bench: {"signer": bench.foreign},
    )
    yield signed_by(
        "manifest by a foreign key under the name of a pinned one",
        "manifest_refused",
        lambda bench: {
            "signer": bench.foreign,
            "manifest_changes": {"keyId": bench.server.signer.key_id},
        },
    )
    yield signed_by(
        "image by a foreign key",
        "unknown_key",
        lambda bench: {"image_signer": bench.foreign},
    )
    yield signed_by(
        "image by a foreign key under the name of a pinned one",
        "signature_invalid",
        lambda bench: {
            "image_signer": bench.foreign,
            "firmware_changes": {"keyId": bench.server.signer.key_id},
        },
    )
    yield signed_by(
        "everything by a foreign key",
        "unknown_key",
        lambda bench: {"signer": bench.foreign, "image_signer": bench.foreign},
    )
    yield signed_by(
        "manifest under the name of a foreign key",
        "unknown_key",
        lambda bench: {"manifest_changes": {"keyId": bench.foreign.key_id}},
    )


def flipped_bits() -> Iterator[Attack]:
    """One bit of what is signed, of the signatures, or of the image."""

    def in_manifest(part: float, bit: int) -> Attack:
        def make(bench: Bench) -> Order:
            order = bench.order()
            content = manifest_of(order)
            # The name of the key decides what is asked first.
            start = content.index(bench.server.signer.key_id.encode())
            position = int(part * (len(content) - 1))
            if start <= position < start + 16:
                position = start - 3
            return with_manifest(order, flipped(content, position, bit))

        return Attack(
            f"bit {bit} of the manifest at {part:.0%}", make, "manifest_refused"
        )

    def in_key_id(position: int) -> Attack:
        def make(bench: Bench) -> Order:
            order = bench.order()
            content = manifest_of(order)
            start = content.index(bench.server.signer.key_id.encode())
            return with_manifest(order, flipped(content, start + position))

        return Attack(f"a bit of the key's name at {position}", make, "unknown_key")

    def in_manifest_signature(position: int) -> Attack:
        def make(bench: Bench) -> Order:
            order = bench.order()
            signature = base64.b64decode(order["manifestSignature"])
            text = base64.b64encode(flipped(signature, position)).decode()
            return {**order, "manifestSignature": text}

        return Attack(
            f"a bit of the manifest's signature at {position}", make, "manifest_refused"
        )

    def in_image_signature(position: int) -> Attack:
        def make(bench: Bench) -> Order:
            order = bench.order()
            signature = base64.b64decode(order["firmware"]["signature"])
            text = base64.b64encode(flipped(signature, position)).decode()
            order["firmware"]["signature"] = text
            return order

        return Attack(
            f"a bit of the image's signature at {position}", make, "signature_invalid"
        )

    def in_image(position: int, bit: int) -> Attack:
        def make(bench: Bench) -> Order:
            order = bench.order()
            bench.server.images[order["firmware"]["checksum"]] = flipped(
                IMAGE, position, bit
            )
            return order

        return Attack(
            f"bit {bit} of the image at {position}", make, "checksum_mismatch"
        )

    for number in range(24):
        yield in_manifest(number / 23, bit=number % 7)
    for position in (0, 7, 15):
        yield in_key_id(position)
    for position in spread(256, 12):
        yield in_manifest_signature(position)
    for position in spread(256, 8):
        yield in_image_signature(position)
    for number, position in enumerate(spread(len(IMAGE), 12)):
        yield in_image(position, bit=number % 8)


def cut_and_longer() -> Iterator[Attack]:
    """Less or more than what was signed."""

    def image_of(name: str, image: bytes, code: str) -> Attack:
        def make(bench: Bench) -> Order:
            order = bench.order()
            bench.server.images[order["firmware"]["checksum"]] = image
            return order

        return Attack(name, make, code)

    def manifest_to(name: str, change: Callable[[bytes], bytes]) -> Attack:
        def make(bench: Bench) -> Order:
            order = bench.order()
            return with_manifest(order, change(manifest_of(order)))

        return Attack(name, make, "manifest_refused")

    def signed_manifest(name: str, change: Callable[[bytes], bytes]) -> Attack:
        def make(bench: Bench) -> Order:
            order = bench.order()
            content = change(manifest_of(order))
            return with_manifest(order, content, bench.server.signer.sign(content))

        return Attack(name, make, "manifest_refused")

    for length in (1, 10, len(IMAGE) // 2, len(IMAGE) - 1):
        yield image_of(f"image of {length} bytes", IMAGE[:length], "size_mismatch")
    for more in (b"\0", b"#" * 4096, IMAGE):
        length = len(IMAGE) + len(more)
        yield image_of(f"image of {length} bytes", IMAGE + more, "size_mismatch")
    for part in (0.0, 0.25, 0.5, 0.75, 0.99):
        yield manifest_to(
            f"manifest cut at {part:.0%}",
            lambda content, part=part: content[: int(part * len(content))],  # type: ignore[misc]
        )
    yield manifest_to("manifest and a blank", lambda content: content + b" ")
    yield manifest_to("manifest twice", lambda content: content + content)
    yield manifest_to("manifest after a blank", lambda content: b" " + content)
    yield signed_manifest("signed manifest of 64 KiB", lambda text: text + b" " * 65536)
    yield signed_manifest("signed manifest, cut", lambda text: text[:-1])
    yield signed_manifest("signed manifest, twice", lambda text: text + text)
    yield signed_manifest("signed list", lambda _: b"[]")
    yield signed_manifest("signed nothing", lambda _: b"null")
    yield signed_manifest("signed nesting", lambda _: b"[" * 30_000)
    yield signed_manifest("signed text that is none", lambda _: b"\xff\xfe")
    yield signed_manifest(
        "signed manifest with a key twice",
        lambda text: text.replace(b'"size":', b'"size":1,"size":'),
    )
    yield signed_manifest(
        "signed manifest with another model after its own",
        lambda text: text.replace(b'"model":', b'"model":"other","model":'),
    )


def ways() -> Iterator[Attack]:
    """Another way to the bytes than the server's own."""

    def address(url: str, code: str) -> Attack:
        return changed(
            f"address {url[:40]}", code, firmware_changes={"downloadUrl": url}
        )

    def answered(name: str, content: bytes, code: str) -> Attack:
        def make(bench: Bench) -> Order:
            bench.server.faults.raw_answers = {"/download": [content] * 50}
            return bench.order()

        return Attack(name, make, code)

    def led(url: str, code: str) -> Attack:
        return answered(
            f"redirect to {url[:40]}", raw("302 Found", {"Location": url}), code
        )

    def endless(name: str, head: bytes, drips: bytes, code: str) -> Attack:
        def make(bench: Bench) -> Order:
            host = RawServer(head, drips=drips)
            HOSTS.append(host)
            return bench.order(firmware_changes={"downloadUrl": f"{host.url}/image"})

        return Attack(name, make, code)

    for url in (
        *("file:///etc/passwd", "ftp://127.0.0.1/image", "gopher://127.0.0.1/"),
        *("data:,image", "javascript:alert(1)", "http://[::1/image"),
        *("http://127.0.0.1:99999999/image", "http://127.0.0.1/\r\nX: y"),
    ):
        yield address(url, "download_failed")
    for url in ("", "//", "/", "/api/v1/firmware", "image"):
        yield address(url, "path_not_found")
    for url in ("file:///etc/passwd", "ftp://127.0.0.1/image", "gopher://127.0.0.1/"):
        yield led(url, "path_foreign_host")
    # No credentials go along, not even to the same host.
    yield led("/nowhere", "path_unauthorized")
    yield answered(
        "page of a portal",
        raw("200 OK", {"Content-Type": "text/html"}, "<html>Log in</html>"),
        "path_not_firmware",
    )
    yield answered(
        "compressed image",
        raw("200 OK", {"Content-Encoding": "gzip"}, IMAGE),
        "path_not_firmware",
    )
    yield answered("body without an end", raw("200 OK", {}, IMAGE * 2), "size_mismatch")
    yield answered(
        "length of many bytes",
        raw("200 OK", {"Content-Length": "9" * 14}),
        "size_mismatch",
    )
    yield answered(
        "part of another whole",
        raw("206 Part", {"Content-Range": f"bytes 0-9/{10**12}"}, "x" * 10),
        "size_mismatch",
    )
    yield endless("endless body", raw("200 OK", {}), b"x" * 4096, "size_mismatch")
    yield endless(
        "endless chunks",
        raw("200 OK", {"Transfer-Encoding": "chunked"}),
        b"1000\r\n" + b"x" * 4096 + b"\r\n",
        "size_mismatch",
    )


def odd_orders() -> Iterator[Attack]:
    """What breaks the protocol is no order: nothing is reported, nothing fetched."""

    def odd(name: str, **changes: Any) -> Attack:
        return changed(name, NOT_UNDERSTOOD, order_changes=changes)

    yield odd("id with a path", updateId="../../devices")
    yield odd("id beyond ASCII", updateId="é")
    yield odd("no id", updateId="")
    yield odd("id that is a number", updateId=7)
    yield odd("unknown action", action="erase")
    yield odd("action that is a list", action=["install"])
    yield odd("unknown source", source="usb")
    yield odd("no firmware", firmware=None)
    yield odd("firmware that is a list", firmware=[])
    yield odd("manifest that is an object", manifest={})
    yield odd("signature that is a number", manifestSignature=1)
    yield odd("reboot that is a number", rebootRequired=1)
    for field in ("version", "model", "checksum", "signature", "downloadUrl"):
        yield changed(
            f"order: {field} is a number",
            NOT_UNDERSTOOD,
            firmware_changes={field: 1},
        )
    yield changed(
        "order: size is a text", NOT_UNDERSTOOD, firmware_changes={"size": "1"}
    )


HOSTS: list[RawServer] = []
ATTACKS = tuple(attacks())
# Under a clock of other years a few of every kind are enough.
UNDER_OTHER_CLOCKS = ATTACKS[::20]
CLOCKS = {"now": None, "1970": IN_1970, "2099": IN_2099}
TABLE = [
    pytest.param(clock, attack, id=f"{clock}: {attack.name}")
    for clock, chosen in (
        ("now", ATTACKS),
        ("1970", UNDER_OTHER_CLOCKS),
        ("2099", UNDER_OTHER_CLOCKS),
    )
    for attack in chosen
]


def make_bench(folder: Path, server: ProtocolServer, clock: str) -> Bench:
    """Start a device that has come to version 1.5.0 by a good update."""
    keys = write_keys(folder / "keys", server.signer)
    device = DeviceProcess(folder / "device", server, keys, boot_id="process")
    device.limits = {
        "fetch_attempts": 1,
        "download_patience_seconds": 0.2,
        "path_patience_seconds": 0.2,
        "retry_first_seconds": 0.01,
        "retry_ceiling_seconds": 0.02,
        "read_timeout_seconds": 1.0,
        "heartbeat_seconds": 0.5,
    }
    device.provision()
    server.heartbeat_seconds = 0.5
    offset = CLOCKS[clock]
    if offset is None:
        device.start()
    else:
        start_by_clock(device, offset)
    claim = order_and_wait(
        device, running_program(), "1.5.0", sequence=5, security_version=3
    )
    assert claim["status"] == "confirming"
    wait_until(lambda: device.state_phase() == "idle", what="the end of the order")
    wait_until(
        lambda: sha256(running_program()) in device.executed(), what="its program"
    )
    server._sequence = 100
    return Bench(device, server, Signer(), device.executed())


def running_program() -> bytes:
    return program("1.5.0")


@pytest.fixture(scope="module")
def benches() -> Iterator[dict[str, Bench]]:
    """One device for each clock, started when its first attack comes."""
    made: dict[str, Bench] = {}
    yield made
    for bench in made.values():
        bench.device.kill()
        bench.server.stop()
    while HOSTS:
        HOSTS.pop().close()


def bench_of(
    benches: dict[str, Bench],
    clock: str,
    signer: Signer,
    factory: pytest.TempPathFactory,
) -> Bench:
    if clock not in benches:
        server = ProtocolServer(signer)
        server.start()
        benches[clock] = make_bench(factory.mktemp(f"hostile-{clock}"), server, clock)
    return benches[clock]


def outcome(bench: Bench, order: Order) -> str:
    """Give an order to the device and say how it ended: the code, or not at all."""
    server, update_id = bench.server, order["updateId"]
    polls = len(polls_of(server))
    server.orders[DEVICE] = order

    def has_ended() -> bool:
        if not isinstance(update_id, str):
            return False
        return server.last(update_id, "failed", "confirming") is not None

    def is_ignored() -> bool:
        # The second poll after the first that brought it.
        return DEVICE in server.orders and len(polls_of(server)) > polls + 2

    wait_until(
        lambda: has_ended() or (not is_reported(server, update_id) and is_ignored()),
        what=f"the end of {order.get('updateId')!r}",
    )
    if not has_ended():
        server.orders.pop(DEVICE, None)
        return NOT_UNDERSTOOD
    wait_until(lambda: bench.device.state_phase() == "idle", what="the end of it")
    report = server.reports_of(update_id)[-1]
    return str(report.get("errorCode", report["status"]))


def polls_of(server: ProtocolServer) -> list[Any]:
    return [each for each in list(server.requests) if each.path.endswith("/update")]


def is_reported(server: ProtocolServer, update_id: Any) -> bool:
    return isinstance(update_id, str) and bool(server.reports_of(update_id))


@pytest.mark.parametrize(("clock", "attack"), TABLE)
def test_hostile_update_is_refused_for_its_reason_and_nothing_is_touched(
    clock: str,
    attack: Attack,
    benches: dict[str, Bench],
    signer: Signer,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    bench = bench_of(benches, clock, signer, tmp_path_factory)
    device, server = bench.device, bench.server
    fetched = len(server.downloads())
    order = attack.make(bench)

    found = outcome(bench, order)

    server.faults.raw_answers = {}
    assert found == attack.code
    assert device.executed() == bench.ran
    assert device.current_sha256() == sha256(running_program())
    if attack.code in JUDGED_BEFORE:
        assert len(server.downloads()) == fetched


# Refused by what the order is signed with: not a byte is fetched.
JUDGED_BEFORE = frozenset(
    {
        *("manifest_refused", "wrong_model", "unknown_key", "sequence_replaced"),
        *("security_version_too_low", "image_not_kept", NOT_UNDERSTOOD),
    }
)


def test_the_table_has_two_hundred_attacks_of_every_kind() -> None:
    names = [each.values for each in TABLE]

    assert len(names) >= 200
    assert len({attack.name for attack in ATTACKS}) == len(ATTACKS)
    assert {attack.code for attack in ATTACKS} >= JUDGED_BEFORE | {
        *("size_mismatch", "checksum_mismatch", "signature_invalid"),
        *("download_failed", "path_foreign_host", "path_not_firmware"),
    }


@pytest.mark.parametrize("clock", CLOCKS)
def test_a_good_update_comes_through_after_all_of_them(
    clock: str, tmp_path: Path, signer: Signer
) -> None:
    with serving(signer) as server:
        bench = make_bench(tmp_path, server, clock)
        try:
            for attack in ATTACKS[:: len(ATTACKS) // 5]:
                assert outcome(bench, attack.make(bench)) == attack.code
                server.faults.raw_answers = {}
            claim = order_and_wait(
                bench.device, IMAGE, "2.0.0", security_version=3, sequence=1000
            )
        finally:
            bench.device.kill()

    assert claim["status"] == "confirming"
    assert claim["firmwareChecksum"] == sha256(IMAGE)


# --- A slot that is a link --------------------------------------------------------


@pytest.fixture
def slots(tmp_path: Path) -> SlotInstaller:
    """A device whose slot `a` runs an image, and whose slot `b` is free."""
    installer = SlotInstaller(tmp_path / "data")
    installer.prepare()
    (installer.root / "current").symlink_to("slots/b")
    installer.install([IMAGE], record_of(IMAGE))
    installer.activate(sha256(IMAGE))
    assert installer.bootable() is not None
    return installer


def record_of(image: bytes) -> ImageRecord:
    return ImageRecord("2.0.0", sha256(image), len(image))


def test_a_slot_that_leads_to_the_running_one_is_not_written_through(
    slots: SlotInstaller,
) -> None:
    other = slots.root / "slots" / "b"
    shutil.rmtree(other)
    other.symlink_to("a")

    with pytest.raises(InstallError, match="link"):
        slots.install([OTHER_IMAGE], record_of(OTHER_IMAGE))

    running = slots.bootable()
    assert running is not None
    assert running.record.sha256 == sha256(IMAGE)


def test_a_slot_that_leads_elsewhere_is_not_written_through(
    slots: SlotInstaller, tmp_path: Path
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    kept = elsewhere / "image"
    kept.write_bytes(b"of somebody else")
    (elsewhere / "image.new").write_bytes(b"of somebody else")
    other = slots.root / "slots" / "b"
    shutil.rmtree(other)
    other.symlink_to(elsewhere)

    slots.prepare()
    with pytest.raises(InstallError, match="link"):
        slots.install([OTHER_IMAGE], record_of(OTHER_IMAGE))

    assert {each.name for each in elsewhere.iterdir()} == {"image", "image.new"}
    assert kept.read_bytes() == b"of somebody else"


def test_a_file_that_is_a_link_is_replaced_and_not_followed(
    slots: SlotInstaller, tmp_path: Path
) -> None:
    target = tmp_path / "target"
    target.write_bytes(b"of somebody else")
    for name in ("image.new", "image", "record.json"):
        (slots.root / "slots" / "b" / name).symlink_to(target)

    slots.install([OTHER_IMAGE], record_of(OTHER_IMAGE))

    assert target.read_bytes() == b"of somebody else"
    slots.activate(sha256(OTHER_IMAGE))
    assert slots.bootable() is not None


def test_the_agent_reports_a_slot_that_is_a_link_and_runs_on(
    tmp_path: Path, signer: Signer
) -> None:
    with serving(signer) as server:
        bench = make_bench(tmp_path, server, "now")
        device = bench.device
        try:
            slots = device.data / "slots"
            running = (device.data / "current").resolve()
            other = next(each for each in slots.iterdir() if each != running)
            shutil.rmtree(other)
            other.symlink_to(running)

            found = outcome(bench, bench.order(security_version=3))

            assert found == "install_failed"
            assert device.current_sha256() == sha256(running_program())
            assert device.executed() == bench.ran
        finally:
            device.kill()
