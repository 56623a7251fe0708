"""Several hosts on one database, each with a folder of images of its own."""

from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from firmware import storage
from firmware.exceptions import ImageUnavailableError, StoreUnavailableError
from firmware.models import Firmware
from firmware.services.delivery import stored_bytes
from tests.api import problem_of
from tests.callers import PersonCaller
from tests.deployments.world import World
from tests.firmware.factories import FirmwareFactory


@pytest.fixture
def other_folder(settings: Any, tmp_path: Path) -> str:
    """Where another host keeps its images."""
    return str(tmp_path / "other-host")


def read(firmware: Firmware) -> bytes:
    return b"".join(stored_bytes(firmware, 0, firmware.size))


def test_image_in_the_folder_of_another_host_is_not_damaged(
    db: None, settings: Any, other_folder: str
) -> None:
    firmware = FirmwareFactory.create()
    own_folder = settings.FIRMWARE_DIR
    settings.FIRMWARE_DIR = other_folder

    with pytest.raises(StoreUnavailableError, match="another host"):
        read(firmware)

    firmware.refresh_from_db()
    assert firmware.damaged_at is None
    settings.FIRMWARE_DIR = own_folder
    assert len(read(firmware)) == firmware.size


def test_host_without_the_folder_neither_judges_nor_approves(
    admin: PersonCaller, settings: Any, other_folder: str
) -> None:
    firmware = FirmwareFactory.create()
    settings.FIRMWARE_DIR = other_folder

    for verb, body in (("verify", {}), ("approve", {"comment": "tested"})):
        answer = admin.post(f"/firmware/{firmware.pk}/{verb}", body)
        problem_of(answer, 503, "store_unavailable")

    firmware.refresh_from_db()
    assert (firmware.damaged_at, firmware.status) == (None, "Draft")


def test_deployment_goes_on_past_a_host_without_the_image(
    db: None, settings: Any, other_folder: str
) -> None:
    world = World()
    old, new = world.image("1.0.0"), world.image("2.0.0")
    device, *_ = world.fleet(2, old)
    deployment = world.launch(new)
    device.poll()
    settings.FIRMWARE_DIR = other_folder
    with pytest.raises(StoreUnavailableError):
        read(new)

    world.tick(5)

    deployment.refresh_from_db()
    assert deployment.status == "Running"
    assert device.poll() is not None


def test_image_missing_from_its_own_folder_is_damaged(db: None) -> None:
    firmware = FirmwareFactory.create()
    Path(storage.image_store().path(firmware.storage_name)).unlink()

    with pytest.raises(ImageUnavailableError):
        read(firmware)

    firmware.refresh_from_db()
    assert firmware.damage == "the stored file is gone"


def test_folder_keeps_its_name_when_it_moves(
    db: None, settings: Any, tmp_path: Path
) -> None:
    settings.FIRMWARE_DIR = tmp_path / "here"
    firmware = FirmwareFactory.create()
    (tmp_path / "here").rename(tmp_path / "there")
    settings.FIRMWARE_DIR = tmp_path / "there"
    Path(storage.image_store().path(firmware.storage_name)).unlink()

    with pytest.raises(ImageUnavailableError):
        read(firmware)


def test_processes_that_start_together_give_a_folder_one_name(
    settings: Any, tmp_path: Path
) -> None:
    settings.FIRMWARE_DIR = tmp_path
    names: list[str] = []
    threads = [
        Thread(target=lambda: names.append(storage.folder_id())) for _ in range(8)
    ]

    for each in threads:
        each.start()
    for each in threads:
        each.join(10)

    assert len(names) == 8
    assert set(names) == {(tmp_path / "folder-id").read_text()}
    assert not list(storage.incoming_folder().iterdir())
