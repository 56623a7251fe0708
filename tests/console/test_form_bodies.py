"""Who may send how much to the console, and whether any of it is kept."""

import tempfile
from typing import Any

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client

from devices.models import DeviceImport
from tests.console.conftest import ConsoleClient
from tests.firmware.factories import DeviceModelFactory

IMPORT = "/admin/devices/deviceimport/upload/"
UPLOAD = "/admin/firmware/firmware/upload/"
# What Django would store in a file rather than in memory.
LARGE = b"deviceId,model\n" + b"d,%-70s\n" % b"m" * 50_000


@pytest.fixture
def stored(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The files that were made, by name."""
    found: list[str] = []
    make = tempfile.NamedTemporaryFile

    def noted(*args: Any, **options: Any) -> Any:
        file = make(*args, **options)
        found.append(file.name)
        return file

    monkeypatch.setattr(
        "django.core.files.uploadedfile.tempfile.NamedTemporaryFile", noted
    )
    return found


def send(client: Client, path: str, content: bytes) -> Any:
    file = SimpleUploadedFile("devices.csv", content)
    return client.post(path, {"file": file, "username": "a", "dryRun": "on"})


@pytest.mark.parametrize(
    "path", ["/admin/login/", IMPORT, UPLOAD, "/admin/common/user/create/", "/health"]
)
def test_strangers_store_nothing(db: None, stored: list[str], path: str) -> None:
    client = Client(enforce_csrf_checks=True)
    client.cookies["csrftoken"] = "a" * 32

    large = send(client, path, LARGE)
    small = send(client, path, b"x" * 1000)

    assert large.status_code == (403 if path in (IMPORT, UPLOAD) else 413)
    assert small.status_code in (302, 403)
    assert stored == []


def test_operators_store_nothing(
    operator_client: ConsoleClient, stored: list[str]
) -> None:
    refused = {
        path: send(operator_client, path, LARGE).status_code
        for path in (IMPORT, UPLOAD, "/admin/devices/device/register/")
    }

    assert refused == {
        IMPORT: 403,
        UPLOAD: 403,
        "/admin/devices/device/register/": 413,
    }
    assert stored == []


def test_an_admin_sends_files_where_they_are_taken_alone(
    admin_client: ConsoleClient, stored: list[str]
) -> None:
    DeviceModelFactory.create(name="m")

    elsewhere = send(admin_client, "/admin/common/user/create/", LARGE)
    before = list(stored)
    taken = send(admin_client, IMPORT, LARGE)

    assert (elsewhere.status_code, before) == (413, [])
    assert taken.status_code == 302, taken.content
    assert len(stored) == 1
    assert DeviceImport.objects.get().is_dry_run


def test_a_file_of_devices_is_stored_up_to_its_limit(
    admin_client: ConsoleClient, stored: list[str], settings: Any
) -> None:
    settings.IMPORT_MAX_BYTES = 3_000_000

    refused = send(admin_client, IMPORT, LARGE)

    assert refused.status_code == 200
    assert b"A file may have" in refused.content


@pytest.mark.parametrize("length", ["1000000000000", "9" * 5000])
def test_a_length_beyond_all_limits_is_refused_before_a_byte_is_read(
    admin_client: ConsoleClient, length: str
) -> None:
    class Unread:
        def read(self, *_: Any) -> bytes:
            raise AssertionError("read")

        readline = read

    for path in (IMPORT, UPLOAD, "/admin/login/"):
        variables: Any = {"CONTENT_LENGTH": length, "wsgi.input": Unread()}
        answer = admin_client.generic(
            "POST", path, content_type="multipart/form-data; boundary=x", **variables
        )

        assert answer.status_code == 413
