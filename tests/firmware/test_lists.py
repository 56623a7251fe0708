"""Finding firmware, its history, and the limit of versions in a race."""

import threading
from typing import Any

import pytest
from django.db import connection

from firmware.exceptions import TooManyVersionsError
from firmware.models import Firmware
from firmware.services.damage import note_damage
from firmware.services.uploads import register_firmware
from tests.api import pointers, problem_of
from tests.callers import PersonCaller
from tests.firmware.factories import DeviceModelFactory, FirmwareFactory, staged_image
from tests.firmware.forms import upload

FALLING = [
    "10.0.0",
    "2.10.0",
    "2.9.0",
    "2.9.0-rc.10",
    "2.9.0-rc.9",
    "2.9.0-alpha",
]


def versions(caller: PersonCaller, query: str) -> list[str]:
    rows = caller.get(f"/firmware?{query}").json()["results"]
    return [row["version"] for row in rows]


def test_a_list_is_sorted_by_precedence(viewer: PersonCaller) -> None:
    for version in sorted(FALLING):
        FirmwareFactory.create(version=version)

    assert versions(viewer, "sort=-version") == FALLING
    assert versions(viewer, "sort=version") == FALLING[::-1]


def test_a_sorted_list_is_paged_without_losing_any(viewer: PersonCaller) -> None:
    for version in ["1.0.0+c", "1.0.0+a", "1.0.0+b", "1.0.1", "0.9.0"]:
        FirmwareFactory.create(version=version)

    found = []
    path = "/api/v1/firmware?sort=version&pageSize=2"
    while path:
        page = viewer.get(path).json()
        found += [row["version"] for row in page["results"]]
        path = (page["next"] or "").removeprefix("http://testserver")

    assert found == ["0.9.0", "1.0.0+c", "1.0.0+a", "1.0.0+b", "1.0.1"]


def test_versions_that_differ_in_their_build_alone_are_two(
    admin: PersonCaller,
) -> None:
    DeviceModelFactory.create(name="sensor-v1")

    answers = [
        upload(admin, b"one", version="1.0.0+build.1"),
        upload(admin, b"two", version="1.0.0+build.2"),
        upload(admin, b"three", version="1.0.0+build.1"),
    ]

    assert [answer.status_code for answer in answers] == [201, 201, 409]


def test_an_unknown_order_is_refused(viewer: PersonCaller) -> None:
    response = viewer.get("/firmware?sort=size")

    assert pointers(problem_of(response, 400)).keys() == {"/sort"}


def test_firmware_is_found_by_text_digest_and_damage(viewer: PersonCaller) -> None:
    one = FirmwareFactory.create(version="1.0.0-rc.1", release_notes="Fixes the valve")
    two = FirmwareFactory.create(version="1.1.0", model_name="pump-v2")
    note_damage(two, "gone")

    assert versions(viewer, "search=VALVE") == ["1.0.0-rc.1"]
    assert versions(viewer, "search=rc.") == ["1.0.0-rc.1"]
    assert versions(viewer, "search=pump") == ["1.1.0"]
    assert versions(viewer, f"search={one.md5}") == ["1.0.0-rc.1"]
    assert versions(viewer, f"search={one.sha1.upper()}") == ["1.0.0-rc.1"]
    assert versions(viewer, f"checksum={two.sha256}") == ["1.1.0"]
    assert versions(viewer, "damaged=true") == ["1.1.0"]
    assert versions(viewer, "damaged=false") == ["1.0.0-rc.1"]


def test_the_history_names_who_decided_what_and_why(
    admin: PersonCaller, viewer: PersonCaller
) -> None:
    firmware = FirmwareFactory.create(request_comment="please look at the valve")
    admin.post(f"/firmware/{firmware.pk}/approve", {"comment": "the valve is fine"})
    note_damage(firmware, "frame 0 does not verify")

    rows = viewer.get(f"/firmware/{firmware.pk}/history").json()["results"]

    assert [row["verb"] for row in rows] == [
        "firmware.damaged",
        "firmware.approved",
        "firmware.uploaded",
    ]
    assert [row["actorKind"] for row in rows] == ["server", "person", "person"]
    assert [row["actor"] for row in rows] == [
        None,
        admin.person.username,
        firmware.uploaded_by.username,
    ]
    assert [row["comment"] for row in rows] == [
        "",
        "the valve is fine",
        "please look at the valve",
    ]


def test_the_history_of_one_firmware_holds_nothing_of_another(
    viewer: PersonCaller,
) -> None:
    firmware = FirmwareFactory.create()
    FirmwareFactory.create()

    found = viewer.get(f"/firmware/{firmware.pk}/history?count=true").json()

    assert found["count"] == 1


def test_an_upload_may_say_something_to_the_approver(admin: PersonCaller) -> None:
    DeviceModelFactory.create(name="sensor-v1")

    shown = upload(admin, requestComment="urgent").json()
    refused = upload(admin, version="1.0.1", requestComment="c" * 2001)

    assert shown["requestComment"] == "urgent"
    assert pointers(problem_of(refused, 400)).keys() == {"/requestComment"}


@pytest.mark.django_db(transaction=True)
def test_the_last_place_of_a_model_goes_to_one_of_two_at_once(settings: Any) -> None:
    DeviceModelFactory.create(name="sensor-v1")
    settings.FIRMWARE_MAX_VERSIONS_PER_MODEL = 3
    FirmwareFactory.create(version="1.0.0")
    begin = threading.Barrier(5)
    refused: list[Exception] = []

    def register(number: int) -> None:
        with staged_image(b"%d" % number) as staged:
            begin.wait(30)
            try:
                register_firmware(
                    actor=None,
                    model_name="sensor-v1",
                    version=f"2.0.{number}",
                    staged=staged,
                )
            except TooManyVersionsError as error:
                refused.append(error)
            finally:
                connection.close()

    threads = [threading.Thread(target=register, args=(n,)) for n in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)

    assert Firmware.objects.count() == 3
    assert len(refused) == 3
