"""A device whose clock is wrong, and is set by years while it works."""

import json
import os
from email.message import Message
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devices.agent.freshness import FileAge
from devices.agent.states import Phase
from devices.agent.system import SystemApplication
from devices.agent.tls import TlsFiles
from devices.agent.transport import HttpTransport, _remaining_seconds, _retry_after
from tests.devices.agent import stepped_clock
from tests.devices.agent.certificates import Authority
from tests.devices.agent.device_process import DeviceProcess, program, sha256
from tests.devices.agent.protocol_server import API_KEY, Signer, serving, write_keys
from tests.devices.agent.test_process import order_and_wait
from tests.waiting import wait_until

YEAR = 365 * 86400.0
IN_1970 = -55 * YEAR
IN_THE_FUTURE = 35 * YEAR
WORKING = tuple(
    f"store.{phase}.synced" for phase in Phase if phase not in {"idle", "reverting"}
)


def start_by_clock(
    device: DeviceProcess, offset_seconds: float, steps: dict[str, float] | None = None
) -> None:
    device.module = stepped_clock.__name__
    device.environment = {
        stepped_clock.START: str(offset_seconds),
        stepped_clock.STEPS: json.dumps(steps or {}),
    }
    device.start()


def beats_after_claim(device: DeviceProcess, claim: dict[str, Any]) -> None:
    """Wait until the device has proved its claim, twice over."""
    wait_until(
        lambda: (
            sum(
                each["bootId"] == claim["bootId"]
                and "sensorReadings" in each["applicationMetrics"]
                for each in device.server.heartbeats
            )
            >= 3
        ),
        what="heartbeats after the claim",
    )


def assert_never_sick(device: DeviceProcess) -> None:
    metrics = [each["applicationMetrics"] for each in device.server.heartbeats]
    assert all(each.get("errorRate", 0.0) == 0.0 for each in metrics)
    assert all(each.get("metricsAgeSeconds", 0.0) < 20 for each in metrics)


@pytest.mark.parametrize("step", [IN_1970, IN_THE_FUTURE])
@pytest.mark.parametrize(
    "phase", ["downloading", "verifying", "installing", "trying", "claiming"]
)
def test_update_is_proved_though_the_clock_is_set_during_it(
    device: DeviceProcess, phase: str, step: float
) -> None:
    start_by_clock(device, 0.0, {f"store.{phase}.synced": step})
    image = program("2.0.0")

    claim = order_and_wait(device, image, "2.0.0")

    beats_after_claim(device, claim)
    assert float((device.folder / "clock").read_text()) == step
    assert claim["status"] == "confirming"
    assert device.current_sha256() == sha256(image)
    assert_never_sick(device)


def test_update_is_proved_though_the_clock_is_set_at_every_step(
    device: DeviceProcess,
) -> None:
    turns = {
        point: IN_1970 if number % 2 else IN_THE_FUTURE
        for number, point in enumerate(WORKING)
    }
    start_by_clock(device, IN_1970, turns)

    claim = order_and_wait(device, program("2.0.0"), "2.0.0")

    beats_after_claim(device, claim)
    assert claim["status"] == "confirming"
    assert_never_sick(device)


@pytest.mark.parametrize("offset", [IN_1970, IN_THE_FUTURE])
def test_device_that_falls_back_does_so_by_any_clock(
    device: DeviceProcess, offset: float
) -> None:
    start_by_clock(
        device, 0.0, {"store.trying.synced": offset, "store.failing.synced": -offset}
    )

    failure = order_and_wait(device, b"import sys; sys.exit(7)", "2.0.0")

    assert failure["errorCode"] == "self_test_failed"
    assert device.current_sha256() == sha256(device.factory)


@pytest.mark.parametrize("offset", [IN_1970, IN_THE_FUTURE])
def test_key_is_renewed_once_whatever_the_clock_says(
    device: DeviceProcess, offset: float
) -> None:
    device.server.key_ends_in_seconds = 86400.0
    start_by_clock(device, offset, {"rotate.answered": -offset})

    wait_until(
        lambda: device.key_file.read_text() != API_KEY,
        what="the new key in use",
    )
    claim = order_and_wait(device, program("2.0.0"), "2.0.0")

    assert claim["status"] == "confirming"
    asked = [each for each in device.server.requests if each.path.endswith("/api-key")]
    assert len(asked) == 1


def test_key_far_from_its_end_is_not_renewed_by_a_wrong_clock(
    device: DeviceProcess,
) -> None:
    device.server.key_ends_in_seconds = 60 * 86400.0
    start_by_clock(device, IN_THE_FUTURE)

    order_and_wait(device, program("2.0.0"), "2.0.0")

    assert not any(each.path.endswith("/api-key") for each in device.server.requests)


# TLS


def test_certificate_out_of_its_time_is_told_as_a_matter_of_the_clock(
    signer: Signer, tmp_path: Path
) -> None:
    # A clock in 1970 sees a good certificate as this clock sees a later one.
    authority = Authority(tmp_path / "authority")
    context = authority.server_context(*authority.issue("later", valid_from_days=200))
    with serving(signer, tls=context) as server:
        keys = write_keys(tmp_path / "keys", signer)
        device = DeviceProcess(
            tmp_path / "device",
            server,
            keys,
            settings={"certificate_authorities": str(authority.path)},
        )
        device.provision()
        device.start()
        try:
            wait_until(
                lambda: "is not yet valid by this device's clock" in device.log(),
                what="a word on the clock",
            )
            wait_until(device.executed, what="the application without a server")
            context.load_cert_chain(*authority.issue("now"))

            claim = order_and_wait(device, program("2.0.0"), "2.0.0")
        finally:
            device.kill()

    assert claim["status"] == "confirming"
    assert not any(each["status"] == "failed" for each in server.reports)


def test_expired_certificate_names_the_clock_too(
    signer: Signer, tmp_path: Path
) -> None:
    authority = Authority(tmp_path / "authority")
    context = authority.server_context(*authority.issue("server", expired=True))
    with (
        serving(signer, tls=context) as server,
        pytest.raises(
            Exception, match="has expired by this device's clock, which says 20"
        ),
    ):
        HttpTransport(
            server.url, "device-1", "key", tls=TlsFiles(authority.path)
        ).poll()


# Pure parts


class Monotonic:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@given(
    steps=st.lists(
        st.tuples(
            st.floats(0.0, 1e6),
            st.booleans(),
            st.integers(-2_000_000_000, 4_000_000_000),
        ),
        max_size=12,
    )
)
def test_age_of_a_file_counts_from_its_last_change_by_any_clock(
    steps: list[tuple[float, bool, int]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("age") / "metrics.json"
    path.write_text("{}")
    clock = Monotonic()
    age = FileAge(path, clock)
    assert age.seconds() == 0.0
    changed_at = 0.0

    for number, (passed, changes, written_at) in enumerate(steps):
        clock.now += passed
        if changes:
            # A new file, whose time may be any: before 1970, or far ahead.
            draft = path.with_name("draft")
            draft.write_text("{}" + " " * (number + 1))
            os.utime(draft, (written_at, written_at))
            draft.replace(path)
            changed_at = clock.now

        assert age.seconds() == pytest.approx(clock.now - changed_at)


def test_file_that_is_gone_has_no_age(tmp_path: Path) -> None:
    path = tmp_path / "metrics.json"
    age = FileAge(path)
    path.write_text("{}")
    age.seconds()
    path.unlink()

    assert age.seconds() is None


def test_metrics_of_the_system_from_before_the_clock_was_set_are_fresh(
    tmp_path: Path,
) -> None:
    metrics = tmp_path / "metrics.json"
    metrics.write_text('{"errorRate": 0.0}')
    os.utime(metrics, (0, 0))
    application = SystemApplication(metrics)

    age_seconds = application.measure().metrics_age_seconds

    assert age_seconds is not None
    assert age_seconds < 5


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"Retry-After": "30"}, 30.0),
        (
            {
                "Retry-After": "Fri, 31 Dec 1999 23:59:59 GMT",
                "Date": "Fri, 31 Dec 1999 23:59:29 GMT",
            },
            30.0,
        ),
        (
            {
                "Retry-After": "Fri, 31 Dec 1999 23:59:59 GMT",
                "Date": "Sat, 01 Jan 2000 23:59:29 GMT",
            },
            0.0,
        ),
        ({"Retry-After": "Fri, 31 Dec 2099 23:59:59 GMT"}, None),
        ({"Retry-After": "soon", "Date": "Fri, 31 Dec 1999 23:59:29 GMT"}, None),
        ({"Retry-After": "Fri, 31 Dec 1999 23:59:59 GMT", "Date": "today"}, None),
        ({}, None),
    ],
)
def test_wait_until_a_moment_is_measured_by_the_clock_that_named_it(
    headers: dict[str, str], seconds: float | None
) -> None:
    message = Message()
    for name, value in headers.items():
        message[name] = value

    assert _retry_after(message) == seconds


@pytest.mark.parametrize(
    ("expires_at", "date", "seconds"),
    [
        ("2027-05-01T10:00:00Z", "Sat, 01 May 2027 09:00:00 GMT", 3600.0),
        ("2027-05-01T10:00:00Z", None, None),
        ("2027-05-01T10:00:00", "Sat, 01 May 2027 09:00:00 GMT", None),
        (None, "Sat, 01 May 2027 09:00:00 GMT", None),
    ],
)
def test_life_of_a_key_is_measured_by_the_server_alone(
    expires_at: str | None, date: str | None, seconds: float | None
) -> None:
    assert _remaining_seconds(expires_at, date) == seconds
