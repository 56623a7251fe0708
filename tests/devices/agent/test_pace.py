"""How fast a download may be, how slow it may get, and what has room on the disk."""

import pytest

from devices.agent.config import ConfigError, parse_limits
from devices.agent.download import Pace
from tests.devices.agent.device_process import DeviceProcess, program, sha256
from tests.waiting import wait_until

BLOCK_BYTES = 1000


def test_bytes_are_held_back_to_the_allowed_rate() -> None:
    pace = Pace(max_bytes_per_second=100)
    now = 50.0

    for _ in range(10):
        # Everything arrives at once; only the waits take time.
        now += pace.hold_back_seconds(BLOCK_BYTES, now)

    assert now == pytest.approx(50.0 + 10 * BLOCK_BYTES / 100)


def test_pause_of_the_server_is_no_credit_for_later() -> None:
    pace = Pace(max_bytes_per_second=100)
    pace.hold_back_seconds(BLOCK_BYTES, 0.0)

    assert pace.hold_back_seconds(BLOCK_BYTES, 500.0) == pytest.approx(10.0)


def test_without_limits_nothing_is_held_back_or_too_slow() -> None:
    pace = Pace()
    pace.begin(0.0)

    assert pace.hold_back_seconds(BLOCK_BYTES, 0.0) == 0
    assert not pace.is_too_slow(1, 1e6)


def test_connection_below_the_rate_is_too_slow_after_its_window() -> None:
    pace = Pace(min_bytes_per_second=100, window_seconds=30)
    pace.begin(0.0)

    verdicts = [pace.is_too_slow(50, float(second)) for second in range(1, 31)]

    assert verdicts == [False] * 29 + [True]


def test_connection_at_the_rate_is_fast_enough_in_each_window() -> None:
    pace = Pace(min_bytes_per_second=100, window_seconds=30)
    pace.begin(0.0)

    assert not any(pace.is_too_slow(100, float(second)) for second in range(1, 301))


def test_time_held_back_is_not_the_server_s() -> None:
    pace = Pace(max_bytes_per_second=200, min_bytes_per_second=100, window_seconds=10)
    now = 0.0
    pace.begin(now)

    for _ in range(100):
        assert not pace.is_too_slow(BLOCK_BYTES, now)
        seconds = pace.hold_back_seconds(BLOCK_BYTES, now)
        now += seconds
        pace.held_back(seconds)


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ({"max_bytes_per_second": -1}, "max_bytes_per_second: a whole number of 0"),
        (
            {"max_bytes_per_second": 100, "min_bytes_per_second": 100},
            "min_bytes_per_second: less than",
        ),
        ({"report_ceiling_seconds": 31}, "report_ceiling_seconds: at most 30"),
    ],
)
def test_wrong_rates_are_refused_by_key(limits: dict[str, int], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_limits(limits)


def test_slow_connection_is_dropped_and_the_next_one_goes_on(
    device: DeviceProcess,
) -> None:
    image = program("2.0.0", size_bytes=60_000)
    device.limits |= {
        "chunk_bytes": 100_000,
        "min_bytes_per_second": 50_000,
        "min_rate_window_seconds": 0.3,
    }
    device.provision()
    device.server.faults.block_bytes = 1000
    device.server.faults.block_delay_seconds = 0.1
    update_id = device.server.order("device-1", image, "2.0.0")
    device.start()
    wait_until(lambda: len(device.server.downloads()) >= 2, what="a second connection")

    device.server.faults.block_delay_seconds = 0
    device.server.wait_for(update_id, "confirming")

    first, second = device.server.downloads()[:2]
    assert first.headers["Range"] == "bytes=0-59999"
    assert not second.headers["Range"].startswith("bytes=0-")


def test_image_that_has_no_room_fails_and_leaves_what_runs_alone(
    device: DeviceProcess,
) -> None:
    device.factory = program("1.0.0")
    device.provision()
    update_id = device.server.order(
        "device-1", program("2.0.0", size_bytes=400_000), "2.0.0"
    )
    device.start(max_file_bytes=200_000)

    report = device.server.wait_for(update_id, "failed")

    assert report["errorCode"] == "device_storage_full"
    assert device.current_sha256() == sha256(device.factory)
    assert "installing" not in device.server.statuses(update_id)
    # The room is given back, and the next order finds a device as before.
    small = device.server.order("device-1", program("3.0.0"), "3.0.0")
    assert device.server.wait_for(small, "confirming", "failed")["status"] == (
        "confirming"
    )


def test_corrupt_option_shows_the_refusal(device: DeviceProcess) -> None:
    update_id = device.server.order("device-1", program("2.0.0"), "2.0.0")

    code = device.start("--once", "--corrupt").wait(180)

    report = device.server.last(update_id, "failed")
    assert code == 3
    assert report
    assert report["errorCode"] == "checksum_mismatch"
    assert device.current_sha256() == sha256(device.factory)
    assert "corrupted on purpose" in device.log()
