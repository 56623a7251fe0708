"""Images that their bucket encrypts: stored plainly, fetched by short-lived links."""

import secrets
import tracemalloc
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from django.utils import timezone

from devices.models import Device
from devices.services.registry import revoke_device
from firmware import storage
from firmware.encrypted_format import DamagedImageError
from firmware.exceptions import ImageChangedError
from firmware.models import Firmware
from firmware.reachability import reachability
from firmware.services.approval import approve_firmware
from firmware.services.cleanup import tidy_store
from firmware.services.damage import note_damage
from firmware.services.delivery import download_link, stored_bytes
from firmware.services.keys import current_storage_key
from tests.api import Caller, problem_of
from tests.callers import PersonCaller
from tests.common.factories import PersonFactory
from tests.deployments.world import World
from tests.devices.factories import device_token
from tests.firmware.factories import DeviceModelFactory, FirmwareFactory, staged_image
from tests.firmware.forms import upload
from tests.s3 import S3Server, use_bucket
from tests.waiting import wait_until

MIB = 1024 * 1024
# More than one part of a multipart transfer, and no round number.
LARGE = 11 * MIB + 7


@pytest.fixture
def bucket(rclone_s3: S3Server, settings: Any, tmp_path: Path, db: None) -> Path:
    """Leave encryption to a bucket of its own; give its folder."""
    name = rclone_s3.make_bucket(f"plain-{secrets.token_hex(4)}")
    settings.FIRMWARE_DIR = tmp_path
    use_bucket(settings, rclone_s3, name)
    settings.S3_ENCRYPTION = "AES256"
    return rclone_s3.folder / name


CONTENT = secrets.token_bytes(200_000)
# Amazon says 403 of a link that is not good; rclone says 400 of some.
REFUSED = (400, 403)


@pytest.fixture
def ordered(bucket: Path) -> tuple[Caller, Firmware]:
    """A device that was ordered to install an image, and the image."""
    world = World()
    old, new = world.image("1.0.0"), world.image("2.0.0", content=CONTENT)
    (scripted,) = world.fleet(1, old)
    world.launch(new)
    assert scripted.poll() is not None
    device = Device.objects.get(pk=scripted.pk)
    return Caller(token=device_token(device)), new


def ask(ordered: tuple[Caller, Firmware]) -> Any:
    caller, firmware = ordered
    return caller.get(f"/firmware/{firmware.pk}/download")


def link_of(ordered: tuple[Caller, Firmware]) -> str:
    response = ask(ordered)
    assert response.status_code == 307
    return str(response["Location"])


def s3_client() -> Any:
    """The client that uploads use in this thread."""
    store: Any = storage.image_store()
    return store.connection.meta.client


# Uploads


@pytest.mark.parametrize("size", [1, 200_000, LARGE])
def test_an_upload_lies_in_the_bucket_as_its_own_bytes(
    bucket: Path, admin: PersonCaller, size: int
) -> None:
    DeviceModelFactory.create(name="sensor-v1")
    content = secrets.token_bytes(size)

    response = upload(admin, content)

    assert response.status_code == 201
    (stored,) = bucket.iterdir()
    assert stored.name == Firmware.objects.get().storage_name
    assert stored.read_bytes() == content
    assert list(storage.incoming_folder().iterdir()) == []


def test_plain_bytes_never_touch_the_disk_of_the_server(bucket: Path) -> None:
    marker = b"a secret recipe"
    with staged_image(marker * 50_000) as staged:
        on_disk = staged.path.read_bytes()
        storage.publish(staged, storage.new_name())

    assert marker not in on_disk


def test_an_upload_keeps_little_in_memory(bucket: Path, tmp_path: Path) -> None:
    receiver = storage.ImageReceiver(current_storage_key(), max_bytes=1 << 30)
    piece = secrets.token_bytes(MIB)
    for _ in range(64):
        receiver.write(piece)
    staged = receiver.finish()

    tracemalloc.start()
    storage.publish(staged, storage.new_name())
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert peak < 32 * MIB


@pytest.mark.parametrize("size", [1000, LARGE])
def test_an_upload_that_differs_from_its_checksum_is_not_stored(
    bucket: Path, size: int
) -> None:
    with staged_image(secrets.token_bytes(size)) as staged:
        data = bytearray(staged.path.read_bytes())
        data[-20] ^= 1
        staged.path.write_bytes(data)
        with pytest.raises(DamagedImageError):
            storage.publish(staged, storage.new_name())

    assert list(bucket.iterdir()) == []
    assert storage.abort_unfinished("main", before=timezone.now()) == 0


@pytest.fixture
def sent(bucket: Path) -> Iterator[list[Any]]:
    """The requests that go to the bucket, as they are sent."""
    requests: list[Any] = []

    def record(request: Any, **_: Any) -> None:
        requests.append(request)

    events = s3_client().meta.events
    events.register("before-send.s3", record)
    yield requests
    events.unregister("before-send.s3", record)


@pytest.mark.parametrize("size", [1000, LARGE])
@pytest.mark.parametrize(
    ("encryption", "key"), [("AES256", ""), ("aws:kms", ""), ("aws:kms", "key-1")]
)
def test_an_upload_asks_the_bucket_to_encrypt(
    sent: list[Any], settings: Any, encryption: str, key: str, size: int
) -> None:
    settings.S3_ENCRYPTION = encryption
    settings.S3_KMS_KEY = key

    FirmwareFactory.create(content=secrets.token_bytes(size))

    # What begins an upload: the whole, or the first request of one in parts. The
    # server of the tests ignores these headers.
    begins = [
        each
        for each in sent
        if each.method in {"PUT", "POST"} and "uploadId" not in each.url
    ]
    assert len(begins) == 1
    asked = {
        name.lower(): value if isinstance(value, str) else value.decode()
        for name, value in begins[0].headers.items()
    }
    assert asked["x-amz-server-side-encryption"] == encryption
    assert asked.get("x-amz-server-side-encryption-aws-kms-key-id", "") == key


def test_a_server_that_was_killed_leaves_parts_that_are_dropped_later(
    bucket: Path,
) -> None:
    s3_client().create_multipart_upload(Bucket=bucket.name, Key="left.bin")

    soon = tidy_store()
    later = tidy_store(now=timezone.now() + timedelta(hours=2))

    assert (soon, later) == (0, 1)
    assert storage.abort_unfinished("main", before=timezone.now()) == 0


# Approval


def test_approval_reads_the_image_back(bucket: Path) -> None:
    firmware = FirmwareFactory.create(content=secrets.token_bytes(LARGE), approved=True)

    assert firmware.status == "Approved"


@pytest.mark.parametrize("damage", ["flipped", "short", "gone"])
def test_approval_refuses_an_image_that_was_changed_in_the_bucket(
    bucket: Path, damage: str
) -> None:
    firmware = FirmwareFactory.create(content=CONTENT)
    stored = bucket / firmware.storage_name
    match damage:
        case "flipped":
            stored.write_bytes(bytes([CONTENT[0] ^ 1]) + CONTENT[1:])
        case "short":
            stored.write_bytes(CONTENT[:-1])
        case _:
            stored.unlink()

    with pytest.raises(ImageChangedError):
        approve_firmware(
            actor=PersonFactory.create(admin=True), firmware_id=firmware.pk
        )

    firmware.refresh_from_db()
    assert firmware.damaged_at is not None


# Downloads


def test_a_device_is_led_to_the_image_by_a_link_that_ends(
    ordered: tuple[Caller, Firmware],
) -> None:
    response = ask(ordered)

    assert response.status_code == 307
    assert response["Cache-Control"] == "no-store"
    link = response["Location"]
    query = parse_qs(urlsplit(link).query)
    assert int(query["X-Amz-Expires"][0]) <= 60
    # Nothing but the host is signed: a plain GET with any range must do.
    assert query["X-Amz-SignedHeaders"] == ["host"]
    assert httpx.get(link).content == CONTENT


def test_a_link_serves_ranges(ordered: tuple[Caller, Firmware]) -> None:
    answer = httpx.get(link_of(ordered), headers={"Range": "bytes=100-199"})

    # 206 of most servers; rclone's says 200 over the same headers.
    assert answer.status_code in (200, 206)
    assert answer.content == CONTENT[100:200]
    assert answer.headers["Content-Range"] == f"bytes 100-199/{len(CONTENT)}"


def test_a_link_opens_one_image_for_reading_only(
    ordered: tuple[Caller, Firmware],
) -> None:
    link = link_of(ordered)
    other = Firmware.objects.exclude(pk=ordered[1].pk).get()

    foreign = link.replace(ordered[1].storage_name, other.storage_name)

    assert httpx.get(foreign).status_code in REFUSED
    assert httpx.put(link, content=b"x").status_code in REFUSED
    assert httpx.delete(link).status_code in REFUSED
    assert httpx.get(link.partition("?")[0]).status_code in REFUSED


def test_a_link_expires(ordered: tuple[Caller, Firmware], settings: Any) -> None:
    settings.S3_LINK_SECONDS = 1
    link = link_of(ordered)

    status = wait_until(
        lambda: {httpx.get(link).status_code} - {200}, what="the link has expired"
    )

    assert status <= set(REFUSED)


def test_links_are_signed_for_the_address_that_devices_use(
    ordered: tuple[Caller, Firmware], settings: Any
) -> None:
    settings.S3_PUBLIC_ENDPOINT = settings.S3_ENDPOINT.replace("127.0.0.1", "localhost")

    link = link_of(ordered)

    assert link.startswith("http://localhost:")
    assert httpx.get(link).content == CONTENT


def test_who_may_not_download_gets_no_link(ordered: tuple[Caller, Firmware]) -> None:
    caller, firmware = ordered
    other = Firmware.objects.exclude(pk=firmware.pk).get()
    foreign_image = caller.get(f"/firmware/{other.pk}/download")
    device = Device.objects.get()
    revoke_device(actor=PersonFactory.create(admin=True), device_id=device.device_id)

    problem_of(foreign_image, 403, "no_active_update")
    problem_of(ask(ordered), 401)


def test_an_image_known_to_be_damaged_gets_no_link(
    ordered: tuple[Caller, Firmware],
) -> None:
    note_damage(ordered[1], "flipped")

    problem_of(ask(ordered), 503, "image_damaged")


def test_an_image_that_is_gone_is_noted_and_gets_no_link(
    ordered: tuple[Caller, Firmware], bucket: Path
) -> None:
    (bucket / ordered[1].storage_name).unlink()
    reachability.forget()

    problem_of(ask(ordered), 503, "image_damaged")

    ordered[1].refresh_from_db()
    assert ordered[1].damaged_at is not None


def test_a_bucket_that_is_away_is_503(
    ordered: tuple[Caller, Firmware], settings: Any
) -> None:
    settings.S3_ENDPOINT = "http://127.0.0.1:9"

    problem_of(ask(ordered), 503, "store_unavailable")


def test_without_its_bucket_a_plain_image_is_not_there(
    ordered: tuple[Caller, Firmware], settings: Any
) -> None:
    settings.S3_ENCRYPTION = "frames"
    settings.S3_BUCKET = ""

    problem_of(ask(ordered), 503, "image_damaged")


def test_what_was_stored_before_a_change_of_the_setting_stays_readable(
    bucket: Path, settings: Any
) -> None:
    plain = FirmwareFactory.create(content=CONTENT)
    settings.S3_ENCRYPTION = "frames"
    framed = FirmwareFactory.create(content=CONTENT)
    settings.S3_ENCRYPTION = "AES256"

    read = [b"".join(stored_bytes(each, 0, each.size)) for each in (plain, framed)]
    links = [download_link(each, region="EU") for each in (plain, framed)]

    assert read == [CONTENT, CONTENT]
    assert links[0] is not None
    assert links[1] is None
