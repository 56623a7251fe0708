"""Lists by keyset cursor."""

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from devices.models import Device
from tests.api import pointers, problem_of
from tests.callers import PersonCaller
from tests.devices.factories import DeviceFactory, GroupFactory
from tests.firmware.factories import FirmwareFactory


@pytest.fixture
def fleet(db: None) -> list[Device]:
    return [DeviceFactory.create(device_id=f"p-{number:02}") for number in range(12)]


def names(page: dict) -> list[str]:
    return [row["deviceId"] for row in page["results"]]


def test_pages_follow_each_other_forwards_and_back(
    viewer: PersonCaller, fleet: list[Device]
) -> None:
    pages = [viewer.get("/devices?pageSize=5").json()]
    while pages[-1]["next"]:
        pages.append(viewer.get(pages[-1]["next"].split("testserver")[1]).json())
    back = viewer.get(pages[-1]["previous"].split("testserver")[1]).json()

    assert [len(page["results"]) for page in pages] == [5, 5, 2]
    seen = [name for page in pages for name in names(page)]
    assert seen == [device.device_id for device in fleet]
    assert pages[0]["previous"] is None
    assert names(back) == names(pages[1])


def test_rows_that_come_and_go_do_not_shift_the_next_page(
    viewer: PersonCaller, fleet: list[Device]
) -> None:
    first = viewer.get("/devices?pageSize=5").json()
    DeviceFactory.create(device_id="p-00-new")
    fleet[2].delete()

    second = viewer.get(first["next"].split("testserver")[1]).json()

    assert names(second) == [f"p-{number:02}" for number in range(5, 10)]


def test_an_empty_cursor_is_refused_and_not_taken_for_the_first_page(
    viewer: PersonCaller, fleet: list[Device]
) -> None:
    response = viewer.get("/devices?cursor=")

    assert pointers(problem_of(response, 400)) == {"/cursor": "invalid"}


def test_count_comes_only_when_asked_for_and_counts_what_the_filter_leaves(
    viewer: PersonCaller, fleet: list[Device]
) -> None:
    DeviceFactory.create(device_id="elsewhere", region="EU")

    plain = viewer.get("/devices?pageSize=3").json()
    counted = viewer.get("/devices?pageSize=3&count=true&region=US-EAST").json()

    assert set(plain) == {"next", "previous", "results"}
    assert counted["count"] == 12
    assert "count=true" in counted["next"]
    assert "region=US-EAST" in counted["next"]


@pytest.mark.parametrize(("asked", "given"), [("", 50), ("?pageSize=200", 60)])
def test_a_page_has_50_rows_unless_asked_for_up_to_200(
    viewer: PersonCaller, asked: str, given: int
) -> None:
    for number in range(60):
        DeviceFactory.create(device_id=f"d-{number}", actor=viewer.person)

    assert len(viewer.get(f"/devices{asked}").json()["results"]) == given


def test_rows_of_the_same_moment_are_neither_lost_nor_repeated(
    viewer: PersonCaller,
) -> None:
    made = [FirmwareFactory.create(version=f"1.0.{number}") for number in range(7)]
    type(made[0]).objects.update(created_at=made[0].created_at)

    page, seen = viewer.get("/firmware?pageSize=2").json(), []
    seen += page["results"]
    while page["next"]:
        page = viewer.get(page["next"].split("testserver")[1]).json()
        seen += page["results"]

    assert sorted(row["id"] for row in seen) == sorted(str(row.pk) for row in made)


@pytest.mark.parametrize(
    "path",
    [
        "/devices",
        "/devices?status=online",
        "/devices?status=never_seen",
        "/devices?group=all&tag=a:b",
        "/firmware",
        "/device-groups",
        "/audit-events",
        "/device-models",
    ],
)
def test_a_page_costs_the_same_number_of_queries_for_any_number_of_rows(
    admin: PersonCaller, path: str
) -> None:

    def fill(start: int) -> None:
        devices = [
            DeviceFactory.create(
                heard_at=timezone.now() if half else None, tags={"a": "b"}
            )
            for half in (0, 1)
            for _ in range(3)
        ]
        GroupFactory.create(name="all" if start == 0 else f"g {start}", members=devices)
        for number in range(3):
            FirmwareFactory.create(version=f"1.{start}.{number}")

    def queries() -> int:
        with CaptureQueriesContext(connection) as captured:
            assert admin.get(path).status_code == 200
        return len(captured)

    fill(0)
    few = queries()
    fill(1)

    assert queries() == few
    assert few <= 6
