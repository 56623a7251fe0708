"""Downloads at once."""

import pytest
from rest_framework.exceptions import Throttled

from firmware.api.pace import PER_DEVICE, Downloads, DownloadsBusy
from hotswap.common.slow_readers import SlowReaders
from tests.common.watchdogs import Resting


@pytest.fixture
def watchdog() -> SlowReaders:
    return Resting(30.0)


def test_a_device_has_two_downloads_at_once(watchdog: SlowReaders) -> None:
    downloads = Downloads(100, watchdog)
    end, _ = [downloads.begin("a") for _ in range(PER_DEVICE)]

    with pytest.raises(Throttled):
        downloads.begin("a")
    downloads.begin("b")
    end()
    end()
    downloads.begin("a")
    with pytest.raises(Throttled):
        downloads.begin("a")


def test_all_devices_have_so_many_at_once(
    watchdog: SlowReaders, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hotswap.common.slots.STUCK_SECONDS", 0.0)
    downloads = Downloads(2, watchdog)
    end, _ = downloads.begin("a"), downloads.begin("b")

    with pytest.raises(DownloadsBusy):
        downloads.begin("c")
    end()

    downloads.begin("c")


def test_a_device_that_was_sent_away_has_none_under_way(
    watchdog: SlowReaders, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hotswap.common.slots.STUCK_SECONDS", 0.0)
    downloads = Downloads(1, watchdog)
    end = downloads.begin("a")
    for _ in range(PER_DEVICE):
        with pytest.raises(DownloadsBusy):
            downloads.begin("b")

    end()

    downloads.begin("b")
