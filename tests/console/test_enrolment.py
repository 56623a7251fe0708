"""What people do on the pages of enrolments, enrolment tokens and imports."""

import re
from typing import Any

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.utils import timezone

from devices.choices import EnrolmentStatus
from devices.import_lines import LineReader
from devices.models import Device, DeviceImport, EnrolmentRequest, EnrolmentToken
from devices.services import imports
from devices.services.enrolment import Applicant, Enrolled, enrol_device
from tests.console.conftest import ConsoleClient
from tests.devices.factories import DeviceFactory, EnrolmentTokenFactory, value_of
from tests.firmware.factories import DeviceModelFactory

HTMX = {"HX-Request": "true"}
ENROLMENTS = "/admin/devices/enrolmentrequest/"
TOKENS = "/admin/devices/enrolmenttoken/"
IMPORTS = "/admin/devices/deviceimport/"


@pytest.fixture(autouse=True)
def model(db: None) -> None:
    DeviceModelFactory.create(name="sensor-v1")


def ask(token: EnrolmentToken, device_id: str = "new-1") -> Any:
    return enrol_device(
        enrolment_token=value_of(token),
        applicant=Applicant(device_id, "sensor-v1", "s" * 40),
        now=timezone.now(),
    )


def text_of(answer: Any) -> str:
    return str(answer.content.decode())


# --- Enrolments --------------------------------------------------------------------


def test_an_empty_list_says_what_would_fill_it(operator_client: ConsoleClient) -> None:
    assert "Nothing waits for you." in text_of(operator_client.get(ENROLMENTS))


def test_a_list_that_is_empty_by_its_filter_does_not_say_that_nothing_waits(
    operator_client: ConsoleClient,
) -> None:
    ask(EnrolmentTokenFactory.create())

    shown = text_of(operator_client.get(f"{ENROLMENTS}?status=Rejected"))

    assert "Nothing waits for you." not in shown


def test_a_waiting_device_is_counted_and_shown_with_its_age(
    viewer_client: ConsoleClient,
) -> None:
    ask(EnrolmentTokenFactory.create())

    shown = text_of(viewer_client.get(ENROLMENTS))
    index = text_of(viewer_client.get("/admin/"))

    assert "new-1" in shown
    assert "Nothing waits for you." not in shown
    assert " s ago" in shown
    assert "1 enrolment pending" in index


def test_an_operator_lets_a_device_in(operator_client: ConsoleClient) -> None:
    token = EnrolmentTokenFactory.create()
    ask(token)
    request = EnrolmentRequest.objects.get()

    answer = operator_client.post(
        f"{ENROLMENTS}{request.pk}/approve/", {"comment": "seen"}, headers=HTMX
    )

    assert answer["HX-Redirect"].endswith(f"/{request.pk}/change/")
    request.refresh_from_db()
    assert request.status == EnrolmentStatus.APPROVED
    assert request.decided_by == operator_client.person
    assert isinstance(ask(token), Enrolled)


def test_a_rejection_wants_a_reason(operator_client: ConsoleClient) -> None:
    ask(EnrolmentTokenFactory.create())
    request = EnrolmentRequest.objects.get()
    url = f"{ENROLMENTS}{request.pk}/reject/"

    operator_client.post(url, {"reason": " "})
    request.refresh_from_db()
    before = request.status
    operator_client.post(url, {"reason": "not ours"})

    request.refresh_from_db()
    assert before == EnrolmentStatus.PENDING
    assert (request.status, request.comment) == (EnrolmentStatus.REJECTED, "not ours")
    page = text_of(operator_client.get(f"{ENROLMENTS}{request.pk}/change/"))
    assert "not ours" in page


# --- Tokens ------------------------------------------------------------------------


def token_form(**fields: Any) -> dict[str, Any]:
    return {"name": "line 3", "days": "7", "needsApproval": "on"} | fields


def test_the_value_of_a_new_token_is_shown_once(admin_client: ConsoleClient) -> None:
    answer = text_of(
        admin_client.post(
            f"{TOKENS}create/",
            token_form(model="sensor-v1", maxUses="5", tags="line: 3"),
        )
    )

    token = EnrolmentToken.objects.get()
    found = re.search(r"hse_[A-Za-z0-9_-]{43}", answer)
    assert found
    assert (token.name, token.max_uses, token.tags) == ("line 3", 5, {"line": "3"})
    assert token.needs_approval
    page = text_of(admin_client.get(f"{TOKENS}{token.pk}/change/"))
    assert found[0] not in page + text_of(admin_client.get(TOKENS))


@pytest.mark.parametrize(
    "fields",
    [
        {"name": ""},
        {"days": "0"},
        {"maxUses": "0"},
        {"tags": '{"line": "3"}'},
        {"region": "MOON"},
    ],
)
def test_a_token_that_makes_no_sense_is_refused(
    admin_client: ConsoleClient, fields: dict[str, str]
) -> None:
    answer = admin_client.post(f"{TOKENS}create/", token_form(**fields))

    assert answer.status_code == 200
    assert 'role="alert"' in text_of(answer)
    assert not EnrolmentToken.objects.exists()


def test_an_admin_revokes_a_token(admin_client: ConsoleClient) -> None:
    token = EnrolmentTokenFactory.create()
    ask(token)

    dialog = admin_client.get(f"{TOKENS}{token.pk}/revoke/", headers=HTMX)
    admin_client.post(f"{TOKENS}{token.pk}/revoke/", {"x": "y"}, headers=HTMX)

    assert "1 of its devices have yet to get their key" in text_of(dialog)
    assert ask(token) is None


# --- Imports -----------------------------------------------------------------------


def upload(client: ConsoleClient, name: str, content: bytes) -> Any:
    return client.post(f"{IMPORTS}upload/", {"file": SimpleUploadedFile(name, content)})


def test_an_admin_imports_a_file_and_sees_what_became_of_it(
    admin_client: ConsoleClient,
) -> None:
    answer = upload(
        admin_client, "d.csv", b"deviceId,model\nd-1,sensor-v1\nd-2,toaster\n"
    )
    page = text_of(admin_client.get(answer["Location"]))
    imports.run_imports(reader_of=LineReader)

    done = text_of(admin_client.get(answer["Location"]))

    assert answer.status_code == 302
    assert "/live/" in page
    assert "/live/" not in done
    assert "unknown_model" in done
    assert "100 % of 2 lines" in done
    assert Device.objects.filter(device_id="d-1").exists()


def test_the_moving_part_has_the_page_loaded_anew_when_it_is_done(
    admin_client: ConsoleClient, viewer_client: ConsoleClient
) -> None:
    upload(admin_client, "d.csv", b"deviceId,model\nd-1,sensor-v1\n")
    url = f"{IMPORTS}{DeviceImport.objects.get().pk}/live/"

    before = admin_client.get(url)
    imports.run_imports(reader_of=LineReader)
    after = admin_client.get(url)

    assert "HX-Refresh" not in before
    assert after["HX-Refresh"] == "true"
    assert viewer_client.get(url).status_code == 403
    assert admin_client.post(url).status_code == 405


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("d.pdf", b"deviceId,model\nd-1,sensor-v1\n", "must end in one of"),
        ("d.xlsx", b"PK\x03\x04", "save it as CSV UTF-8"),
        ("d.csv", b"PK\x03\x04", "save it as CSV UTF-8"),
        ("d.csv", b"deviceId,model,tag:a\nd-1,m,\xe4\n", "not in UTF-8"),
        ("d.csv", b"deviceId,colour\nd-1,red\n", "The column &#x27;colour&#x27;"),
        ("d.ndjson", b"\n", "holds no devices"),
    ],
)
def test_a_file_that_is_none_is_refused_in_words(
    admin_client: ConsoleClient, name: str, content: bytes, said: str
) -> None:
    answer = upload(admin_client, name, content)

    assert answer.status_code == 200
    assert said in text_of(answer)
    assert not DeviceImport.objects.exists()


def test_an_upsert_is_shown_first_and_then_applied(
    admin_client: ConsoleClient,
) -> None:
    device = DeviceFactory.create(device_id="d-1")
    answer = admin_client.post(
        f"{IMPORTS}upload/",
        {
            "file": SimpleUploadedFile("d.csv", b"deviceId;region\nd-1;EU\nd-2;EU\n"),
            "mode": "upsert",
            "dryRun": "on",
        },
    )
    imports.run_imports(reader_of=LineReader)
    shown = text_of(admin_client.get(answer["Location"]))
    batch = DeviceImport.objects.get()

    assert "A dry run: nothing is changed" in shown
    assert "<code>region</code> US-EAST → EU" in shown
    assert 'id="action-apply"' in shown
    assert Device.objects.get(pk=device.pk).region == "US-EAST"

    applied = admin_client.post(f"{IMPORTS}{batch.pk}/apply/", {"x": "y"})
    imports.run_imports(reader_of=LineReader)
    batch.refresh_from_db()

    assert applied["Location"] == f"{IMPORTS}{batch.applied_as_id}/change/"
    assert Device.objects.get(pk=device.pk).region == "EU"
    page = text_of(admin_client.get(f"{IMPORTS}{batch.pk}/change/"))
    assert 'id="action-apply"' not in page
    assert f"{batch.applied_as_id}" in page


def test_the_list_of_devices_is_exported_as_it_is_filtered(
    viewer_client: ConsoleClient,
) -> None:
    DeviceFactory.create(device_id="d-1", region="EU")
    DeviceFactory.create(device_id="d-2")
    place = "/admin/devices/device/"

    page = text_of(viewer_client.get(f"{place}?region=EU"))
    file: Any = viewer_client.get(f"{place}export/?region=EU")
    wrong = viewer_client.get(f"{place}export/?colour=red")

    assert f'href="{place}export/?region=EU"' in page
    lines = file.content.decode("utf-8-sig").splitlines()
    assert [line.split(",")[0] for line in lines] == ["deviceId", "d-1"]
    assert wrong.status_code == 400
    assert viewer_client.post(f"{place}export/").status_code == 405


def test_keys_are_downloaded_by_post_and_then_erased(
    admin_client: ConsoleClient,
) -> None:
    upload(admin_client, "d.jsonl", b'{"deviceId": "d-1", "model": "sensor-v1"}\n')
    imports.run_imports(reader_of=LineReader)
    place = f"{IMPORTS}{DeviceImport.objects.get().pk}"

    file = admin_client.post(f"{place}/keys/", {"x": "y"})
    admin_client.post(f"{place}/erase-keys/", {"x": "y"}, headers=HTMX)
    again = admin_client.post(f"{place}/keys/", {"x": "y"})

    assert file["Content-Type"].startswith("text/csv")
    assert "attachment" in file["Content-Disposition"]
    assert text_of(file).startswith("deviceId,apiKey\r\nd-1,hsd_")
    assert again.status_code == 200
    assert "were delivered or have expired" in text_of(again)
    page = text_of(admin_client.get(f"{place}/change/"))
    assert 'id="action-keys"' not in page
