"""Bills of materials: what is read of them, kept, found and handed out."""

import json
import zipfile
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from django.test import Client

from firmware.models import Firmware
from firmware.sboms import MAX_COMPONENTS, Component, read_sbom
from hotswap.common.models import AuditEvent
from tests.api import problem_of
from tests.callers import PersonCaller
from tests.common.factories import PersonFactory
from tests.firmware.factories import FirmwareFactory

OPENSSL = "pkg:generic/openssl@3.0.1"
CYCLONE_DX: dict[str, Any] = {
    "bomFormat": "CycloneDX",
    "specVersion": "1.6",
    "components": [
        {
            "type": "library",
            "name": "openssl",
            "version": "3.0.1",
            "purl": OPENSSL,
            "components": [{"name": "libcrypto", "version": "3.0.1"}],
        },
        {"name": "@angular/core"},
    ],
}
SPDX: dict[str, Any] = {
    "spdxVersion": "SPDX-2.3",
    "packages": [
        {
            "name": "openssl",
            "versionInfo": "3.0.1",
            "externalRefs": [
                {"referenceType": "cpe23Type", "referenceLocator": "cpe:2.3:..."},
                {"referenceType": "purl", "referenceLocator": OPENSSL},
            ],
        },
        {"name": "zlib"},
    ],
}


def written(document: Any) -> bytes:
    return json.dumps(document).encode()


def test_components_of_cyclone_dx_are_read_with_those_inside_of_them() -> None:
    read = read_sbom(written(CYCLONE_DX))

    assert (read.form, read.spec_version) == ("CycloneDX", "1.6")
    assert set(read.components) == {
        Component("openssl", "3.0.1", OPENSSL),
        Component("libcrypto", "3.0.1", ""),
        Component("@angular/core", "", ""),
    }


def test_packages_of_spdx_are_read() -> None:
    read = read_sbom(written(SPDX))

    assert (read.form, read.spec_version) == ("SPDX", "2.3")
    assert read.components == (
        Component("openssl", "3.0.1", OPENSSL),
        Component("zlib", "", ""),
    )


@pytest.mark.parametrize(
    ("body", "named"),
    [
        (b"", "Expecting value"),
        (b"\xff", "UTF-8"),
        (b"[]", "no JSON object"),
        (b"{}", "neither CycloneDX"),
        (b"[" * 100_000, "nested too deep"),
        (b"[" * 300_000, "lists and objects"),
        (b'{"bomFormat": "CycloneDX"}', "specVersion is missing"),
        (b'{"bomFormat": "CycloneDX", "bomFormat": "CycloneDX"}', "twice"),
        (written({**CYCLONE_DX, "components": {}}), "components is no list"),
        (written({**CYCLONE_DX, "components": [1]}), "components is no list"),
        (written({**CYCLONE_DX, "components": [{}]}), r"components\[0\] has no name"),
        (written({**CYCLONE_DX, "components": [{"name": 1}]}), "no text"),
        (written({**CYCLONE_DX, "components": [{"name": "x" * 513}]}), "no text"),
        (written({**CYCLONE_DX, "components": [{"name": "\x00"}]}), "not allowed"),
        (written({**CYCLONE_DX, "components": [{"name": "\ud800"}]}), "not allowed"),
        (written({"spdxVersion": ""}), "spdxVersion is empty"),
        (written({"spdxVersion": 2}), "no text"),
        (
            written({**SPDX, "packages": [{"name": "x"}] * (MAX_COMPONENTS + 1)}),
            "more than 20,000 packages",
        ),
    ],
)
def test_what_is_no_bill_of_materials_is_refused_with_the_reason(
    body: bytes, named: str
) -> None:
    with pytest.raises(ValueError, match=named):
        read_sbom(body)


@pytest.fixture
def firmware(db: None) -> Firmware:
    return FirmwareFactory.create(approved=True)


def route(firmware: Firmware) -> str:
    return f"/api/v1/firmware/{firmware.pk}/sbom"


def test_it_is_kept_and_given_out_to_the_byte(
    admin: PersonCaller, viewer: PersonCaller, firmware: Firmware
) -> None:
    answer = admin.post(route(firmware), CYCLONE_DX)
    shown = viewer.get(route(firmware))

    assert answer.status_code == 200
    body = answer.json()
    assert (body["format"], body["specVersion"]) == ("CycloneDX", "1.6")
    assert body["componentCount"] == 3
    assert shown.json() == CYCLONE_DX
    assert len(shown.content) == body["size"]
    etag = shown.headers["ETag"]
    again = viewer.get(route(firmware), headers={"If-None-Match": etag})
    assert again.status_code == 304


def test_a_later_one_takes_its_place_and_the_same_again_changes_nothing(
    admin: PersonCaller, firmware: Firmware
) -> None:
    for document in (CYCLONE_DX, CYCLONE_DX, SPDX):
        assert admin.post(route(firmware), document).status_code == 200

    assert admin.get(route(firmware)).json() == SPDX
    first, second = AuditEvent.objects.filter(verb="firmware.sbom-uploaded").order_by(
        "id"
    )
    assert first.details["formerSha256"] is None
    assert second.details["formerSha256"] == first.details["sha256"]
    assert second.details["format"] == "SPDX"


def test_one_that_cannot_be_read_is_a_400_and_leaves_the_former(
    admin: PersonCaller, firmware: Firmware
) -> None:
    admin.post(route(firmware), SPDX)

    problem = problem_of(admin.post(route(firmware), {"bomFormat": "other"}), 400)

    assert problem["code"] == "invalid_sbom"
    assert "neither CycloneDX" in problem["detail"]
    assert admin.get(route(firmware)).json() == SPDX


def test_bytes_that_are_no_text_are_a_400_also_with_a_key(
    admin: PersonCaller, firmware: Firmware
) -> None:
    for headers in ({}, {"Idempotency-Key": "once"}):
        answer = admin.post(route(firmware), raw=b"i\xd5\xbb\xe0", headers=headers)

        problem_of(answer, 400, "invalid_sbom")


def test_another_document_under_the_same_key_is_refused(
    admin: PersonCaller, firmware: Firmware
) -> None:
    key = {"Idempotency-Key": "once"}

    first = admin.post(route(firmware), SPDX, headers=key)
    again = admin.post(route(firmware), SPDX, headers=key)
    other = admin.post(route(firmware), CYCLONE_DX, headers=key)

    assert first.json() == again.json()
    problem_of(other, 422, "idempotency_key_reused")


def test_where_none_was_uploaded_there_is_none(
    admin: PersonCaller, firmware: Firmware
) -> None:
    assert problem_of(admin.get(route(firmware)), 404)["code"] == "sbom_not_found"


@pytest.mark.parametrize(
    ("component", "is_found"),
    [
        ("openssl", True),
        ("openssl@3.0.1", True),
        ("@angular/core", True),
        (OPENSSL, True),
        ("openssl@3.0.2", False),
        ("openss", False),
        ("pkg:generic/openssl", False),
    ],
)
def test_firmware_is_found_by_what_it_is_made_of(
    viewer: PersonCaller,
    admin: PersonCaller,
    firmware: Firmware,
    component: str,
    is_found: bool,
) -> None:
    FirmwareFactory.create()
    admin.post(route(firmware), CYCLONE_DX)

    query = urlencode({"component": component})
    rows = viewer.get(f"/api/v1/firmware?{query}").json()["results"]

    assert [row["id"] for row in rows] == ([str(firmware.pk)] if is_found else [])


def test_it_is_in_the_evidence(
    admin: PersonCaller, firmware: Firmware, settings: Any, tmp_path: Path
) -> None:
    settings.AUDIT_DIR = tmp_path / "audit"
    admin.post(route(firmware), SPDX)
    answer = admin.get(f"/api/v1/firmware/{firmware.pk}/evidence")
    path = tmp_path / "evidence.zip"
    path.write_bytes(
        b"".join(answer.streaming_content) if answer.streaming else answer.content
    )

    with zipfile.ZipFile(path) as archive:
        assert json.loads(archive.read("sbom.json")) == SPDX


def page_of(firmware: Firmware) -> str:
    return f"/admin/firmware/firmware/{firmware.pk}/change/"


def test_the_page_of_the_firmware_names_its_components_and_gives_it_out(
    admin: PersonCaller, firmware: Firmware
) -> None:
    admin.post(route(firmware), CYCLONE_DX)
    client = Client()
    client.force_login(PersonFactory.create())

    page = client.get(page_of(firmware)).content.decode()
    document = client.get(f"/admin/firmware/firmware/{firmware.pk}/sbom/")

    assert "CycloneDX 1.6, 3 components, uploaded" in page
    assert "<dt>libcrypto</dt><dd>3.0.1</dd>" in page
    assert OPENSSL in page
    assert "<dt>@angular/core</dt><dd>no version</dd>" in page
    assert f'href="/admin/firmware/firmware/{firmware.pk}/sbom/"' in page
    assert json.loads(document.content) == CYCLONE_DX
    assert "attachment" in document["Content-Disposition"]


def test_a_page_without_one_says_where_it_goes(firmware: Firmware) -> None:
    client = Client()
    client.force_login(PersonFactory.create())

    page = client.get(page_of(firmware)).content.decode()

    assert f"<code>/api/v1/firmware/{firmware.pk}/sbom</code>" in page
    missing = client.get(f"/admin/firmware/firmware/{firmware.pk}/sbom/")
    assert missing.status_code == 404
