"""Device models say how the versions of their firmware are written and ordered."""

from typing import Any
from urllib.parse import quote

import pytest

from firmware.models import DeviceModel, Firmware
from firmware.versions import VersionScheme
from hotswap.common.models import AuditEvent
from tests.api import pointers, problem_of
from tests.callers import PersonCaller
from tests.firmware.factories import DeviceModelFactory, FirmwareFactory
from tests.firmware.forms import upload

NUMERIC, DATE = VersionScheme.NUMERIC, VersionScheme.DATE
OPAQUE = VersionScheme.OPAQUE


def listed(viewer: PersonCaller) -> list[str]:
    rows = viewer.get("/firmware?sort=version").json()["results"]
    return [row["version"] for row in rows]


# --- The scheme of a model ----------------------------------------------------------


def test_a_model_is_semantic_unless_told(admin: PersonCaller) -> None:
    made = admin.post("/device-models", {"name": "plain"}).json()

    assert made["versionScheme"] == "semver"


@pytest.mark.parametrize("scheme", VersionScheme)
def test_a_model_says_its_scheme(
    admin: PersonCaller, viewer: PersonCaller, scheme: str
) -> None:
    made = admin.post("/device-models", {"name": "m", "versionScheme": scheme})

    assert made.status_code == 201
    assert made.json()["versionScheme"] == scheme
    assert viewer.get(f"/device-models/{made.json()['id']}").json() == made.json()
    row = AuditEvent.objects.get(verb="device-model.created")
    assert row.details["versionScheme"] == scheme


@pytest.mark.parametrize("scheme", ["SemVer", "", None, 5, ["date"], {}, "\x00"])
def test_no_other_scheme_is_taken(admin: PersonCaller, scheme: Any) -> None:
    model = DeviceModelFactory.create()

    made = admin.post("/device-models", {"name": "m", "versionScheme": scheme})
    changed = admin.patch(f"/device-models/{model.pk}", {"versionScheme": scheme})

    for answer in (made, changed):
        assert set(pointers(problem_of(answer, 400))) <= {"/versionScheme", ""}
    assert DeviceModel.objects.get().version_scheme == "semver"


def test_a_scheme_changes_until_the_first_upload(admin: PersonCaller) -> None:
    model = DeviceModelFactory.create(name="sensor-v1")
    path = f"/device-models/{model.pk}"

    changed = admin.patch(path, {"versionScheme": "numeric"})
    uploaded = upload(admin, version="1.7.1.10")
    refused = admin.patch(path, {"versionScheme": "semver", "description": "new"})
    same = admin.patch(path, {"versionScheme": "numeric", "description": "other"})

    assert (changed.status_code, uploaded.status_code) == (200, 201)
    problem = problem_of(refused, 409, "version_scheme_in_use")
    assert pointers(problem) == {"/versionScheme": "version_scheme_in_use"}
    assert (same.status_code, same.json()["description"]) == (200, "other")
    assert admin.get(path).json()["versionScheme"] == "numeric"


# --- Uploads ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("scheme", "version", "said"),
    [
        ("semver", "1.7.1.10", "a semantic version such as 2.5.0"),
        ("numeric", "v2.3-14-gabcdef", "numbers separated by dots such as 1.7.1.10"),
        ("date", "2026.02.29", "a date such as 2026.01.05"),
        ("opaque", "two\nlines", "1 to 64 printable characters"),
    ],
)
def test_a_version_of_another_scheme_is_refused_with_an_example(
    admin: PersonCaller, scheme: str, version: str, said: str
) -> None:
    admin.post("/device-models", {"name": "sensor-v1", "versionScheme": scheme})

    problem = problem_of(upload(admin, version=version), 400)

    assert pointers(problem) == {"/version": "invalid"}
    assert said in problem["errors"][0]["detail"]
    assert not Firmware.objects.exists()


@pytest.mark.parametrize(
    ("scheme", "rising"),
    [
        ("numeric", ["1.2", "v1.2.3", "1.7.1.9", "1.7.1.10", "20261129"]),
        ("date", ["2026.01.05", "2026-01-05-2", "2026.01.05.10", "20260106"]),
        ("opaque", ["v2.3-14-gabcdef", "zeta", "1.0.0", "alpha 7"]),
    ],
)
def test_versions_are_kept_as_written_and_sorted_by_their_scheme(
    admin: PersonCaller, viewer: PersonCaller, scheme: str, rising: list[str]
) -> None:
    admin.post("/device-models", {"name": "sensor-v1", "versionScheme": scheme})
    order = rising if scheme == "opaque" else sorted(rising, reverse=True)

    for version in order:
        assert upload(admin, version.encode(), version=version).status_code == 201

    assert listed(viewer) == rising
    for version in rising:
        found = viewer.get(f"/firmware?version={quote(version)}").json()["results"]
        assert [row["version"] for row in found] == [version]


@pytest.mark.parametrize(
    ("scheme", "first", "second"),
    [
        ("numeric", "1.2", "1.2.0"),
        ("numeric", "1.2.3", "v1.2.3"),
        ("date", "2026.01.05", "2026-01-05"),
        ("date", "20260105", "2026.01.05.0"),
    ],
)
@pytest.mark.parametrize("content", [b"the same", b"other"])
def test_one_version_is_there_in_one_writing(
    admin: PersonCaller, scheme: str, first: str, second: str, content: bytes
) -> None:
    admin.post("/device-models", {"name": "sensor-v1", "versionScheme": scheme})
    upload(admin, b"the same", version=first)

    problem = problem_of(upload(admin, content, version=second), 409, "version_exists")

    assert f"{second} is the same version as {first}" in problem["detail"]
    assert upload(admin, b"the same", version=first).status_code == 200
    assert Firmware.objects.count() == 1


def test_versions_of_two_models_do_not_meet(admin: PersonCaller) -> None:
    admin.post("/device-models", {"name": "a", "versionScheme": "numeric"})
    admin.post("/device-models", {"name": "b", "versionScheme": "numeric"})

    assert upload(admin, model="a", version="1.2").status_code == 201
    assert upload(admin, model="b", version="1.2.0").status_code == 201


@pytest.mark.django_db
def test_opaque_versions_are_numbered_for_each_model() -> None:
    for model in ("a", "b", "a"):
        DeviceModelFactory.create(name=model, version_scheme=OPAQUE)
        FirmwareFactory.create(model_name=model)

    keys = Firmware.objects.order_by("created_at").values_list("precedence", flat=True)

    assert list(keys) == ["o011", "o011", "o012"]
