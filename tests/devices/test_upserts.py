"""Exporting a list of devices, editing it, and importing it again."""

import csv
import io
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.utils import timezone
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from devices.choices import ImportFormat, ImportMode
from devices.exceptions import ImportNotApplicableError
from devices.import_lines import LineReader
from devices.models import Device, DeviceImport, DeviceImportLine, DeviceKey
from devices.services import exporting, imports
from devices.services.erasure import erase_device
from devices.services.registry import apply_stated
from devices.spreadsheets import read_spreadsheet
from firmware.models import DeviceModel
from hotswap.common.csv_cells import MARK, csv_lines, guarded, unguarded
from hotswap.common.models import AuditEvent
from tests.api import Caller, problem_of
from tests.callers import PersonCaller
from tests.devices.factories import DeviceFactory
from tests.firmware.factories import DeviceModelFactory

UPSERT = "/devices/import?mode=upsert"
DRY = f"{UPSERT}&dryRun=true"


@pytest.fixture
def fleet(db: None) -> dict[str, Device]:
    """Devices with odd tags and metadata, and two models."""
    DeviceModelFactory.create(name="sensor-v1")
    DeviceModelFactory.create(name="sensor-v2")
    odd: list[dict[str, Any]] = [
        {"tags": {"site": "plant-7", "line": "3"}, "metadata": {"rack": 7}},
        {"tags": {"formula": '=HYPERLINK("http://x")', "-": "+1"}, "enabled": False},
        {"tags": {"a;b": "c=d;e", "note": "one\r\ntwo"}, "metadata": {"": [None]}},
        {"tags": {"'quoted": '"', "blank": ""}, "metadata": {"a": True, "b": 1.5}},
        {},
    ]
    found = {}
    for number, fields in enumerate(odd):
        device = DeviceFactory.create(device_id=f"d-{number}", model_name="sensor-v1")
        Device.objects.filter(pk=device.pk).update(**fields)
        device.refresh_from_db()
        found[device.device_id] = device
    return found


def exported(caller: Caller, query: str = "") -> bytes:
    answer = caller.get(f"/devices/export{query}")
    assert answer.status_code == 200
    return bytes(answer.content)


def rows_of(raw: bytes) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(raw.decode("utf-8-sig"), newline="")))


def imported(caller: Caller, raw: bytes | str, path: str = UPSERT) -> dict[str, Any]:
    """Import a file and return what the server says of it."""
    text = raw if isinstance(raw, bytes) else raw.encode()
    answer = caller.post(path, raw=text, content_type="text/csv")
    assert answer.status_code == 202, answer.content
    imports.run_imports(reader_of=LineReader)
    found: dict[str, Any] = caller.get(answer["Location"]).json()
    assert found["status"] == "Completed"
    return found


def outcomes(found: dict[str, Any]) -> dict[str, str]:
    word = "action" if found["dryRun"] else "outcome"
    return {row["deviceId"]: row[word] for row in found["results"]}


# --- There and back ---------------------------------------------------------------

ODD = st.text(
    "=+-@'\"\\\t\r\n;,:{}[] aZ0\xe4\u20ac\U0001f600"
    "\v\x1c\x7f\x85\xa0\u2028\u200f\ufeff\uff1d",
    max_size=12,
)
# A busy machine is no failure.
UNHURRIED = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
# The API takes blanks at the ends of values away.
TEXTS = ODD.map(str.strip)
NAMES = TEXTS.map(lambda name: name.replace(":", "").strip()).filter(bool)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(-1e300, 1e300) | ODD,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(ODD, inner, max_size=3),
    max_leaves=10,
)


@UNHURRIED
@given(
    tags=st.dictionaries(
        NAMES.filter(lambda name: name != "timezone"), TEXTS, max_size=5
    ),
    metadata=st.dictionaries(ODD, VALUES, max_size=3),
    enabled=st.booleans(),
)
def test_what_was_exported_changes_nothing_when_it_is_imported(
    tags: dict[str, str], metadata: dict[str, Any], enabled: bool
) -> None:
    device = Device(
        device_id="d-1",
        model=DeviceModel(name="sensor-v1"),
        region="EU",
        tags=tags,
        metadata=metadata,
        enabled=enabled,
        firmware_version="1.0.0",
    )
    # It was never heard.
    Device.state.related.set_cached_value(device, None)
    now = datetime(2026, 3, 2, tzinfo=UTC)
    lines = [exporting.COLUMNS, exporting.row_of(device, now)]

    sheet = read_spreadsheet(io.BytesIO(MARK + csv_lines(lines)), None)
    ((number, raw),) = sheet.records
    said = LineReader(ImportFormat.CSV, sheet.columns, ImportMode.UPSERT).read(raw)

    assert number == 2
    assert said.device is not None, said
    assert apply_stated(device, said.device, {}) == []


@UNHURRIED
@given(ODD)
def test_a_guarded_cell_is_no_formula_and_is_read_as_it_was(cell: str) -> None:
    assert not guarded(cell).startswith(("=", "+", "-", "@", "\t", "\r"))
    assert unguarded(guarded(cell)) == cell


def test_an_export_is_imported_without_a_change(
    admin: PersonCaller, fleet: dict[str, Device]
) -> None:
    raw = exported(admin)

    found = imported(admin, raw, DRY)
    for_real = imported(admin, raw)

    assert (found["unchanged"], found["total"]) == (5, 5)
    assert set(outcomes(found).values()) == {"unchanged"}
    assert all(row["changes"] == [] for row in found["results"])
    assert for_real["unchanged"] == 5
    assert not AuditEvent.objects.filter(verb="device.changed").exists()
    for name, device in fleet.items():
        assert Device.objects.get(device_id=name).updated_at == device.updated_at


# --- Exporting --------------------------------------------------------------------


def test_an_export_has_the_devices_of_the_list_and_no_formula(
    viewer: PersonCaller, fleet: dict[str, Device], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exporting, "BATCH", 2)
    Device.objects.filter(device_id__in=["d-0", "d-1"]).update(region="EU")

    raw = exported(viewer)
    some = rows_of(exported(viewer, "?region=EU&enabled=true"))

    assert [row["deviceId"] for row in rows_of(raw)] == sorted(fleet)
    assert [row["deviceId"] for row in some] == ["d-0"]
    assert some[0]["tags"] == "line=3;site=plant-7"
    assert some[0]["metadata"] == '{"rack": 7}'
    assert (some[0]["enabled"], some[0]["status"]) == ("true", "never_seen")
    for row in csv.reader(io.StringIO(raw.decode("utf-8-sig"), newline="")):
        assert not any(cell.startswith(("=", "+", "-", "@")) for cell in row)


def test_an_export_is_a_file_that_nobody_stores(
    viewer: PersonCaller, fleet: dict[str, Device]
) -> None:
    answer = viewer.get("/devices/export")

    assert answer["Content-Type"] == "text/csv; charset=utf-8"
    assert answer["Cache-Control"] == "no-store"
    assert answer["Content-Disposition"].startswith('attachment; filename="devices-')
    problem_of(viewer.get("/devices/export?pageSize=5"), 400)
    problem_of(viewer.get("/devices/export?region=MOON"), 400)


# --- Changing ---------------------------------------------------------------------


def test_an_edited_export_changes_what_was_edited(
    admin: PersonCaller, fleet: dict[str, Device]
) -> None:
    before = Device.objects.get(device_id="d-0").updated_at
    rows = rows_of(exported(admin))
    rows[0] |= {"model": "sensor-v2", "region": "EU", "enabled": "FALSE"}
    rows[0] |= {"tags": "site=plant-8", "metadata": '{"rack": 8}'}
    rows[0] |= {"firmwareVersion": "9.9.9", "status": "online"}
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, rows[0])
    writer.writeheader()
    writer.writerows(rows)

    dry = imported(admin, text.getvalue(), DRY)
    assert Device.objects.get(device_id="d-0").updated_at == before
    found = imported(admin, text.getvalue())

    assert (found["updated"], found["unchanged"]) == (1, 4)
    (row,) = (row for row in dry["results"] if row["action"] == "update")
    assert row == {
        "line": 2,
        "deviceId": "d-0",
        "action": "update",
        "changes": [
            {"field": "model", "from": "sensor-v1", "to": "sensor-v2"},
            {"field": "region", "from": "US-EAST", "to": "EU"},
            {"field": "enabled", "from": True, "to": False},
            {"field": "tag:line", "from": "3", "to": None},
            {"field": "tag:site", "from": "plant-7", "to": "plant-8"},
            {"field": "metadata", "from": {"rack": 7}, "to": {"rack": 8}},
        ],
    }
    device = Device.objects.get(device_id="d-0")
    assert (device.model.name, device.region, device.enabled) == (
        "sensor-v2",
        "EU",
        False,
    )
    assert (device.tags, device.metadata) == ({"site": "plant-8"}, {"rack": 8})
    assert device.firmware_version == fleet["d-0"].firmware_version
    assert device.updated_at > before
    event = AuditEvent.objects.get(verb="device.changed")
    assert event.object_id == str(device.pk)
    assert event.details == {
        "fields": ["enabled", "metadata", "model", "region", "tags"],
        "import": found["id"],
        "changes": {
            "model": {"from": "sensor-v1", "to": "sensor-v2"},
            "region": {"from": "US-EAST", "to": "EU"},
            "enabled": {"from": True, "to": False},
            "tags": {"withheld": ["line", "site"]},
            "metadata": {"withheld": ["rack"]},
        },
    }


def test_an_empty_cell_leaves_and_an_empty_map_clears(
    admin: PersonCaller, fleet: dict[str, Device]
) -> None:
    imported(
        admin,
        "deviceId;region;tags;tag:site;metadata\n"
        "d-0;;;plant-9;\n"
        "d-1;;{};;{}\n"
        'd-3;;{"x": "=1"};\'=2;\n',
    )

    found = dict(Device.objects.values_list("device_id", "tags"))
    assert found["d-0"] == {"site": "plant-9", "line": "3"}
    assert found["d-1"] == {}
    assert found["d-3"] == {"x": "=1", "site": "=2"}
    assert Device.objects.get(device_id="d-0").metadata == {"rack": 7}
    assert Device.objects.get(device_id="d-0").region == "US-EAST"


def test_others_are_registered_and_get_keys(
    admin: PersonCaller, fleet: dict[str, Device]
) -> None:
    keys = DeviceKey.objects.count()

    found = imported(
        admin,
        "deviceId,model,enabled,tag:a\n"
        "new-1,sensor-v1,false,b\nnew-2,,,\nnew-3,toaster,,\nd-0,toaster,,\nd-1,,no,\n",
    )

    assert outcomes(found) == {
        "new-1": "created",
        "new-2": "rejected",
        "new-3": "rejected",
        "d-0": "rejected",
        "d-1": "rejected",
    }
    codes = {row["deviceId"]: row.get("code") for row in found["results"]}
    assert (codes["new-2"], codes["d-0"]) == ("required", "unknown_model")
    new = Device.objects.get(device_id="new-1")
    assert (new.enabled, new.tags) == (False, {"a": "b"})
    assert DeviceKey.objects.count() == keys + 1
    answer = admin.get(f"/device-imports/{found['id']}/keys")
    assert answer.content.decode().splitlines()[1].startswith("new-1,hsd_")


@pytest.mark.parametrize("chunk", [1, 2000])
@pytest.mark.parametrize("path", [UPSERT, DRY, "/devices/import?dryRun=true"])
def test_an_id_stands_in_one_line_only(
    admin: PersonCaller,
    fleet: dict[str, Device],
    monkeypatch: pytest.MonkeyPatch,
    chunk: int,
    path: str,
) -> None:
    monkeypatch.setattr(imports, "CHUNK_LINES", chunk)

    found = imported(
        admin,
        "deviceId,model\nnew-1,toaster\nnew-1,sensor-v1\nnew-1,sensor-v1\n",
        path,
    )

    codes = [row.get("code") for row in found["results"]]
    assert codes == ["unknown_model", None, "duplicate_in_file"]
    assert "line 3 of this file" in found["results"][2]["detail"]


def test_more_than_fifty_tags_are_refused_where_tags_are_added(
    admin: PersonCaller, fleet: dict[str, Device]
) -> None:
    many = {f"t{number}": "" for number in range(50)}
    Device.objects.filter(device_id="d-0").update(tags=many)

    found = imported(admin, "deviceId,tag:one\nd-0,more\n")

    assert found["results"][0]["code"] == "too_many"
    assert Device.objects.get(device_id="d-0").tags == many


# --- Dry runs ---------------------------------------------------------------------


def test_a_dry_run_of_new_devices_registers_none(
    admin: PersonCaller, fleet: dict[str, Device]
) -> None:
    before = (Device.objects.count(), DeviceKey.objects.count())
    registered = AuditEvent.objects.filter(verb="device.registered").count()

    found = imported(
        admin,
        "deviceId,model\nnew-1,sensor-v1\nd-0,sensor-v1\n",
        "/devices/import?dryRun=true",
    )

    assert (found["mode"], found["dryRun"]) == ("create", True)
    assert outcomes(found) == {"new-1": "create", "d-0": "reject"}
    assert found["results"][1]["code"] == "device_exists"
    assert (Device.objects.count(), DeviceKey.objects.count()) == before
    assert AuditEvent.objects.filter(verb="device.registered").count() == registered
    assert found["keysEndAt"] is None
    problem_of(admin.get(f"/device-imports/{found['id']}/keys"), 410, "keys_gone")


def test_a_dry_run_is_applied_once_and_within_a_day(
    admin: PersonCaller, fleet: dict[str, Device]
) -> None:
    found = imported(admin, "deviceId,region\nd-0,EU\nd-1,MOON\n", DRY)

    batch = imports.apply_import(actor=admin.person, import_id=found["id"])
    imports.run_imports(reader_of=LineReader)

    batch.refresh_from_db()
    assert (batch.updated, batch.rejected, batch.is_dry_run) == (1, 1, False)
    assert Device.objects.get(device_id="d-0").region == "EU"
    with pytest.raises(ImportNotApplicableError):
        imports.apply_import(actor=admin.person, import_id=found["id"])
    with pytest.raises(ImportNotApplicableError):
        imports.apply_import(actor=admin.person, import_id=batch.pk)
    again = imported(admin, "deviceId,region\nd-0,US-WEST\n", DRY)
    imports.erase_due_keys(now=timezone.now() + timedelta(hours=25))
    with pytest.raises(ImportNotApplicableError):
        imports.apply_import(actor=admin.person, import_id=again["id"])
    assert not DeviceImportLine.objects.filter(raw__isnull=False).exists()


def test_an_erased_device_is_in_no_dry_run(
    admin: PersonCaller, fleet: dict[str, Device]
) -> None:
    imported(admin, "deviceId,region,tag:owner\nd-0,EU,Jane Doe\n", DRY)

    erase_device(actor=admin.person, device_id="d-0")

    line = DeviceImportLine.objects.get()
    assert (line.raw, line.changes, line.device_id) == (None, None, "")


# --- Requests ---------------------------------------------------------------------


@pytest.mark.parametrize(
    "query", ["mode=replace", "dryRun=yes", "acknowledge=all", "surprise=1"]
)
def test_an_unknown_option_is_refused(admin: PersonCaller, query: str) -> None:
    answer = admin.post(
        f"/devices/import?{query}", raw=b"deviceId,model\n", content_type="text/csv"
    )

    problem_of(answer, 400)
    assert not DeviceImport.objects.exists()


def test_the_same_key_with_another_mode_is_another_request(
    admin: PersonCaller, fleet: dict[str, Device]
) -> None:
    options = {
        "raw": b"deviceId,model\nd-0,sensor-v1\n",
        "content_type": "text/csv",
        "headers": {"Idempotency-Key": "k"},
    }

    first = admin.post(DRY, **options)
    other = admin.post(UPSERT, **options)

    assert first.status_code == 202
    problem_of(other, 422, "idempotency_key_reused")
