"""What pages read of a large fleet: indexes, not its rows.

A table of 2,000 devices is small, and PostgreSQL would rather read it as a whole: that
is forbidden here, and what is left is its plan for a large one.
"""

from typing import Any
from urllib.parse import urlencode

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from deployments.services.hooks import common_images, firmware_figures
from devices.models import Device
from devices.services.erasure import erase_device
from firmware.models import Firmware
from hotswap.common.tokens import person_access_token
from tests.api import API, Caller
from tests.common.factories import PersonFactory
from tests.console.conftest import ConsoleClient, Scene
from tests.devices.factories import DeviceFactory
from tests.firmware.factories import FirmwareFactory

NAMES = "devices_device_device_id_key"
AUDIT = "/admin/common/auditevent/"
PIECES = "Bitmap Index Scan on device_name_pieces"


@pytest.fixture
def fleet(db: None) -> Firmware:
    """Devices of which every second one runs one image, and one of these is erased."""
    firmware: Firmware = FirmwareFactory.create(approved=True)
    Device.objects.bulk_create(
        Device(
            device_id=f"pump-{number:04}",
            model=firmware.model,
            region="EU",
            firmware_version=firmware.version if number % 2 else "unknown build",
            firmware_checksum=firmware.sha256 if number % 2 else "ab" * 32,
        )
        for number in range(2000)
    )
    erase_device(actor=PersonFactory.create(admin=True), device_id="pump-0007")
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE devices_device")
        # As from time to time by itself.
        cursor.execute("SELECT gin_clean_pending_list('device_name_pieces')")
    without("seqscan")
    return firmware


def without(*ways: str) -> None:
    """Forbid ways to read a table, until the end of the test."""
    with connection.cursor() as cursor:
        for way in ways:
            cursor.execute(f"SET LOCAL enable_{way} = off")


def drop_indexes_of_models() -> None:
    """Leave the other indexes: of 2,000 rows one of the model is as good as any."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT indexname FROM pg_indexes WHERE tablename = 'devices_device'"
            " AND indexdef LIKE '%%(model\\_id%%'"
        )
        for (name,) in cursor.fetchall():
            cursor.execute(f'DROP INDEX "{name}"')


def plan_of(statement: str) -> str:
    with connection.cursor() as cursor:
        cursor.execute(f"EXPLAIN {statement}")
        return "\n".join(row[0] for row in cursor.fetchall())


def search(client: ConsoleClient, text: str) -> tuple[str, list[str]]:
    """Return what is found, and the statements by which devices are looked for."""
    with CaptureQueriesContext(connection) as statements:
        page = client.get(reverse("search"), {"s": text})
    assert page.status_code == 200
    return page.content.decode(), statements_of_devices(statements)


def statements_of_devices(statements: CaptureQueriesContext) -> list[str]:
    return statements_of(statements, "devices_device")


def statements_of(statements: CaptureQueriesContext, table: str) -> list[str]:
    """Return what read a table, apart from what asked for plans and numbers."""
    return [
        each["sql"]
        for each in statements.captured_queries
        if f'FROM "{table}"' in each["sql"]
        and not each["sql"].startswith(("EXPLAIN", "SELECT COUNT"))
    ]


def listed(client: ConsoleClient, query: str) -> tuple[str, list[str]]:
    """Return by what statement the list of devices was read, and its names."""
    with CaptureQueriesContext(connection) as statements:
        page = client.get(f"{reverse('admin:devices_device_changelist')}?{query}")
    assert page.status_code == 200
    return statements_of_devices(statements)[-1], [
        each.device_id for each in page.context["cl"].result_list
    ]


def test_who_runs_an_image_is_counted_from_an_index(fleet: Firmware) -> None:
    with CaptureQueriesContext(connection) as statements:
        figures = firmware_figures(firmware_ids=[fleet.pk])

    assert figures[fleet.pk].device_count == 999
    (statement,) = (each["sql"] for each in statements.captured_queries)
    without("bitmapscan")
    drop_indexes_of_models()
    assert "Index Only Scan using device_image on devices_device" in plan_of(statement)


def test_what_most_devices_run_is_counted_from_an_index(fleet: Firmware) -> None:
    gone = Device.objects.filter(firmware_checksum=fleet.sha256)[:3]
    Device.objects.filter(pk__in=[each.pk for each in gone]).update(
        revoked_at=timezone.now()
    )
    with CaptureQueriesContext(connection) as statements:
        (common,) = common_images(model_ids=[fleet.model_id]).values()

    assert (common.version, common.firmware) == ("unknown build", None)
    assert (common.device_count, common.model_device_count) == (1000, 1996)
    without("bitmapscan")
    drop_indexes_of_models()
    plan = plan_of(statements.captured_queries[0]["sql"])
    assert "Index Only Scan using device_image on devices_device" in plan
    assert "Index Scan using device_revoked on devices_device" in plan


def test_what_most_devices_run_goes_by_the_bytes_and_not_by_what_they_call_it(
    fleet: Firmware,
) -> None:
    Device.objects.exclude(firmware_checksum=fleet.sha256).update(firmware_checksum="")
    Device.objects.filter(device_id__lt="pump-0100").update(firmware_version="other")

    (common,) = common_images(model_ids=[fleet.model_id]).values()

    assert (common.version, common.firmware) == (fleet.version, fleet)
    assert (common.device_count, common.model_device_count) == (999, 1999)


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


def test_a_part_of_a_name_is_looked_for_in_an_index_of_parts(
    viewer_client: ConsoleClient, fleet: Firmware
) -> None:
    without("indexscan", "indexonlyscan")

    page, (*_, statement) = search(viewer_client, "UMP-000")

    assert "pump-0006" in page
    assert "pump-0008" in page
    assert "pump-0009" not in page
    assert "All like UMP-000" in page
    assert PIECES in plan_of(statement)


@pytest.mark.parametrize("order", ["0", "-0"])
def test_the_list_finds_a_part_of_a_name_in_the_same_index(
    viewer_client: ConsoleClient, fleet: Firmware, order: str
) -> None:
    without("indexscan", "indexonlyscan")

    statement, names = listed(viewer_client, f"q=MP-00+7&o={order}")

    expected = sorted(
        f"pump-{number:04}" for number in range(8, 100) if "7" in str(number)
    )
    assert names == (expected if order == "0" else expected[::-1])
    assert PIECES in plan_of(statement)


def test_the_api_finds_a_part_of_a_name_in_the_same_index(
    viewer_client: ConsoleClient, fleet: Firmware
) -> None:
    without("indexscan", "indexonlyscan")
    caller = Caller(person_access_token(viewer_client.person))
    for sort, last in (("deviceId", 1999), ("-deviceId", 1990)):
        url: str | None = f"/devices?search=MP-199&pageSize=4&sort={sort}"
        found: list[str] = []
        while url:
            with CaptureQueriesContext(connection) as statements:
                answer = caller.get(url).json()
            (*_, statement) = statements_of_devices(statements)
            assert PIECES in plan_of(statement)
            found += [each["deviceId"] for each in answer["results"]]
            url = answer["next"] and answer["next"].partition(API)[2]

        assert sorted(found) == [f"pump-{number}" for number in range(1990, 2000)]
        assert found[-1] == f"pump-{last}"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("p-0", ["PUMP-0", "lamp-0.", "lamp-0_"]),
        ("P-0", ["PUMP-0", "lamp-0.", "lamp-0_"]),
        ("0.", ["lamp-0."]),
        ("0%", []),
        ("-0_", ["lamp-0_"]),
        ("p.0", []),
        ("p-0 PU", ["PUMP-0"]),
        ("(", []),
        ("***:", []),
        ("\\", []),
        ("ö-0", []),
        ("'", []),
        ("%'", []),
        ("'''", []),
        ("a:*", []),
        ("VE", ["valve"]),
        ("-", ["PUMP-0", "lamp-0.", "lamp-0_"]),
        ("_", ["lamp-0_"]),
        ("0_", ["lamp-0_"]),
        ("zz", []),
        ("mp", ["PUMP-0", "lamp-0.", "lamp-0_"]),
    ],
)
def test_a_part_of_a_name_is_taken_as_it_is_written(
    viewer_client: ConsoleClient, db: None, text: str, found: list[str]
) -> None:
    for name in ("PUMP-0", "lamp-0.", "lamp-0_", "valve"):
        DeviceFactory.create(device_id=name)

    _, names = listed(viewer_client, urlencode({"q": text}))

    assert sorted(names) == found


def test_what_most_names_have_is_met_in_their_order(
    viewer_client: ConsoleClient, fleet: Firmware, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("devices.querysets.FEW", 1000)

    statement, names = listed(viewer_client, "q=ump-")

    without("bitmapscan")

    assert names[:2] == ["pump-0000", "pump-0001"]
    assert f"Index Scan using {NAMES}" in plan_of(statement)


def test_an_erased_device_is_not_found_by_its_pseudonym(
    viewer_client: ConsoleClient, fleet: Firmware
) -> None:
    erased = Device._base_manager.get(erased_at__isnull=False)

    for text in (erased.device_id, str(erased.pk), str(erased.pk)[2:]):
        page, _ = search(viewer_client, text)
        assert reverse("admin:devices_device_change", args=[erased.pk]) not in page


def test_the_audit_trail_is_searched_by_its_indexes(
    admin_client: ConsoleClient, fleet: Firmware
) -> None:
    device = DeviceFactory.create(device_id="valve-77")

    words = "device ALVE-7 regist"
    with CaptureQueriesContext(connection) as statements:
        page = admin_client.get(AUDIT, {"q": words})

    (row,) = page.context["cl"].result_list
    assert (row.verb, row.object_id) == ("device.registered", str(device.pk))
    statement, _, _ = statements_of(statements, "common_auditevent")[-1].partition(
        " ORDER BY"
    )
    without("indexscan", "indexonlyscan")
    plan = plan_of(statement)
    assert "Seq Scan on common_auditevent" not in plan
    assert "Bitmap Index Scan on audit_" in plan


@pytest.mark.parametrize("filters", ["object=ALVE-7", "verb=device+regist"])
def test_the_audit_trail_is_filtered_by_its_indexes(
    admin_client: ConsoleClient, fleet: Firmware, filters: str
) -> None:
    DeviceFactory.create(device_id="valve-77")

    with CaptureQueriesContext(connection) as statements:
        page = admin_client.get(f"{AUDIT}?{filters}")

    assert "device.registered" in {x.verb for x in page.context["cl"].result_list}
    statement, _, _ = statements_of(statements, "common_auditevent")[-1].partition(
        " ORDER BY"
    )
    without("indexscan", "indexonlyscan")
    assert "Seq Scan on common_auditevent" not in plan_of(statement)


def test_a_search_of_the_audit_trail_for_many_words_asks_little(
    admin_client: ConsoleClient, scene: Scene, django_assert_max_num_queries: Any
) -> None:
    with django_assert_max_num_queries(30):
        admin_client.get(AUDIT, {"q": "device sensor 2.0.0 pause approve more words"})
