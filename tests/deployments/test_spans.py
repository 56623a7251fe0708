"""The phases of an order, from what its device reported of them."""

from datetime import UTC, datetime, timedelta

import pytest

from deployments.spans import Course, Phase, ReportMark, phases_of

START = datetime(2026, 3, 2, 12, 0, tzinfo=UTC)
WORDS = ("downloading", "verifying", "installing", "rebooting", "confirming")
NAMES = [
    *("firmware.download", "firmware.verify", "firmware.install", "device.reboot"),
    "health.check",
]


def at(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


def said(
    word: str,
    received: float,
    occurred: float | None = None,
    boot_id: str = "b-1",
) -> ReportMark:
    made = None if occurred is None else at(occurred)
    return ReportMark(word, at(received), made, boot_id)


def course(*reports: ReportMark, error: str = "", **durations: float) -> Course:
    return Course(START, at(100), error, durations, reports)


def spans(found: list[Phase]) -> dict[str, tuple[float, float]]:
    return {
        phase.name: (
            (phase.start - START).total_seconds(),
            (phase.end - START).total_seconds(),
        )
        for phase in found
    }


def test_each_phase_ends_where_the_next_begins() -> None:
    reports = [said(word, 10 * index) for index, word in enumerate(WORDS, 1)]

    found = phases_of(course(*reports))

    assert [phase.name for phase in found] == NAMES
    assert spans(found) == dict(
        zip(NAMES, [(10, 20), (20, 30), (30, 40), (40, 50), (50, 100)], strict=True)
    )
    assert not any(phase.error or phase.clock_offset for phase in found)


def test_what_the_device_measured_bounds_its_phases() -> None:
    reports = [said(word, 10 * index) for index, word in enumerate(WORDS, 1)]

    found = spans(phases_of(course(*reports, verify=2, install=4, selfTest=3)))

    assert found == {
        "firmware.download": (10, 20),
        "firmware.verify": (20, 22),
        "firmware.install": (30, 34),
        "device.reboot": (40, 47),
        "health.check": (47, 100),
    }


def test_a_report_that_waited_keeps_the_time_of_its_device() -> None:
    found = phases_of(
        course(
            said("downloading", 40, occurred=10),
            said("verifying", 40, occurred=20),
            said("installing", 41, occurred=40.5),
        )
    )

    assert spans(found)["firmware.download"] == (10, 20)
    assert found[0].clock_offset is None


def test_a_wrong_clock_is_corrected_for_each_boot_and_marked() -> None:
    year = 365 * 86_400
    found = phases_of(
        course(
            said("downloading", 10, occurred=9 - year),
            said("verifying", 21, occurred=19 - year),
            said("rebooting", 30, occurred=29 - year),
            # Its clock was set at the start.
            said("confirming", 50, occurred=49, boot_id="b-2"),
        )
    )

    assert spans(found) == {
        "firmware.download": (10, 20),
        "firmware.verify": (20, 30),
        "device.reboot": (30, 49),
        "health.check": (49, 100),
    }
    marks = {phase.name: phase.clock_offset for phase in found}
    assert marks["firmware.download"] == timedelta(seconds=year + 1)
    assert marks["health.check"] is None


def test_no_time_is_before_the_order_or_after_the_arrival_of_its_report() -> None:
    found = phases_of(
        course(
            said("downloading", 3, occurred=-4),
            said("verifying", 4, occurred=3.9),
            said("installing", 5, occurred=3),
        )
    )

    assert spans(found) == {
        "firmware.download": (0, 3.9),
        "firmware.verify": (3.9, 3.9),
        "firmware.install": (3.9, 100),
    }


@pytest.mark.parametrize("years", [(1, 9999), (9999, 1), (1, 1), (9999, 9999)])
def test_a_clock_that_goes_through_the_whole_calendar_breaks_nothing(
    years: tuple[int, int],
) -> None:
    first, second = (datetime(year, 6, 1, tzinfo=UTC) for year in years)

    found = phases_of(
        course(
            ReportMark("downloading", at(3), first, "b-1"),
            ReportMark("installing", at(5), second, "b-1"),
        )
    )

    assert [phase.name for phase in found] == ["firmware.download", "firmware.install"]
    assert all(START <= phase.start <= phase.end <= at(100) for phase in found)


def test_the_phase_in_which_it_failed_has_the_error() -> None:
    found = phases_of(
        course(
            said("downloading", 10),
            said("verifying", 20),
            said("failed", 21),
            error="signature_invalid",
        )
    )

    assert spans(found) == {"firmware.download": (10, 20), "firmware.verify": (20, 21)}
    assert [phase.error for phase in found] == ["", "signature_invalid"]


def test_a_phase_that_came_again_is_one_from_first_to_last() -> None:
    words = ("downloading", "verifying", "downloading", "verifying", "installing")
    reports = [said(word, 10 * index) for index, word in enumerate(words, 1)]

    found = spans(phases_of(course(*reports)))

    assert found == {
        "firmware.download": (10, 40),
        "firmware.verify": (20, 50),
        "firmware.install": (50, 100),
    }


def test_of_an_open_order_only_what_is_over_is_told() -> None:
    reports = [said(word, 10 * index) for index, word in enumerate(WORDS, 1)]
    whole = phases_of(course(*reports, selfTest=3))

    def known(count: int) -> list[Phase]:
        return phases_of(Course(START, None, "", {"selfTest": 3}, reports[:count]))

    assert known(0) == known(1) == []
    assert [phase.name for phase in known(3)] == NAMES[:2]
    # Whatever else comes, what was told of it stays.
    assert known(3) == whole[:2]
    assert known(5) == whole[:4]


def test_an_order_of_which_nothing_was_reported_has_no_phases() -> None:
    assert phases_of(course()) == []
