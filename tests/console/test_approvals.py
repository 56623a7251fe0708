"""The queue of approvals, and what the page of a firmware tells about its use."""

from firmware.models import Firmware
from firmware.services.approval import reject_firmware
from tests.common.factories import PersonFactory
from tests.console.conftest import ConsoleClient
from tests.firmware.factories import FirmwareFactory

QUEUE = "/admin/firmware/approvalrequest/"


def page_of(firmware: Firmware) -> str:
    return f"/admin/firmware/firmware/{firmware.pk}/"


def test_an_empty_queue_says_that_nothing_waits(admin_client: ConsoleClient) -> None:
    assert "Nothing waits for you" in admin_client.get(QUEUE).content.decode()


def test_the_queue_shows_the_oldest_first_with_what_differs(
    admin_client: ConsoleClient,
) -> None:
    FirmwareFactory.create(version="1.0.0", approved=True, content=b"x" * 1000)
    FirmwareFactory.create(
        version="1.2.0",
        content=b"x" * 3000,
        security_version=2,
        request_comment="please look at the valve",
    )
    FirmwareFactory.create(version="1.1.0")

    shown = admin_client.get(QUEUE).content.decode()

    assert shown.index("1.2.0") < shown.index("1.1.0")
    assert "1.0.0 → 1.2.0; +2.0 kB; security version 0 → 2" in shown
    assert "please look at the valve" in shown
    assert "Nothing waits for you" not in shown


def test_decisions_stay_visible_with_person_and_comment(
    admin_client: ConsoleClient,
) -> None:
    firmware = FirmwareFactory.create(version="3.1.0")
    person = PersonFactory.create(admin=True)
    reject_firmware(actor=person, firmware_id=firmware.pk, comment="it leaks memory")

    waiting = admin_client.get(QUEUE).content.decode()
    decided = admin_client.get(f"{QUEUE}?decided=yes").content.decode()

    assert "3.1.0" not in waiting
    assert person.username in decided
    assert "it leaks memory" in decided


def test_the_page_keeps_weak_digests_apart_and_tells_the_history(
    admin_client: ConsoleClient,
) -> None:
    firmware = FirmwareFactory.create(approved=True)

    shown = admin_client.get(f"{page_of(firmware)}change/").content.decode()

    assert "never used for security" in shown
    assert firmware.sha1 in shown
    assert firmware.md5 in shown
    assert "firmware.approved" in shown
    assert "no install has ended yet" in shown


def test_the_deprecation_asks_whether_to_cancel_and_shows_the_use(
    admin_client: ConsoleClient,
) -> None:
    firmware = FirmwareFactory.create(approved=True)

    asked = admin_client.get(f"{page_of(firmware)}deprecate/").content.decode()
    admin_client.post(
        f"{page_of(firmware)}deprecate/",
        {"reason": "it leaks", "cancelDeployments": "on"},
    )

    assert "Devices that run it now: 0" in asked
    assert "cancelDeployments" in asked
    firmware.refresh_from_db()
    assert firmware.status == "Deprecated"


def test_a_check_in_the_console_finds_the_image_whole(
    admin_client: ConsoleClient,
) -> None:
    firmware = FirmwareFactory.create()

    answer = admin_client.post(
        f"{page_of(firmware)}verify/", {"confirmed": "yes"}, follow=True
    )

    assert "is whole" in answer.content.decode()
