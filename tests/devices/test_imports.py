"""Registering many devices from a file."""

import csv
import io
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterable
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
from django.conf import settings as django_settings
from django.db import connection
from django.utils import timezone

from devices.choices import ImportStatus
from devices.import_lines import LineReader
from devices.models import (
    Device,
    DeviceImport,
    DeviceImportKeys,
    DeviceImportLine,
    DeviceKey,
)
from devices.services import imports
from devices.spreadsheets import MAX_LINE_BYTES, read_spreadsheet
from hotswap.common.models import AuditEvent
from hotswap.retention import enforce_policies
from tests.api import Caller, pointers, problem_of
from tests.callers import PersonCaller
from tests.common.factories import PersonFactory
from tests.devices.factories import DeviceFactory
from tests.firmware.factories import DeviceModelFactory
from tests.live import LiveStack, clean_environment
from tests.waiting import wait_until

CSV = "text/csv"
NDJSON = "application/x-ndjson"


@pytest.fixture(autouse=True)
def models(request: pytest.FixtureRequest) -> None:
    if "live_stack" not in request.fixturenames:
        request.getfixturevalue("db")
        DeviceModelFactory.create(name="sensor-v1")


def send(
    caller: Caller, text: str | bytes, content_type: str = CSV, **options: Any
) -> Any:
    raw = text.encode() if isinstance(text, str) else text
    return caller.post("/devices/import", raw=raw, content_type=content_type, **options)


def ndjson(*bodies: Any) -> str:
    return "".join(json.dumps(body) + "\n" for body in bodies)


def work_off(**options: Any) -> None:
    imports.run_imports(**{"reader_of": LineReader, **options})


def imported(
    caller: Caller, text: str | bytes, content_type: str = CSV
) -> dict[str, Any]:
    """Send a file, have it worked off, and return what the server says of it."""
    response = send(caller, text, content_type)
    assert response.status_code == 202, response.content
    work_off()
    shown = caller.get(response["Location"].removeprefix("/api/v1"))
    found: dict[str, Any] = shown.json()
    return found


def rejections(found: dict[str, Any]) -> dict[int, str]:
    """Return the code of each rejected line."""
    return {
        row["line"]: row["code"]
        for row in found["results"]
        if row["outcome"] == "rejected"
    }


def keys_of(caller: Caller, import_id: str) -> dict[str, str]:
    response = caller.get(f"/device-imports/{import_id}/keys")
    assert response.status_code == 200
    rows = csv.DictReader(io.StringIO(response.content.decode()))
    return {row["deviceId"]: row["apiKey"] for row in rows}


# --- A good file ------------------------------------------------------------------


def test_a_csv_file_registers_its_devices(admin: PersonCaller) -> None:
    found = imported(
        admin,
        "deviceId,model,region,firmwareVersion,tags,tag:line,metadata\r\n"
        'd-1,sensor-v1,EU,1.2.0,site=a;rack=7,3,"{""owner"": {""id"": 5}}"\r\n'
        "d-2,sensor-v1,,,,,\r\n",
    )

    assert found["status"] == "Completed"
    assert (found["total"], found["created"], found["rejected"]) == (2, 2, 0)
    assert found["results"] == [
        {"line": 2, "deviceId": "d-1", "outcome": "created"},
        {"line": 3, "deviceId": "d-2", "outcome": "created"},
    ]
    first = Device.objects.get(device_id="d-1")
    assert first.tags == {"site": "a", "rack": "7", "line": "3"}
    assert first.metadata == {"owner": {"id": 5}}
    assert (first.region, first.firmware_version) == ("EU", "1.2.0")
    second = Device.objects.get(device_id="d-2")
    assert (second.region, second.tags, second.metadata) == ("US-EAST", {}, {})


def test_an_ndjson_file_registers_its_devices(admin: PersonCaller) -> None:
    found = imported(
        admin,
        ndjson(
            {"deviceId": "d-1", "model": "sensor-v1", "tags": {"a": "b"}},
            {"deviceId": "d-2", "model": "sensor-v1", "metadata": {"x": [1]}},
        ),
        NDJSON,
    )

    assert (found["created"], found["rejected"]) == (2, 0)
    assert Device.objects.get(device_id="d-1").tags == {"a": "b"}
    assert Device.objects.get(device_id="d-2").metadata == {"x": [1]}


def test_an_imported_device_is_as_a_registered_one(
    admin: PersonCaller, operator: PersonCaller
) -> None:
    body = {
        "model": "sensor-v1",
        "region": "EU",
        "tags": {"a": "b"},
        "metadata": {"m": 1},
        "firmwareVersion": "1.0.0",
    }
    operator.post("/devices", {"deviceId": "one", **body})
    imported(admin, ndjson({"deviceId": "two", **body}), NDJSON)

    one, two = (
        {
            field.attname: getattr(device, field.attname)
            for field in Device._meta.concrete_fields
            if field.attname not in ("id", "device_id", "created_at", "updated_at")
        }
        for device in Device.objects.order_by("device_id")
    )

    assert one == two
    first, second = DeviceKey.objects.order_by("device__device_id")
    assert (first.superseded_at, first.first_used_at) == (None, None)
    assert (second.superseded_at, second.first_used_at) == (None, None)
    assert second.expires_at - second.created_at == first.expires_at - first.created_at


def test_line_ends_a_byte_order_mark_and_empty_lines_do_not_matter(
    admin: PersonCaller,
) -> None:
    found = imported(
        admin, b"\xef\xbb\xbfdeviceId,model\r\n\r\nd-1,sensor-v1\n  \nd-2,sensor-v1"
    )

    assert found["total"] == 2
    assert [row["line"] for row in found["results"]] == [3, 5]


def test_each_device_is_in_the_trail_with_its_import(admin: PersonCaller) -> None:
    found = imported(admin, "deviceId,model\nd-1,sensor-v1\nd-2,sensor-v1\n")

    events = AuditEvent.objects.filter(verb="device.registered")

    assert {event.object_id for event in events} == {
        str(pk) for pk in Device.objects.values_list("pk", flat=True)
    }
    assert {event.actor for event in events} == {admin.person.pseudonym}
    assert {event.details["import"] for event in events} == {found["id"]}
    about = AuditEvent.objects.filter(object_id=found["id"]).order_by("id")
    assert [event.verb for event in about] == [
        "device-import.started",
        "device-import.completed",
    ]


# --- As spreadsheets write it -----------------------------------------------------

PLAIN = "deviceId,model,tag:site\r\nd-1,sensor-v1,Käsewerk\r\nd-2,sensor-v1,\r\n"


@pytest.mark.parametrize(
    ("raw", "content_type"),
    [
        (PLAIN.encode(), CSV),
        (PLAIN.replace(",", ";").encode(), CSV),
        (PLAIN.replace(",", "\t").encode(), CSV),
        (b"sep=;\r\n" + PLAIN.replace(",", ";").encode(), CSV),
        (PLAIN.encode("utf-8-sig"), CSV),
        (PLAIN.encode("utf-16"), CSV),
        (PLAIN.encode("utf-16"), "text/csv; charset=UTF-16"),
        (b"\xfe\xff" + PLAIN.encode("utf-16-be"), CSV),
        (PLAIN.encode("cp1252"), 'text/csv; charset="windows-1252"'),
        (PLAIN.replace("\r\n", "\n").encode(), CSV),
        (PLAIN.replace("\r\n", "\r").encode(), CSV),
        (PLAIN.replace("deviceId,model", "Device ID,MODEL").encode(), CSV),
        (PLAIN.replace("deviceId,model", " device_id , Model").encode(), CSV),
        (
            PLAIN.replace("deviceId,model,tag:", '"device-id","model",Tag: ').encode(),
            CSV,
        ),
        (PLAIN.replace("d-1,sensor-v1", '"d-1",  sensor-v1 ').encode(), CSV),
        (PLAIN.replace("\r\n", ",,\r\n").encode() + b",,,,\r\n,,,,\r\n", CSV),
        (PLAIN.encode(), "text/csv; header=present"),
        (PLAIN.encode(), "TEXT/CSV; charset=utf-8; header=present"),
        (PLAIN.encode(), "application/vnd.ms-excel"),
        (PLAIN.encode(), "application/csv"),
        (PLAIN.encode(), "text/plain; charset=utf-8"),
    ],
)
def test_a_csv_file_is_taken_as_people_have_it(
    admin: PersonCaller, raw: bytes, content_type: str
) -> None:
    found = imported(admin, raw, content_type)

    assert (found["total"], found["created"], found["rejected"]) == (2, 2, 0)
    tags = dict(Device.objects.values_list("device_id", "tags"))
    assert tags == {"d-1": {"site": "Käsewerk"}, "d-2": {}}


@pytest.mark.parametrize("begins", [b"PK\x03\x04", b"\xd0\xcf\x11\xe0\xa1"])
@pytest.mark.parametrize("content_type", [CSV, NDJSON, "application/vnd.ms-excel"])
def test_a_workbook_is_refused_with_what_to_do(
    admin: PersonCaller, begins: bytes, content_type: str
) -> None:
    document = problem_of(send(admin, begins + b"\x00", content_type), 400, "not_csv")

    assert "save it as CSV UTF-8" in document["detail"]


@pytest.mark.parametrize(
    ("raw", "content_type"),
    [
        (PLAIN.encode("cp1252"), CSV),
        (PLAIN.encode() + b"d-3,sensor-v1,\xff\r\n", CSV),
        (PLAIN.encode("utf-16") + b"\x00", CSV),
        (PLAIN.encode() + b"\x81", "text/csv; charset=windows-1252"),
    ],
)
def test_another_character_set_is_refused_whole_and_not_guessed(
    admin: PersonCaller, raw: bytes, content_type: str
) -> None:
    document = problem_of(send(admin, raw, content_type), 400, "wrong_encoding")

    assert "charset=windows-1252" in document["detail"]
    assert not DeviceImport.objects.exists()
    assert not DeviceImportLine.objects.exists()


def test_a_cell_may_hold_line_breaks_and_an_open_quote_spoils_one_line(
    admin: PersonCaller,
) -> None:
    found = imported(
        admin,
        "deviceId,model,tag:note\n"
        'd-1,sensor-v1,"one\r\ntwo"\n'
        'd-2,"sensor-v1,\n'
        'd-3,sensor-v1,"say ""hi"""\n'
        "d-4,sensor-v1,\n",
    )

    assert rejections(found) == {4: "malformed"}
    assert [row["line"] for row in found["results"]] == [2, 4, 5, 6]
    tags = dict(Device.objects.values_list("device_id", "tags"))
    assert tags == {
        "d-1": {"note": "one\r\ntwo"},
        "d-3": {"note": 'say "hi"'},
        "d-4": {},
    }


def test_each_of_many_open_quotes_spoils_its_line_alone() -> None:
    rows = b'd,"m\n' + b"d,m\n" * 20_000
    file = io.BytesIO(b"deviceId,model\n" + rows * 20)

    records = list(read_spreadsheet(file, None).records)

    assert len(records) == 20 * 20_001
    assert sum(b"malformed" in (raw or b"") for _, raw in records) == 20


# --- Lines that are refused -------------------------------------------------------


def test_each_csv_line_stands_alone(admin: PersonCaller) -> None:
    DeviceFactory.create(device_id="taken")
    lines = [
        "deviceId,model,region,firmwareVersion,tags,tag:x,metadata",
        "good-1,sensor-v1,,,,,",
        "bad id,sensor-v1,,,,,",
        "import,sensor-v1,,,,,",
        ",sensor-v1,,,,,",
        "d-5,,,,,,",
        "d-6,toaster,,,,,",
        "d-7,sensor-v1,MOON,,,,",
        f"d-8,sensor-v1,,{'v' * 65},,,",
        "d-9,sensor-v1,,,site,,",
        "d-10,sensor-v1,,,a:b=c,,",
        "d-11,sensor-v1,,,x=1,2,",
        'd-12,sensor-v1,,,,,"{"',
        'd-13,sensor-v1,,,,,"[1]"',
        "d-14,sensor-v1",
        "d-15,sensor-v1,,,,,,x",
        'd-16,"sensor-v1,,,,,',
        "taken,sensor-v1,,,,,",
        "good-1,sensor-v1,,,,,",
        "good-2,sensor-v1,,,,,",
        "d-21,sensor-v1,,,timezone=Europa/Berlin,,",
    ]

    found = imported(admin, "\n".join(lines))

    assert found["status"] == "Completed"
    assert (found["total"], found["created"], found["rejected"]) == (20, 2, 18)
    assert rejections(found) == {
        3: "invalid",
        4: "reserved",
        5: "required",
        6: "required",
        7: "unknown_model",
        8: "invalid_choice",
        9: "invalid",
        10: "invalid",
        11: "invalid",
        12: "duplicate_key",
        13: "malformed",
        14: "not_a_dict",
        15: "wrong_columns",
        16: "wrong_columns",
        17: "malformed",
        18: "device_exists",
        19: "duplicate_in_file",
        21: "unknown_timezone",
    }
    said = {row["line"]: row for row in found["results"]}
    assert said[8]["deviceId"] == "d-7"
    assert said[8]["detail"].startswith("region: ")
    assert said[5]["deviceId"] is None
    assert said[5]["detail"] == "deviceId: missing in this line"
    assert said[6]["detail"] == "model: missing in this line"
    assert "line 2" in said[19]["detail"]
    names = set(Device.objects.values_list("device_id", flat=True))
    assert names == {"good-1", "good-2", "taken"}


def test_each_ndjson_line_stands_alone(admin: PersonCaller) -> None:
    good = {"deviceId": "d-1", "model": "sensor-v1"}
    lines = [
        json.dumps(good).encode(),
        b"{",
        b"[1]",
        b"null",
        b'{"deviceId": "d-5", "deviceId": "d-5", "model": "sensor-v1"}',
        json.dumps({**good, "deviceId": 6}).encode(),
        json.dumps({**good, "deviceId": "d-7", "surprise": 1}).encode(),
        json.dumps({**good, "deviceId": "d-8", "tags": {"a": 1}}).encode(),
        b'{"deviceId": "d-9", "model": "\xff"}',
        b'{"deviceId": "d-10", "model": "sensor-v1", "metadata": {"a": "\\u0000"}}',
        b'{"deviceId": "d-11", "model": "sensor-v1", "metadata": {"a": NaN}}',
        b"[" * 100_000,
        b'{"deviceId": "' + b"x" * MAX_LINE_BYTES + b'"}',
        json.dumps({**good, "deviceId": "d-14"}).encode(),
    ]

    found = imported(admin, b"\n".join(lines), NDJSON)

    assert found["created"] == 2
    assert rejections(found) == {
        2: "malformed",
        3: "invalid",
        4: "null",
        5: "duplicate_key",
        6: "invalid",
        7: "unknown",
        8: "invalid",
        9: "malformed",
        10: "invalid_character",
        11: "invalid_number",
        12: "too_deep",
        13: "line_too_long",
    }


def test_too_many_tags_and_too_much_metadata_are_refused_as_by_the_api(
    admin: PersonCaller,
) -> None:
    bodies: list[dict[str, Any]] = [
        {"deviceId": "d-1", "tags": {f"t{n}": "" for n in range(51)}},
        {"deviceId": "d-2", "metadata": {"a": "x" * 17_000}},
        {"deviceId": "d-3", "tags": {"a": "x" * 257}},
        {"deviceId": "x" * 129},
    ]
    bodies = [{"model": "sensor-v1", **body} for body in bodies]

    found = imported(admin, ndjson(*bodies), NDJSON)

    alone = [problem_of(admin.post("/devices", body), 400) for body in bodies]
    assert list(rejections(found).values()) == [
        document["errors"][0]["code"] for document in alone
    ]
    assert [row["detail"] for row in found["results"]] == [
        document["detail"] for document in alone
    ]


def test_a_name_goes_to_the_first_line_that_can_have_it(admin: PersonCaller) -> None:
    found = imported(
        admin,
        "deviceId,model,region\nd-1,toaster,\nd-1,sensor-v1,MOON\nd-1,sensor-v1,EU\n",
    )

    assert rejections(found) == {2: "unknown_model", 3: "invalid_choice"}
    assert Device.objects.get().region == "EU"


def test_a_duplicate_of_an_earlier_chunk_is_told_from_a_known_device(
    admin: PersonCaller, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(imports, "CHUNK_LINES", 1)
    DeviceFactory.create(device_id="taken")

    found = imported(
        admin, "deviceId,model\nd-1,sensor-v1\nd-1,sensor-v1\ntaken,sensor-v1\n"
    )

    assert rejections(found) == {3: "duplicate_in_file", 4: "device_exists"}


def test_results_come_in_pages_and_by_outcome(admin: PersonCaller) -> None:
    rows = "".join(f"d-{n},{'sensor-v1' if n % 2 else 'toaster'}\n" for n in range(20))
    found = imported(admin, "deviceId,model\n" + rows)

    path = f"/device-imports/{found['id']}"
    first = admin.get(f"{path}?outcome=rejected&pageSize=6&count=true").json()
    second = admin.get(first["next"].split("/api/v1")[1]).json()

    assert first["count"] == 10
    lines = [row["line"] for row in first["results"] + second["results"]]
    assert lines == list(range(2, 22, 2))
    assert second["next"] is None
    assert first["created"] == 10
    problem_of(admin.get(f"{path}?outcome=lost"), 400)
    problem_of(admin.get(f"{path}?surprise=1"), 400)


# --- Files that are refused -------------------------------------------------------


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("deviceId", {"/model": "required"}),
        ("deviceId,model,colour", {"/colour": "unknown"}),
        ("deviceId,model,model", {"/model": "duplicate"}),
        ("deviceId,model,tag:", {"/tag:": "invalid"}),
        ("deviceId,model,tag:a:b", {"/tag:a:b": "invalid"}),
        ("deviceId,,model", {"": "required"}),
        ("device;model", {"/device": "unknown", "/deviceId": "required"}),
        ('deviceId,"model', {}),
        ("\x00", {}),
    ],
)
def test_a_wrong_header_is_refused_at_once_and_names_the_column(
    admin: PersonCaller, header: str, expected: dict[str, str]
) -> None:
    response = send(admin, f"{header}\nd-1,sensor-v1\n")

    document = problem_of(response, 400, "malformed_header")
    assert pointers(document) == expected
    assert not DeviceImport.objects.exists()


@pytest.mark.parametrize(
    ("text", "content_type"),
    [("\n", CSV), ("\n \n", NDJSON), ("deviceId,model\n\n", CSV)],
)
def test_a_file_without_devices_is_refused(
    admin: PersonCaller, text: str, content_type: str
) -> None:
    problem_of(send(admin, text, content_type), 400, "empty")

    assert not DeviceImport.objects.exists()


@pytest.mark.parametrize(
    "content_type",
    [
        "application/json",
        "multipart/form-data; boundary=x",
        "text/csv; charset=koi8-r",
        "text/csv; header=absent",
        "application/x-ndjson; charset=windows-1252",
        "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
    ],
)
def test_another_kind_of_body_is_415(admin: PersonCaller, content_type: str) -> None:
    problem_of(send(admin, "deviceId,model\n", content_type), 415)


def test_a_compressed_body_is_415(admin: PersonCaller) -> None:
    response = send(admin, b"\x1f\x8b", headers={"Content-Encoding": "gzip"})

    problem_of(response, 415)


def test_a_file_over_the_limit_is_413_and_leaves_nothing(
    admin: PersonCaller, settings: Any
) -> None:
    settings.IMPORT_MAX_BYTES = 30

    response = send(admin, "deviceId,model\n" + "d-1,sensor-v1\n" * 10)

    problem_of(response, 413, "too_large")
    assert not DeviceImport.objects.exists()


def test_too_many_lines_are_413_and_leave_nothing(
    admin: PersonCaller, settings: Any
) -> None:
    settings.IMPORT_MAX_LINES = 2
    rows = "".join(f"d-{n},sensor-v1\n" for n in range(3))

    problem_of(send(admin, "deviceId,model\n" + rows), 413, "too_many_lines")

    assert not DeviceImport.objects.exists()
    assert not DeviceImportLine.objects.exists()


def test_a_body_that_breaks_off_is_refused(admin: PersonCaller) -> None:
    raw = b"deviceId,model\nd-1,sensor-v1\n"
    # The test client's own stream refuses to be read to a length that is a lie.
    lie: dict[str, Any] = {
        "CONTENT_LENGTH": len(raw) + 10,
        "wsgi.input": io.BytesIO(raw),
    }

    response: Any = admin.client.generic(
        "POST",
        "/api/v1/devices/import",
        raw,
        content_type=CSV,
        headers={"Authorization": f"Bearer {admin.token}"},
        **lie,
    )

    problem_of(response, 400, "incomplete")
    assert not DeviceImport.objects.exists()


def test_the_same_idempotency_key_imports_once(admin: PersonCaller) -> None:
    text = "deviceId,model\nd-1,sensor-v1\n"
    headers = {"Idempotency-Key": "k"}

    first = send(admin, text, headers=headers)
    again = send(admin, text, headers=headers)
    other = send(admin, text + "d-2,sensor-v1\n", headers=headers)

    assert first["Location"] == again["Location"]
    assert DeviceImport.objects.count() == 1
    problem_of(other, 422, "idempotency_key_reused")


# --- Keys -------------------------------------------------------------------------


def test_the_keys_open_the_devices(admin: PersonCaller) -> None:
    found = imported(admin, "deviceId,model\nd-1,sensor-v1\nd-2,sensor-v1\n")

    keys = keys_of(admin, found["id"])

    assert set(keys) == {"d-1", "d-2"}
    for device_id, key in keys.items():
        response = Caller().post(
            "/auth/device-token", {"deviceId": device_id, "apiKey": key}
        )
        assert response.status_code == 200


def test_keys_are_sealed_while_they_wait(admin: PersonCaller) -> None:
    found = imported(admin, "deviceId,model\nd-1,sensor-v1\n")
    kept = bytes(DeviceImportKeys.objects.get().sealed)

    key = keys_of(admin, found["id"])["d-1"]

    assert key.encode() not in kept
    assert b"d-1" not in kept


def test_a_download_that_broke_off_can_be_repeated_for_a_while(
    admin: PersonCaller,
) -> None:
    found = imported(admin, "deviceId,model\nd-1,sensor-v1\n")
    now = timezone.now()
    options = {"actor": admin.person, "import_id": found["id"]}

    first = imports.fetch_keys(**options, now=now)
    again = imports.fetch_keys(**options, now=now + timedelta(minutes=14))

    assert first == again
    with pytest.raises(imports.KeysGoneError):
        imports.fetch_keys(**options, now=now + timedelta(minutes=15))


def test_keys_end_with_the_acknowledgement(admin: PersonCaller) -> None:
    found = imported(admin, "deviceId,model\nd-1,sensor-v1\n")
    path = f"/device-imports/{found['id']}/keys"
    keys_of(admin, found["id"])

    assert admin.delete(path).status_code == 204

    problem_of(admin.get(path), 410, "keys_gone")
    assert admin.delete(path).status_code == 204
    assert not DeviceImportKeys.objects.exists()
    assert admin.get(f"/device-imports/{found['id']}").json()["keysEndAt"] is None
    verbs = AuditEvent.objects.filter(verb__startswith="device-import.keys")
    assert [event.verb for event in verbs.order_by("id")] == [
        "device-import.keys-fetched",
        "device-import.keys-erased",
    ]


def test_keys_that_nobody_fetches_are_erased_after_a_day(admin: PersonCaller) -> None:
    found = imported(admin, "deviceId,model\nd-1,sensor-v1\n")
    done = DeviceImport.objects.get().finished_at
    assert done is not None

    imports.erase_due_keys(now=done + timedelta(hours=23))
    assert DeviceImportKeys.objects.count() == 1
    imports.erase_due_keys(now=done + timedelta(hours=24))

    assert not DeviceImportKeys.objects.exists()
    problem_of(admin.get(f"/device-imports/{found['id']}/keys"), 410, "keys_gone")


def test_fetched_keys_are_erased_after_a_quarter_of_an_hour(
    admin: PersonCaller,
) -> None:
    found = imported(admin, "deviceId,model\nd-1,sensor-v1\n")
    keys_of(admin, found["id"])

    imports.erase_due_keys(now=timezone.now() + timedelta(minutes=16))

    assert not DeviceImportKeys.objects.exists()


def test_keys_of_an_import_that_runs_are_409(admin: PersonCaller) -> None:
    location = send(admin, "deviceId,model\nd-1,sensor-v1\n")["Location"]

    problem_of(admin.get(f"{location}/keys"), 409, "import_not_finished")
    problem_of(admin.delete(f"{location}/keys"), 409, "import_not_finished")


def test_an_import_of_long_ago_is_forgotten_and_its_devices_stay(
    admin: PersonCaller,
) -> None:
    imported(admin, "deviceId,model\nd-1,sensor-v1\n")
    later = timezone.now() + timedelta(days=31)

    imports.erase_due_keys(now=later)
    enforce_policies(now=later, names=["imports"])

    assert not DeviceImport.objects.exists()
    assert not DeviceImportLine.objects.exists()
    assert Device.objects.count() == 1


def test_what_a_line_said_is_not_kept(admin: PersonCaller) -> None:
    imported(admin, "deviceId,model,tag:a\nd-1,sensor-v1,secret-place\nd 2,x,\n")

    assert {bytes(raw or b"") for raw in _raws()} == {b""}


def _raws() -> Iterable[Any]:
    return DeviceImportLine.objects.values_list("raw", flat=True)


# --- Interruptions and races ------------------------------------------------------

KILLED_WORKER = """
import sys
import django
django.setup()
from devices.import_lines import LineReader
from devices.services import imports

class Stuck(LineReader):
    def read(self, raw):
        if b"d-02500" in raw:
            print("there", flush=True)
            sys.stdin.read()
        return super().read(raw)

imports.run_imports(reader_of=Stuck)
"""


def many(count: int) -> str:
    rows = "".join(f"d-{number:05},sensor-v1\n" for number in range(count))
    return f"deviceId,model\n{rows}"


@pytest.mark.django_db(transaction=True)
def test_a_killed_worker_loses_nothing_and_repeats_nothing(
    admin: PersonCaller,
) -> None:
    location = send(admin, many(3000))["Location"]
    database = psycopg.conninfo.make_conninfo(
        os.environ["HOTSWAP_DATABASE_URL"], dbname=connection.settings_dict["NAME"]
    )
    worker = subprocess.Popen(
        [sys.executable, "-c", KILLED_WORKER],
        cwd=Path(django_settings.BASE_DIR),
        env={
            **clean_environment(),
            "DJANGO_SETTINGS_MODULE": "hotswap.settings.test",
            "HOTSWAP_DATABASE_URL": database,
            "HOTSWAP_REDIS_URL": django_settings.REDIS_URL,
            "HOTSWAP_DATA_DIR": str(django_settings.DATA_DIR),
            "HOTSWAP_KEYS_DIR": str(django_settings.KEYS_DIR),
        },
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    try:
        assert worker.stdout is not None
        assert worker.stdout.readline() == b"there\n"
    finally:
        worker.kill()
        worker.communicate()

    halfway = admin.get(location).json()
    assert (halfway["status"], halfway["created"]) == ("Running", 2000)
    assert Device.objects.count() == 2000
    # Nobody takes it over while the lease holds.
    leased_until = DeviceImport.objects.get().leased_until
    assert leased_until is not None
    work_off(clock=lambda: leased_until - timedelta(milliseconds=1))
    assert DeviceImport.objects.get().created == 2000

    def is_done() -> bool:
        # The server may take a moment to notice that the worker is gone.
        work_off(clock=lambda: timezone.now() + 2 * imports.LEASE)
        return DeviceImport.objects.get().status == ImportStatus.COMPLETED

    wait_until(is_done, what="the import goes on after its worker was killed")
    done = admin.get(location).json()
    assert (done["created"], done["rejected"]) == (3000, 0)
    assert Device.objects.count() == 3000
    assert DeviceKey.objects.count() == 3000
    assert len(keys_of(admin, done["id"])) == 3000
    assert AuditEvent.objects.filter(verb="device.registered").count() == 3000


class BrokenReader(LineReader):
    """Stumbles over one line, as code that has a fault does."""

    def read(self, raw: bytes | None) -> Any:
        if raw is not None and b"d-02500" in raw:
            raise RuntimeError("broken")
        return super().read(raw)


@pytest.mark.django_db(transaction=True)
def test_an_import_that_always_stops_its_worker_fails_in_the_end(
    admin: PersonCaller,
) -> None:
    location = send(admin, many(3000))["Location"]
    now = timezone.now()

    for attempt in range(imports.MAX_ATTEMPTS):
        with pytest.raises(RuntimeError):
            work_off(
                reader_of=BrokenReader,
                clock=lambda a=attempt: now + 2 * a * imports.LEASE,
            )
    work_off(clock=lambda: now + 100 * imports.LEASE)

    found = admin.get(location).json()
    assert found["status"] == "Failed"
    assert "after 2001" in found["failure"]
    assert (found["created"], found["total"]) == (2000, 3000)
    assert len(keys_of(admin, found["id"])) == 2000
    assert Device.objects.count() == 2000
    assert not DeviceImportLine.objects.filter(raw__isnull=False).exists()


@pytest.mark.django_db(transaction=True)
def test_two_workers_share_imports_without_repeating_a_line(
    admin: PersonCaller, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(imports, "CHUNK_LINES", 50)
    # Both files name the same devices, the second in the opposite order.
    send(admin, many(400))
    head, *rows = many(400).splitlines()
    send(admin, "\n".join([head, *reversed(rows)]))
    failures: list[BaseException] = []

    def work() -> None:
        try:
            work_off()
        except BaseException as error:  # noqa: BLE001
            failures.append(error)
        finally:
            connection.close()

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)

    assert failures == []
    assert Device.objects.count() == 400
    batches = DeviceImport.objects.all()
    assert {batch.status for batch in batches} == {ImportStatus.COMPLETED}
    assert sum(batch.created for batch in batches) == 400
    assert sum(batch.rejected for batch in batches) == 400


@pytest.mark.django_db(transaction=True)
def test_a_name_taken_while_its_chunk_is_at_work_is_a_rejection(
    admin: PersonCaller,
) -> None:
    location = send(admin, many(3))["Location"]
    actor = PersonFactory.create(operator=True)

    class Racing(LineReader):
        def read(self, raw: bytes | None) -> Any:
            # Another connection registers the device while this chunk is read.
            if raw == b'["d-00001", "sensor-v1"]' and not Device.objects.exists():
                other = threading.Thread(target=register)
                other.start()
                other.join(60)
            return super().read(raw)

    def register() -> None:
        DeviceFactory.create(device_id="d-00001", actor=actor)
        connection.close()

    work_off(reader_of=Racing)

    found = admin.get(location).json()
    assert rejections(found) == {3: "device_exists"}
    assert found["created"] == 2


# --- With a real worker -----------------------------------------------------------


@pytest.mark.stack
def test_a_running_server_imports_a_file(live_stack: LiveStack) -> None:
    with httpx.Client(base_url=f"{live_stack.url}/api/v1", timeout=60) as client:
        login = client.post(
            "/auth/token",
            json={
                "username": live_stack.admin_username,
                "password": live_stack.admin_password,
            },
        )
        client.headers["Authorization"] = f"Bearer {login.json()['access']}"
        client.post("/device-models", json={"name": "import-model"})
        rows = "".join(f"live-{number},import-model\n" for number in range(500))
        begun = client.post(
            "/devices/import",
            content=f"deviceId,model\n{rows}".encode(),
            headers={"Content-Type": CSV},
        )
        path = begun.headers["Location"].removeprefix("/api/v1")

        done: Any = wait_until(
            lambda: (
                found
                if (found := client.get(path).json())["status"] == "Completed"
                else None
            ),
            what="the import is completed",
        )
        keys = client.get(f"{path}/keys").text

        assert begun.status_code == 202
        assert done["created"] == 500
        assert keys.count("\r\n") == 501
