"""Uploading an image: what is kept, and that nothing is kept of what is refused."""

import hashlib
import secrets
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings as django_settings

from firmware.encrypted_format import FRAME_BYTES
from firmware.models import DeviceModel, Firmware
from firmware.services.delivery import stored_bytes
from hotswap.common.models import AuditEvent
from tests.api import Caller, pointers, problem_of
from tests.callers import PersonCaller
from tests.firmware.factories import DeviceModelFactory, FirmwareFactory
from tests.firmware.forms import BOUNDARY, form, parts_of, send, upload

FIELDS = {"model": "sensor-v1", "version": "1.0.0"}


@pytest.fixture(autouse=True)
def model(db: None) -> DeviceModel:
    return DeviceModelFactory.create(name="sensor-v1")


@pytest.fixture(autouse=True)
def folder(settings: Any, tmp_path: Path) -> Path:
    """An empty store for each test."""
    settings.FIRMWARE_DIR = tmp_path
    return tmp_path


def nothing_is_kept(folder: Path) -> bool:
    files = list(folder.glob("images/*"))
    return not files and not Firmware.objects.exists()


def test_an_upload_is_a_draft_with_checksum_and_signature(
    admin: PersonCaller,
) -> None:
    content = secrets.token_bytes(3 * FRAME_BYTES + 5)

    response = upload(
        admin,
        content,
        releaseNotes="  First.\n",
        securityVersion="3",
        rebootRequired="false",
    )

    assert response.status_code == 201
    body = response.json()
    assert body["status"] == "Draft"
    assert body["model"] == "sensor-v1"
    assert body["version"] == "1.0.0"
    assert body["size"] == len(content)
    assert body["checksum"] == hashlib.sha256(content).hexdigest()
    assert body["signatureAlgorithm"] == "RSA-PKCS1v15-SHA256"
    assert body["releaseNotes"] == "  First.\n"
    assert body["securityVersion"] == 3
    assert body["rebootRequired"] is False
    assert body["uploadedBy"] == admin.person.username
    assert body["approvedBy"] is None
    firmware = Firmware.objects.get()
    assert b"".join(stored_bytes(firmware, 0, firmware.size)) == content
    assert AuditEvent.objects.filter(verb="firmware.uploaded").count() == 1


def test_the_stored_file_is_encrypted_and_its_owners_alone(
    admin: PersonCaller, folder: Path
) -> None:
    upload(admin, b"a secret recipe" * 100)

    (stored,) = (folder / "images").iterdir()

    assert b"secret" not in stored.read_bytes()
    assert stored.stat().st_mode & 0o077 == 0
    assert stored.parent.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("size", [1, FRAME_BYTES, FRAME_BYTES + 1, 300_000])
def test_images_of_any_size_come_back(admin: PersonCaller, size: int) -> None:
    content = secrets.token_bytes(size)

    response = upload(admin, content)

    assert response.status_code == 201
    firmware = Firmware.objects.get()
    assert b"".join(stored_bytes(firmware, 0, size)) == content


def test_an_image_that_contains_boundaries_and_line_ends_comes_back(
    admin: PersonCaller,
) -> None:
    content = b"\r\n--" + BOUNDARY[:-1].encode() + b"\r\n\r\n--" * 1000 + b"\r\n"

    assert upload(admin, content).status_code == 201

    firmware = Firmware.objects.get()
    assert b"".join(stored_bytes(firmware, 0, firmware.size)) == content


def test_the_file_may_come_before_the_fields(admin: PersonCaller) -> None:
    parts = list(reversed(parts_of(b"image", FIELDS)))

    assert send(admin, form(parts)).status_code == 201


def test_the_same_version_and_bytes_again_are_the_same_firmware(
    admin: PersonCaller, folder: Path
) -> None:
    first = upload(admin, b"image")

    again = upload(admin, b"image", releaseNotes="other notes")

    assert again.status_code == 200
    assert again.json() == first.json()
    assert len(list((folder / "images").iterdir())) == 1


def test_the_same_version_with_other_bytes_is_refused(
    admin: PersonCaller, folder: Path
) -> None:
    upload(admin, b"image")

    response = upload(admin, b"another image")

    assert "/version" in pointers(problem_of(response, 409, "version_exists"))
    assert len(list((folder / "images").iterdir())) == 1


def test_the_same_bytes_may_be_another_version_or_model(admin: PersonCaller) -> None:
    DeviceModelFactory.create(name="sensor-v2")

    answers = [
        upload(admin),
        upload(admin, version="1.0.1"),
        upload(admin, model="sensor-v2"),
    ]

    assert [answer.status_code for answer in answers] == [201, 201, 201]
    assert Firmware.objects.values("storage_name").distinct().count() == 3


@pytest.mark.parametrize(
    ("fields", "status", "pointer"),
    [
        ({"version": None}, 400, "/version"),
        ({"model": None}, 400, "/model"),
        ({"version": ""}, 400, "/version"),
        ({"version": "1.0"}, 400, "/version"),
        ({"version": "1.0.0-" + "a" * 60}, 400, "/version"),
        ({"version": "latest"}, 400, "/version"),
        ({"model": ""}, 400, "/model"),
        ({"model": "m" * 65}, 400, "/model"),
        ({"securityVersion": "-1"}, 400, "/securityVersion"),
        ({"securityVersion": "one"}, 400, "/securityVersion"),
        ({"securityVersion": "2147483648"}, 400, "/securityVersion"),
        ({"securityVersion": "9" * 2000}, 400, "/securityVersion"),
        ({"rebootRequired": "perhaps"}, 400, "/rebootRequired"),
        ({"releaseNotes": "n" * 20_001}, 400, "/releaseNotes"),
        ({"checksum": "abc"}, 400, "/checksum"),
        ({"checksum": "g" * 64}, 400, "/checksum"),
        ({"checksum": "0" * 64 + "\n"}, 400, "/checksum"),
        ({"checksum": "0" * 64}, 422, "/checksum"),
        ({"colour": "red"}, 400, "/colour"),
        ({"release_notes": "n"}, 400, "/release_notes"),
    ],
    ids=str,
)
def test_a_bad_field_is_named_and_nothing_is_kept(
    admin: PersonCaller,
    folder: Path,
    fields: dict[str, str],
    status: int,
    pointer: str,
) -> None:
    response = upload(admin, b"image", **fields)

    assert set(pointers(problem_of(response, status))) == {pointer}
    assert nothing_is_kept(folder)


@pytest.mark.parametrize("spell", [str.lower, str.upper])
def test_an_image_with_the_expected_checksum_is_taken(
    admin: PersonCaller, spell: Any
) -> None:
    digest = hashlib.sha256(b"image").hexdigest()

    response = upload(admin, b"image", checksum=spell(digest))

    assert response.status_code == 201
    assert response.json()["checksum"] == digest


def test_another_image_than_the_expected_one_is_named_with_both_digests(
    admin: PersonCaller, folder: Path
) -> None:
    document = problem_of(
        upload(admin, b"image", checksum="0" * 64), 422, "checksum_mismatch"
    )

    assert hashlib.sha256(b"image").hexdigest() in document["detail"]
    assert "0" * 64 in document["detail"]
    assert nothing_is_kept(folder)


def test_known_bytes_with_another_checksum_are_refused_too(
    admin: PersonCaller,
) -> None:
    upload(admin, b"image")

    again = upload(admin, b"image", checksum="0" * 64)

    problem_of(again, 422, "checksum_mismatch")


def test_an_unknown_model_is_422_and_nothing_is_kept(
    admin: PersonCaller, folder: Path
) -> None:
    problem_of(upload(admin, model="toaster"), 422, "unknown_model")

    assert nothing_is_kept(folder)


def test_nul_in_a_field_is_refused(admin: PersonCaller, folder: Path) -> None:
    problem_of(upload(admin, releaseNotes="a\0b"), 400, "invalid_character")

    assert nothing_is_kept(folder)


BROKEN_FORMS = {
    "no file": (parts_of(None, FIELDS), "/file", "required"),
    "an empty file": (parts_of(b"", FIELDS), "/file", "empty"),
    "two files": (
        [*parts_of(b"image", FIELDS), ("file", b"more", "b.bin")],
        "/file",
        "unknown",
    ),
    "a file in another field": (
        [*parts_of(None, FIELDS), ("image", b"image", "a.bin")],
        "/image",
        "unknown",
    ),
    "a second file in another field": (
        [*parts_of(b"image", FIELDS), ("extra", b"more", "b.bin")],
        "/extra",
        "unknown",
    ),
    "a field twice": (
        [*parts_of(b"image", FIELDS), ("version", b"2.0.0", None)],
        "/version",
        "duplicate_key",
    ),
    "a text where the file should be": (
        [*parts_of(None, FIELDS), ("file", b"image", None)],
        "/file",
        "unknown",
    ),
    "nothing": ([], "/version", "required"),
}


@pytest.mark.parametrize("name", BROKEN_FORMS)
def test_a_wrong_form_is_refused_and_nothing_is_kept(
    admin: PersonCaller, folder: Path, name: str
) -> None:
    parts, pointer, code = BROKEN_FORMS[name]

    response = send(admin, form(parts))

    assert pointers(problem_of(response, 400, "invalid"))[pointer] == code
    assert nothing_is_kept(folder)


WHOLE = form(parts_of(b"image" * 1000, FIELDS))
BROKEN_BODIES = {
    "without its closing boundary": WHOLE[: -len(BOUNDARY) - 6],
    "cut within the file": WHOLE[: len(WHOLE) // 2],
    "cut within the closing boundary": WHOLE[:-5],
    "cut within a header": WHOLE[:60],
    "of another boundary": WHOLE.replace(BOUNDARY.encode(), b"--other"),
    "not a form at all": b"image" * 100,
}


@pytest.mark.parametrize("name", BROKEN_BODIES)
def test_a_broken_body_is_refused_and_nothing_is_kept(
    admin: PersonCaller, folder: Path, name: str
) -> None:
    response = send(admin, BROKEN_BODIES[name])

    problem_of(response, 400)
    assert nothing_is_kept(folder)


@pytest.mark.parametrize(
    ("content_type", "status"),
    [
        ("multipart/form-data", 400),
        ("multipart/form-data; boundary=", 400),
        ("multipart/form-data; boundary=" + "x" * 300, 400),
        ("multipart/form-data; boundary=\u00e4", 400),
        ("multipart/mixed; boundary=x", 415),
        ("application/octet-stream", 415),
        ("application/json", 415),
        ("", 415),
    ],
)
def test_a_content_type_without_a_boundary_or_of_another_kind_is_refused(
    admin: PersonCaller, folder: Path, content_type: str, status: int
) -> None:
    problem_of(send(admin, WHOLE, content_type), status)

    assert nothing_is_kept(folder)


def test_text_fields_over_their_limit_are_413(
    admin: PersonCaller, folder: Path
) -> None:
    limit = django_settings.DATA_UPLOAD_MAX_MEMORY_SIZE

    response = upload(admin, b"image", releaseNotes="n" * (limit + 1))

    problem_of(response, 413, "too_large")
    assert nothing_is_kept(folder)


@pytest.mark.parametrize("kind", [None, "a.bin"])
def test_thousands_of_parts_are_refused(
    admin: PersonCaller, folder: Path, kind: str | None
) -> None:
    parts = [(f"x{number}", b"1", kind) for number in range(2000)]

    response = send(admin, form(parts))

    problem_of(response, 400)
    assert nothing_is_kept(folder)


def test_one_byte_over_the_cap_is_413_and_nothing_is_kept(
    admin: PersonCaller, folder: Path, settings: Any
) -> None:
    settings.FIRMWARE_MAX_BYTES = 500_000

    over = upload(admin, b"x" * 500_001)
    kept = nothing_is_kept(folder)
    exact = upload(admin, b"x" * 500_000)

    problem_of(over, 413, "firmware_too_large")
    assert kept
    assert exact.status_code == 201


def test_a_model_holds_a_thousand_versions(
    admin: PersonCaller, folder: Path, settings: Any
) -> None:
    settings.FIRMWARE_MAX_VERSIONS_PER_MODEL = 1
    upload(admin, version="1.0.0")

    response = upload(admin, version="1.0.1")

    problem_of(response, 422, "too_many_versions")
    assert len(list((folder / "images").iterdir())) == 1


def test_a_body_of_another_role_is_refused_before_it_is_read(
    operator: PersonCaller, folder: Path
) -> None:
    problem_of(upload(operator), 403)

    assert nothing_is_kept(folder)


def test_a_store_that_takes_nothing_is_an_error_of_the_server_and_leaves_no_row(
    admin: PersonCaller, folder: Path
) -> None:
    (folder / "images").write_text("in the way")

    response = upload(admin)

    problem_of(response, 503, "store_unavailable")
    assert not Firmware.objects.exists()
    assert list((folder / "incoming").iterdir()) == []


def test_notes_can_be_changed_while_a_draft(admin: PersonCaller) -> None:
    draft, approved = FirmwareFactory.create(), FirmwareFactory.create(approved=True)

    def change(firmware: Firmware, caller: Caller = admin) -> Any:
        body = {"releaseNotes": "Better."}
        return caller.patch(f"/firmware/{firmware.pk}", body)

    assert change(draft).json()["releaseNotes"] == "Better."
    problem_of(change(approved), 409, "wrong_status")
