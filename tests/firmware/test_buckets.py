"""Images in two buckets on two servers, one of which goes away."""

import secrets
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from django.utils import timezone

from firmware import storage, storage_locations
from firmware.exceptions import ImageChangedError, StoreUnavailableError
from firmware.models import Firmware, ImageCopy
from firmware.reachability import reachability
from firmware.services import copies
from firmware.services.approval import approve_firmware
from firmware.services.cleanup import tidy_store
from firmware.services.delivery import download_link, stored_bytes
from hotswap.common.leases import take_lease
from hotswap.common.models import AuditEvent
from tests.api import problem_of
from tests.callers import PersonCaller
from tests.common.factories import PersonFactory
from tests.firmware.factories import DeviceModelFactory, FirmwareFactory
from tests.firmware.forms import upload
from tests.s3 import S3Server, TrippingProxy, serving_s3, use_bucket

MIB = 1024 * 1024
LARGE = 11 * MIB + 7
WAYS = pytest.mark.parametrize("encryption", ["frames", "AES256"])


@dataclass(frozen=True, slots=True)
class Pair:
    """Two servers with a bucket each; `main` behind a proxy that can be tripped."""

    main: S3Server
    eu: S3Server
    proxy: TrippingProxy

    def files(self) -> tuple[set[str], set[str]]:
        """Give the names of the images that lie in each bucket.

        A server that is killed leaves its own notes of an upload beside them.
        """
        main, eu = (
            {
                path.name
                for path in (server.folder / "images").iterdir()
                if not path.name.startswith(".rclone_temp")
            }
            for server in (self.main, self.eu)
        )
        return main, eu


@pytest.fixture
def encryption() -> str:
    return "AES256"


@pytest.fixture
def pair(settings: Any, tmp_path: Path, encryption: str, db: None) -> Iterator[Pair]:
    """`main`, and `eu` that serves the region EU."""
    with serving_s3(tmp_path / "main") as main, serving_s3(tmp_path / "eu") as eu:
        for server in (main, eu):
            server.make_bucket("images")
        proxy = TrippingProxy(main.port)
        settings.FIRMWARE_DIR = tmp_path / "firmware"
        use_bucket(settings, main, "images")
        settings.S3_ENDPOINT = proxy.endpoint
        settings.S3_PUBLIC_ENDPOINT = main.endpoint
        settings.S3_ENCRYPTION = encryption
        settings.S3_BUCKETS = {
            "eu": {
                "bucket": "images",
                "endpoint": eu.endpoint,
                "accessKey": eu.access_key,
                "secretKey": eu.secret_key,
                "serves": ["EU"],
            }
        }
        yield Pair(main, eu, proxy)
        proxy.close()


def soon() -> datetime:
    """A time at which every try that failed is due again."""
    return timezone.now() + timedelta(hours=2)


def read(firmware: Firmware, region: str = "") -> bytes:
    return b"".join(stored_bytes(firmware, 0, firmware.size, region=region))


def later_kill(server: S3Server) -> None:
    """End a server, some seconds after the last answer of it was seen."""
    server.kill()
    reachability.forget()


def fetch(firmware: Firmware, region: str) -> tuple[str, bytes]:
    """Follow the link for a region; give its host and port, and the bytes."""
    link = download_link(firmware, region=region)
    assert link is not None
    answer = httpx.get(link)
    assert answer.status_code == 200
    return answer.url.netloc.decode(), answer.content


def at(server: S3Server) -> str:
    return f"127.0.0.1:{server.port}"


# Copies


@WAYS
def test_an_image_is_brought_to_every_bucket(pair: Pair) -> None:
    content = secrets.token_bytes(LARGE)
    firmware = FirmwareFactory.create(content=content)
    before = pair.files()

    completed = copies.complete_copies()

    name = firmware.storage_name
    assert before == ({name}, set())
    assert completed == 1
    assert pair.files() == ({name}, {name})
    first, second = (
        (server.folder / "images" / name).read_bytes()
        for server in (pair.main, pair.eu)
    )
    assert first == second
    assert copies.complete_copies(now=soon()) == 0


def test_a_rejected_image_is_not_copied(pair: Pair) -> None:
    FirmwareFactory.create(rejected=True)

    assert copies.complete_copies() == 0


def test_images_from_before_copies_were_counted_are_found_and_read(
    pair: Pair,
) -> None:
    firmware = FirmwareFactory.create(content=b"from before")
    ImageCopy.objects.all().delete()

    content = read(firmware)
    completed = copies.complete_copies()

    assert content == b"from before"
    assert completed == 2
    assert not ImageCopy.objects.filter(stored_at=None).exists()


@WAYS
def test_an_upload_is_taken_while_one_bucket_is_down_and_copied_later(
    pair: Pair, admin: PersonCaller
) -> None:
    DeviceModelFactory.create(name="sensor-v1")
    pair.main.kill()

    response = upload(admin, b"taken by the other")
    while_down = copies.complete_copies()
    failure = ImageCopy.objects.get(place="main").failure
    pair.main.start()
    too_soon = copies.complete_copies(now=timezone.now() - timedelta(minutes=1))
    later = copies.complete_copies(now=soon())

    assert response.status_code == 201
    assert (while_down, too_soon, later) == (0, 0, 1)
    assert failure
    name = Firmware.objects.get().storage_name
    assert pair.files() == ({name}, {name})


def test_with_no_bucket_up_an_upload_is_refused_and_leaves_nothing(
    pair: Pair, admin: PersonCaller
) -> None:
    DeviceModelFactory.create(name="sensor-v1")
    pair.main.kill()
    pair.eu.kill()

    problem_of(upload(admin, b"nowhere to go"), 503, "store_unavailable")

    assert not Firmware.objects.exists()
    assert not ImageCopy.objects.exists()
    assert list(storage.incoming_folder().iterdir()) == []


@WAYS
def test_a_bucket_killed_in_the_middle_of_an_upload_is_replaced_by_the_other(
    pair: Pair,
) -> None:
    content = secrets.token_bytes(LARGE)
    pair.proxy.arm(LARGE // 2, pair.main.kill)

    firmware = FirmwareFactory.create(content=content)

    assert pair.proxy.has_tripped
    assert pair.files() == (set(), {firmware.storage_name})
    assert read(firmware) == content
    pair.main.start()
    assert copies.complete_copies(now=soon()) == 1


def test_a_bucket_killed_in_the_middle_of_an_only_upload_leaves_nothing(
    pair: Pair, settings: Any, admin: PersonCaller
) -> None:
    DeviceModelFactory.create(name="sensor-v1")
    settings.S3_BUCKETS = {}
    pair.proxy.arm(LARGE // 2, pair.main.kill)

    response = upload(admin, secrets.token_bytes(LARGE))

    assert pair.proxy.has_tripped
    problem_of(response, 503, "store_unavailable")
    assert not Firmware.objects.exists()
    assert pair.files() == (set(), set())
    assert list(storage.incoming_folder().iterdir()) == []


def test_a_bucket_killed_in_the_middle_of_a_copy_gets_it_later(pair: Pair) -> None:
    pair.eu.kill()
    firmware = FirmwareFactory.create(content=secrets.token_bytes(LARGE))
    pair.eu.start()
    pair.proxy.arm(LARGE // 2, pair.main.kill)

    cut = copies.complete_copies()
    between = pair.files()
    pair.main.start()
    later = copies.complete_copies(now=soon())

    assert (cut, later) == (0, 1)
    assert between == ({firmware.storage_name}, set())
    assert storage.abort_unfinished("eu", before=soon()) == 0


# Reading and links


@WAYS
def test_a_region_is_served_by_its_own_bucket_first(
    pair: Pair, encryption: str
) -> None:
    firmware = FirmwareFactory.create(content=b"served")
    copies.complete_copies()

    assert copies.holders(firmware.storage_name, region="EU") == ["eu", "main"]
    assert copies.holders(firmware.storage_name, region="APAC") == ["main", "eu"]
    if encryption == "AES256":
        assert fetch(firmware, "EU") == (at(pair.eu), b"served")
        assert fetch(firmware, "APAC") == (at(pair.main), b"served")


def test_an_image_is_offered_from_those_that_hold_it_alone(pair: Pair) -> None:
    firmware = FirmwareFactory.create(content=b"not copied yet")

    assert fetch(firmware, "EU") == (at(pair.main), b"not copied yet")


def test_links_go_to_the_other_bucket_while_one_is_down(pair: Pair) -> None:
    firmware = FirmwareFactory.create(content=b"served")
    copies.complete_copies()
    later_kill(pair.eu)

    assert fetch(firmware, "EU") == (at(pair.main), b"served")


def test_a_bucket_that_never_answers_does_not_hold_up_a_download(
    pair: Pair, settings: Any
) -> None:
    firmware = FirmwareFactory.create(content=b"served")
    copies.complete_copies()
    with socket.create_server(("127.0.0.1", 0)) as mute:
        port = mute.getsockname()[1]
        settings.S3_BUCKETS["eu"]["endpoint"] = f"http://127.0.0.1:{port}"

        assert fetch(firmware, "EU") == (at(pair.main), b"served")


def test_with_no_bucket_up_a_download_is_refused_for_now(pair: Pair) -> None:
    firmware = FirmwareFactory.create()
    copies.complete_copies()
    later_kill(pair.main)
    later_kill(pair.eu)

    with pytest.raises(StoreUnavailableError):
        download_link(firmware, region="EU")


def test_a_bucket_is_used_again_when_it_is_back(pair: Pair) -> None:
    firmware = FirmwareFactory.create(content=b"served")
    later_kill(pair.main)
    with pytest.raises(StoreUnavailableError):
        download_link(firmware, region="APAC")

    pair.main.start()

    assert fetch(firmware, "APAC") == (at(pair.main), b"served")


@WAYS
def test_a_bucket_killed_in_the_middle_of_a_read_is_followed_by_the_other(
    pair: Pair,
) -> None:
    content = secrets.token_bytes(LARGE)
    firmware = FirmwareFactory.create(content=content)
    copies.complete_copies()
    pair.proxy.arm(LARGE // 2, pair.main.kill)

    received = read(firmware)

    assert pair.proxy.has_tripped
    assert received == content


@WAYS
def test_an_only_bucket_killed_in_the_middle_of_a_read_is_no_damage(
    pair: Pair,
) -> None:
    content = secrets.token_bytes(LARGE)
    firmware = FirmwareFactory.create(content=content)
    pair.proxy.arm(LARGE // 2, pair.main.kill)
    received: list[bytes] = []

    with pytest.raises(StoreUnavailableError):
        received.extend(stored_bytes(firmware, 0, firmware.size))

    assert content.startswith(b"".join(received))
    firmware.refresh_from_db()
    assert firmware.damaged_at is None


# Damage


def damage(server: S3Server, firmware: Firmware) -> None:
    path = server.folder / "images" / firmware.storage_name
    data = bytearray(path.read_bytes())
    data[-30] ^= 1
    path.write_bytes(data)


@WAYS
def test_approval_sets_a_damaged_copy_aside_and_it_is_made_again(pair: Pair) -> None:
    firmware = FirmwareFactory.create(content=secrets.token_bytes(100_000))
    copies.complete_copies()
    damage(pair.eu, firmware)

    approved = approve_firmware(
        actor=PersonFactory.create(admin=True), firmware_id=firmware.pk
    )
    held = copies.holders(firmware.storage_name, region="EU")
    healed = copies.complete_copies(now=soon())

    assert approved.status == "Approved"
    assert held == ["main"]
    assert AuditEvent.objects.filter(verb="firmware.copy-lost").count() == 1
    assert healed == 1
    assert copies.holders(firmware.storage_name, region="EU") == ["eu", "main"]


@WAYS
def test_approval_refuses_an_image_that_is_damaged_everywhere(pair: Pair) -> None:
    firmware = FirmwareFactory.create(content=secrets.token_bytes(100_000))
    copies.complete_copies()
    damage(pair.main, firmware)
    damage(pair.eu, firmware)

    with pytest.raises(ImageChangedError):
        approve_firmware(
            actor=PersonFactory.create(admin=True), firmware_id=firmware.pk
        )


@pytest.mark.parametrize("encryption", ["frames"])
def test_a_damaged_frame_is_read_from_the_other_bucket(pair: Pair) -> None:
    content = secrets.token_bytes(100_000)
    firmware = FirmwareFactory.create(content=content)
    copies.complete_copies()
    damage(pair.main, firmware)

    received = read(firmware)

    assert received == content
    firmware.refresh_from_db()
    assert firmware.damaged_at is None
    assert copies.holders(firmware.storage_name) == ["eu"]


@WAYS
def test_a_copy_that_has_vanished_is_noticed_by_tidying_and_made_again(
    pair: Pair,
) -> None:
    firmware = FirmwareFactory.create(content=b"kept")
    copies.complete_copies()
    (pair.eu.folder / "images" / firmware.storage_name).unlink()

    tidy_store()
    held = copies.holders(firmware.storage_name)
    healed = copies.complete_copies(now=soon())

    assert held == ["main"]
    assert healed == 1


def test_a_link_is_never_to_a_copy_that_has_vanished(pair: Pair) -> None:
    firmware = FirmwareFactory.create(content=b"kept")
    copies.complete_copies()
    (pair.eu.folder / "images" / firmware.storage_name).unlink()
    reachability.forget()

    assert fetch(firmware, "EU") == (at(pair.main), b"kept")
    assert copies.holders(firmware.storage_name, region="EU") == ["main"]


def test_tidying_goes_on_past_a_bucket_that_is_down(pair: Pair) -> None:
    (pair.eu.folder / "images" / "orphan.bin").write_bytes(b"x")
    later_kill(pair.main)

    removed = tidy_store(now=soon())

    assert removed == 1
    assert pair.files()[1] == set()


def test_the_rows_of_images_that_are_gone_are_dropped(pair: Pair) -> None:
    kept = FirmwareFactory.create()
    ImageCopy.objects.create(
        storage_name="gone.bin", place=storage_locations.MAIN, stored_at=timezone.now()
    )

    tidy_store(now=soon())

    assert [row.storage_name for row in ImageCopy.objects.all()] == [kept.storage_name]


def test_one_worker_copies_at_a_time(pair: Pair) -> None:
    FirmwareFactory.create()
    now = timezone.now()
    assert take_lease(copies.LEASE_NAME, length=copies.LEASE, now=now)

    while_busy = copies.complete_copies(now=now)
    after_its_death = copies.complete_copies(now=now + copies.LEASE * 2)

    assert (while_busy, after_its_death) == (0, 1)


def test_a_turn_that_was_taken_by_a_clock_that_was_ahead_is_free(pair: Pair) -> None:
    FirmwareFactory.create()
    now = timezone.now()
    ahead = now + timedelta(days=1)
    assert take_lease(copies.LEASE_NAME, length=copies.LEASE, now=ahead)

    assert copies.complete_copies(now=now) == 1
