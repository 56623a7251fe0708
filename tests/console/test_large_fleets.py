"""What pages read of a large fleet: indexes, not its rows.

A table of 2,000 devices is small, and PostgreSQL would rather read it as a whole: that
is forbidden here, and what is left is its plan for a large one.
"""

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from deployments.services.hooks import firmware_figures
from devices.models import Device
from devices.services.erasure import erase_device
from firmware.models import Firmware
from tests.common.factories import PersonFactory
from tests.console.conftest import ConsoleClient
from tests.devices.factories import DeviceFactory
from tests.firmware.factories import FirmwareFactory

NAMES = "devices_device_device_id_key"


@pytest.fixture
def fleet(db: None) -> Firmware:
    """Devices of which every second one runs one image, and one of these is erased."""
    firmware: Firmware = FirmwareFactory.create(approved=True)
    Device.objects.bulk_create(
        Device(
            device_id=f"pump-{number:04}",
            model=firmware.model,
            region="EU",
            firmware_version=firmware.version,
            firmware_checksum=firmware.sha256 if number % 2 else "ab" * 32,
        )
        for number in range(2000)
    )
    erase_device(actor=PersonFactory.create(admin=True), device_id="pump-0007")
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE devices_device")
        for way in ("seqscan", "bitmapscan"):
            cursor.execute(f"SET LOCAL enable_{way} = off")
    return firmware


def plan_of(statement: str) -> str:
    with connection.cursor() as cursor:
        cursor.execute(f"EXPLAIN {statement}")
        return "\n".join(row[0] for row in cursor.fetchall())


def search(client: ConsoleClient, text: str) -> tuple[str, list[str]]:
    """Return what is found, and the statements by which devices are looked for."""
    with CaptureQueriesContext(connection) as statements:
        page = client.get(reverse("search"), {"s": text})
    assert page.status_code == 200
    return page.content.decode(), [
        each["sql"]
        for each in statements.captured_queries
        if 'FROM "devices_device"' in each["sql"]
    ]


def test_who_runs_an_image_is_counted_from_an_index(fleet: Firmware) -> None:
    with CaptureQueriesContext(connection) as statements:
        figures = firmware_figures(firmware_ids=[fleet.pk])

    assert figures[fleet.pk].device_count == 999
    (statement,) = (each["sql"] for each in statements.captured_queries)
    with connection.cursor() as cursor:
        # By the model alone 2,000 rows are found as cheaply as by their image.
        cursor.execute(
            "SELECT indexname FROM pg_indexes WHERE tablename = 'devices_device'"
            " AND indexdef LIKE '%%(model\\_id%%'"
        )
        for (name,) in cursor.fetchall():
            cursor.execute(f'DROP INDEX "{name}"')
    assert "Index Only Scan using device_image on devices_device" in plan_of(statement)


def test_a_name_is_found_by_its_begin_without_a_look_at_the_others(
    viewer_client: ConsoleClient, fleet: Firmware
) -> None:
    DeviceFactory.create(device_id="old-pump-1000")

    page, (statement,) = search(viewer_client, "pump-100")

    assert "pump-1009" not in page
    assert all(f"pump-100{last}" in page for last in range(8))
    assert "All like pump-100" in page
    assert "old-pump-1000" not in page
    assert "(device_id)::text >= 'pump-100'" in plan_of(statement)


def test_what_begins_with_a_text_leads_to_what_contains_it(
    viewer_client: ConsoleClient, fleet: Firmware
) -> None:
    page, _ = search(viewer_client, "pump-1000")

    assert "All like pump-1000" in page
    assert "those with it elsewhere in their name, too" in page


def test_a_part_of_a_name_is_looked_for_among_the_names_alone(
    viewer_client: ConsoleClient, fleet: Firmware
) -> None:
    page, (_, statement) = search(viewer_client, "UMP-000")

    assert "pump-0006" in page
    assert "pump-0008" in page
    assert "pump-0009" not in page
    assert "All like UMP-000" in page
    assert f"Index Only Scan using {NAMES}" in plan_of(statement)


def test_an_erased_device_is_not_found_by_its_pseudonym(
    viewer_client: ConsoleClient, fleet: Firmware
) -> None:
    erased = Device._base_manager.get(erased_at__isnull=False)

    for text in (erased.device_id, str(erased.pk), str(erased.pk)[2:]):
        page, _ = search(viewer_client, text)
        assert reverse("admin:devices_device_change", args=[erased.pk]) not in page
