"""Images in a bucket of a real S3 server."""

import secrets
from pathlib import Path
from typing import Any

import pytest
from django.core.files.storage import FileSystemStorage

from firmware.encrypted_format import FRAME_BYTES
from firmware.exceptions import ImageUnavailableError, StoreUnavailableError
from firmware.models import Firmware
from firmware.services.cleanup import tidy_store
from firmware.services.delivery import stored_bytes
from firmware.storage import image_store, incoming_folder
from hotswap.common.models import AuditEvent
from tests.api import problem_of
from tests.callers import PersonCaller
from tests.firmware.factories import DeviceModelFactory, FirmwareFactory
from tests.firmware.forms import upload
from tests.s3 import S3Server, TrippingProxy, use_bucket

# More than one part of a multipart transfer, and no round number.
LARGE = 9 * 1024 * 1024 + 7


@pytest.fixture
def bucket(rclone_s3: S3Server, settings: Any, tmp_path: Path, db: None) -> Path:
    """Keep images in a bucket of their own; give its folder."""
    name = rclone_s3.make_bucket(f"images-{secrets.token_hex(4)}")
    settings.FIRMWARE_DIR = tmp_path
    use_bucket(settings, rclone_s3, name)
    return rclone_s3.folder / name


def test_without_a_bucket_images_lie_in_a_folder() -> None:
    assert isinstance(image_store(), FileSystemStorage)


def test_an_upload_goes_to_the_bucket_encrypted_and_leaves_nothing_here(
    bucket: Path, admin: PersonCaller
) -> None:
    DeviceModelFactory.create(name="sensor-v1")
    content = b"a secret recipe" * 50_000

    response = upload(admin, content)

    assert response.status_code == 201
    firmware = Firmware.objects.get()
    (stored,) = bucket.iterdir()
    assert stored.name == firmware.storage_name
    assert b"secret" not in stored.read_bytes()
    assert list(incoming_folder().iterdir()) == []
    assert b"".join(stored_bytes(firmware, 0, firmware.size)) == content


def test_any_range_is_read_from_the_bucket(bucket: Path) -> None:
    content = secrets.token_bytes(LARGE)
    firmware = FirmwareFactory.create(content=content)
    ranges = [
        (0, 1),
        (LARGE - 1, LARGE),
        (FRAME_BYTES - 1, FRAME_BYTES + 1),
        (4 * 1024 * 1024 - 100, 4 * 1024 * 1024 + 100),
        (0, LARGE),
    ]

    read = [b"".join(stored_bytes(firmware, *range_)) for range_ in ranges]

    assert read == [content[start:end] for start, end in ranges]


def test_a_damaged_object_is_noticed_and_noted(bucket: Path) -> None:
    firmware = FirmwareFactory.create(content=secrets.token_bytes(200_000))
    stored = bucket / firmware.storage_name
    data = bytearray(stored.read_bytes())
    data[100_000] ^= 1
    stored.write_bytes(data)

    with pytest.raises(ImageUnavailableError):
        list(stored_bytes(firmware, 0, firmware.size))

    firmware.refresh_from_db()
    assert firmware.damaged_at is not None
    assert AuditEvent.objects.filter(verb="firmware.damaged").count() == 1


def test_a_read_that_went_wrong_once_is_no_damage(
    bucket: Path, rclone_s3: S3Server, settings: Any, tmp_path: Path
) -> None:
    content = secrets.token_bytes(400_000)
    firmware = FirmwareFactory.create(content=content)
    stored = bucket / firmware.storage_name
    whole = stored.read_bytes()
    wrong = bytearray(whole)
    wrong[100_000] ^= 1
    stored.write_bytes(wrong)
    proxy = TrippingProxy(rclone_s3.port)
    settings.S3_ENDPOINT = proxy.endpoint
    repaired = tmp_path / "repaired"
    repaired.write_bytes(whole)

    def repair() -> None:
        # The server may still read the file: its name changes hands, not its bytes.
        repaired.replace(stored)

    # The wrong byte has passed by then.
    proxy.arm(300_000, repair)

    read = b"".join(stored_bytes(firmware, 0, firmware.size))

    proxy.close()
    assert read == content
    assert proxy.passed_bytes > 2 * len(content)
    firmware.refresh_from_db()
    assert firmware.damaged_at is None


def test_a_read_that_breaks_off_is_asked_for_again(
    bucket: Path, rclone_s3: S3Server, settings: Any
) -> None:
    content = secrets.token_bytes(400_000)
    firmware = FirmwareFactory.create(content=content)
    proxy = TrippingProxy(rclone_s3.port)
    settings.S3_ENDPOINT = proxy.endpoint

    def cut() -> None:
        raise ConnectionResetError

    proxy.arm(300_000, cut)

    read = b"".join(stored_bytes(firmware, 0, firmware.size))

    proxy.close()
    assert proxy.has_tripped
    assert read == content


@pytest.mark.parametrize("kept", [0, 93, 70_000])
def test_an_object_cut_short_is_noticed(bucket: Path, kept: int) -> None:
    firmware = FirmwareFactory.create(content=secrets.token_bytes(200_000))
    stored = bucket / firmware.storage_name
    stored.write_bytes(stored.read_bytes()[:kept])

    with pytest.raises(ImageUnavailableError):
        list(stored_bytes(firmware, 0, firmware.size))


def test_an_object_that_is_gone_is_noticed(bucket: Path) -> None:
    firmware = FirmwareFactory.create()
    (bucket / firmware.storage_name).unlink()

    with pytest.raises(ImageUnavailableError, match="gone"):
        list(stored_bytes(firmware, 0, firmware.size))


def test_a_refused_upload_leaves_nothing_in_the_bucket(
    bucket: Path, admin: PersonCaller
) -> None:
    DeviceModelFactory.create(name="sensor-v1")
    upload(admin, b"one")

    problem_of(upload(admin, b"another"), 409, "version_exists")
    problem_of(upload(admin, b"x", version="no"), 400)

    assert len(list(bucket.iterdir())) == 1


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"S3_SECRET_KEY": "0" * 40}, "refuses our credentials"),
        ({"S3_BUCKET": "no-such-bucket"}, "no such bucket"),
        ({"S3_ENDPOINT": "http://127.0.0.1:9"}, "does not answer"),
    ],
    ids=lambda change: next(iter(change)),
)
def test_a_store_that_refuses_is_an_error_of_the_server_and_leaves_no_row(
    bucket: Path,
    admin: PersonCaller,
    settings: Any,
    change: dict[str, str],
    reason: str,
) -> None:
    DeviceModelFactory.create(name="sensor-v1")
    for name, value in change.items():
        setattr(settings, name, value)

    response = upload(admin)

    document = problem_of(response, 503, "store_unavailable")
    assert reason in document["detail"]
    assert settings.S3_ACCESS_KEY not in document["detail"]
    assert settings.S3_ENDPOINT not in document["detail"]
    assert not Firmware.objects.exists()
    assert list(incoming_folder().iterdir()) == []


def test_a_store_that_is_away_is_not_taken_for_damage(
    bucket: Path, settings: Any
) -> None:
    firmware = FirmwareFactory.create()
    settings.S3_ENDPOINT = "http://127.0.0.1:9"

    with pytest.raises(StoreUnavailableError):
        list(stored_bytes(firmware, 0, firmware.size))

    firmware.refresh_from_db()
    assert firmware.damaged_at is None


def test_orphans_in_the_bucket_are_listed_with_their_age(bucket: Path) -> None:
    firmware = FirmwareFactory.create()
    orphan = bucket / "orphan.hsf"
    orphan.write_bytes(b"x")

    assert tidy_store() == 0

    assert orphan.exists()
    assert (bucket / firmware.storage_name).exists()
