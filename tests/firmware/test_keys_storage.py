"""The ring of storage keys: rotation wraps keys again and touches no file."""

import secrets
import threading
from pathlib import Path
from typing import Any

import pytest
from django.db import DatabaseError, connection, transaction

from firmware.choices import KeyStatus
from firmware.exceptions import (
    ImageUnavailableError,
    KeyInUseError,
    StoreUnavailableError,
    UnknownKeyError,
)
from firmware.models import Firmware, StorageKey, WrappedKey
from firmware.services import key_rotation
from firmware.services.delivery import stored_bytes
from firmware.services.keys import active_storage_key, file_key
from firmware.services.uploads import register_firmware
from firmware.storage import image_store
from hotswap.common.models import AuditEvent
from tests.conftest import S3Server
from tests.firmware.factories import (
    DeviceModelFactory,
    FirmwareFactory,
    staged_image,
)

pytestmark = pytest.mark.django_db


def read(firmware: Firmware) -> bytes:
    # As a process reads it that has not read it before.
    file_key.cache_clear()
    return b"".join(stored_bytes(firmware, 0, firmware.size))


def wrapping_keys() -> set[str]:
    return set(WrappedKey.objects.values_list("storage_key__key_id", flat=True))


def test_a_rotation_wraps_every_key_again_and_touches_no_file() -> None:
    images = [FirmwareFactory.create(content=secrets.token_bytes(n)) for n in (1, 9)]
    contents = [read(image) for image in images]
    paths = [Path(image_store().path(image.storage_name)) for image in images]
    files = [(path.read_bytes(), path.stat().st_mtime_ns) for path in paths]
    former = active_storage_key()

    new = key_rotation.rotate_storage_key(actor=None)
    done = key_rotation.rewrap_images()

    assert done.wrapped == 2
    assert done.retired == (former.key_id,)
    assert wrapping_keys() == {new.key_id}
    assert [(path.read_bytes(), path.stat().st_mtime_ns) for path in paths] == files
    assert [read(image) for image in images] == contents


def test_images_stay_readable_between_rotation_and_wrapping() -> None:
    before = FirmwareFactory.create(content=b"before")
    key_rotation.rotate_storage_key(actor=None)
    after = FirmwareFactory.create(content=b"after")

    assert read(before) == b"before"
    assert read(after) == b"after"
    assert len(wrapping_keys()) == 2


def test_a_wrapping_cut_off_goes_on_where_it_stopped() -> None:
    for _ in range(5):
        FirmwareFactory.create()
    former = active_storage_key()
    key_rotation.rotate_storage_key(actor=None)

    class CutOffError(Exception):
        pass

    def cut_off(done: int) -> None:
        raise CutOffError

    key_rotation.BATCH, batch = 2, key_rotation.BATCH
    try:
        with pytest.raises(CutOffError):
            key_rotation.rewrap_images(on_progress=cut_off)
        left = WrappedKey.objects.filter(storage_key=former).count()
        done = key_rotation.rewrap_images()
    finally:
        key_rotation.BATCH = batch

    assert left == 3
    assert done.wrapped == 3
    former.refresh_from_db()
    assert former.status == KeyStatus.RETIRED


def test_a_key_in_use_is_neither_retired_nor_deleted() -> None:
    FirmwareFactory.create()
    former = active_storage_key()
    new = key_rotation.rotate_storage_key(actor=None)

    for key in (former, new):
        with pytest.raises(KeyInUseError):
            key_rotation.delete_storage_key(actor=None, key_id=key.key_id)
    with pytest.raises(UnknownKeyError):
        key_rotation.delete_storage_key(actor=None, key_id="f00")
    with pytest.raises(DatabaseError), transaction.atomic():
        former.delete()


def test_a_retired_key_can_be_deleted_and_images_stay_readable() -> None:
    firmware = FirmwareFactory.create(content=b"kept")
    former = active_storage_key()
    key_rotation.rotate_storage_key(actor=None)
    key_rotation.rewrap_images()

    key_rotation.delete_storage_key(actor=None, key_id=former.key_id)

    assert not StorageKey.objects.filter(pk=former.pk).exists()
    assert read(firmware) == b"kept"
    verbs = AuditEvent.objects.filter(object_id=former.key_id).order_by("pk")
    assert [event.verb for event in verbs][-2:] == [
        "storage-key.retired",
        "storage-key.deleted",
    ]


def test_an_upload_that_began_before_a_rotation_is_wrapped_by_the_new_key() -> None:
    DeviceModelFactory.create(name="sensor-v1")
    former = active_storage_key()
    with staged_image(b"slow upload") as staged:
        new = key_rotation.rotate_storage_key(actor=None)
        key_rotation.rewrap_images()
        key_rotation.delete_storage_key(actor=None, key_id=former.key_id)
        firmware, _ = register_firmware(
            actor=None, model_name="sensor-v1", version="1.0.0", staged=staged
        )

    assert wrapping_keys() == {new.key_id}
    assert read(firmware) == b"slow upload"


def test_an_image_whose_key_lies_in_its_file_alone_is_taken_over() -> None:
    firmware = FirmwareFactory.create(content=b"stored long ago")
    WrappedKey.objects.all().delete()
    assert read(firmware) == b"stored long ago"

    new = key_rotation.rotate_storage_key(actor=None)
    done = key_rotation.rewrap_images()

    assert len(done.retired) == 1
    assert wrapping_keys() == {new.key_id}
    assert read(firmware) == b"stored long ago"


def test_a_wrapped_key_that_was_altered_is_told_and_keeps_its_storage_key() -> None:
    good, bad = FirmwareFactory.create(content=b"good"), FirmwareFactory.create()
    WrappedKey.objects.filter(pk=bad.storage_name).update(
        wrapped=secrets.token_bytes(60)
    )
    former = active_storage_key()
    key_rotation.rotate_storage_key(actor=None)

    done = key_rotation.rewrap_images()

    assert (done.wrapped, done.unreadable, done.retired) == (1, (bad.storage_name,), ())
    former.refresh_from_db()
    assert former.status == KeyStatus.RETIRING
    assert read(good) == b"good"
    with pytest.raises(ImageUnavailableError):
        read(bad)


def test_without_a_rotation_there_is_nothing_to_wrap() -> None:
    FirmwareFactory.create()

    assert key_rotation.rewrap_images() == key_rotation.Rewrapping(0, (), ())


@pytest.mark.django_db(transaction=True)
def test_readers_and_two_wrappings_at_once_do_not_disturb_each_other() -> None:
    images = [FirmwareFactory.create(content=b"steady" * 1000) for _ in range(4)]
    errors: list[BaseException] = []
    over = threading.Event()

    def guarded(work: Any) -> threading.Thread:
        def run() -> None:
            try:
                work()
            except BaseException as error:  # noqa: BLE001
                errors.append(error)
            finally:
                connection.close()

        thread = threading.Thread(target=run)
        thread.start()
        return thread

    def keep_reading() -> None:
        while not over.is_set():
            for image in images:
                assert read(image) == b"steady" * 1000

    reader = guarded(keep_reading)
    try:
        for _ in range(3):
            former = active_storage_key()
            key_rotation.rotate_storage_key(actor=None)
            for wrapper in [guarded(key_rotation.rewrap_images) for _ in range(2)]:
                wrapper.join(60)
            key_rotation.delete_storage_key(actor=None, key_id=former.key_id)
    finally:
        over.set()
        reader.join(60)

    assert errors == []
    assert not Firmware.objects.filter(damaged_at__isnull=False).exists()


def test_a_rotation_leaves_the_objects_of_a_bucket_alone(
    rclone_s3: S3Server, settings: Any, tmp_path: Path
) -> None:
    name = rclone_s3.make_bucket(f"images-{secrets.token_hex(4)}")
    settings.FIRMWARE_DIR = tmp_path
    settings.S3_BUCKET = name
    settings.S3_ENDPOINT = rclone_s3.endpoint
    settings.S3_REGION = "us-east-1"
    settings.S3_ACCESS_KEY = rclone_s3.access_key
    settings.S3_SECRET_KEY = rclone_s3.secret_key
    settings.S3_CHECKSUMS = "when_required"
    firmware, old_one = FirmwareFactory.create(content=b"a"), FirmwareFactory.create()
    before = {path: path.read_bytes() for path in (rclone_s3.folder / name).iterdir()}
    WrappedKey.objects.filter(pk=old_one.storage_name).delete()
    key_rotation.rotate_storage_key(actor=None)
    endpoint, settings.S3_ENDPOINT = settings.S3_ENDPOINT, "http://127.0.0.1:9"

    with pytest.raises(StoreUnavailableError):
        key_rotation.rewrap_images()
    settings.S3_ENDPOINT = endpoint
    done = key_rotation.rewrap_images()

    assert len(done.retired) == 1
    assert len(before) == 2
    assert all(path.read_bytes() == stored for path, stored in before.items())
    assert read(firmware) == b"a"
