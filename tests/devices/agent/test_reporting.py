"""Each step reaches the server within 30 s of its being there (FR-FW-004)."""

import itertools
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any

import pytest

from devices.agent import states
from devices.agent.installer import UNKNOWN_IMAGE
from devices.agent.limits import Limits
from devices.agent.protocol import (
    HeartbeatAnswer,
    PollAnswer,
    Report,
    Status,
    parse_order,
)
from devices.agent.reporting import Reporter, report_backoff
from devices.agent.states import AgentState
from devices.agent.store import SavedState, decode, encode
from devices.agent.transport import (
    Body,
    InsecureAddressError,
    OrderClosedError,
    RefusedError,
    TransportError,
    UnavailableError,
)
from devices.agent.verify import Manifest
from devices.simulator.images import MemoryStateStore
from tests.devices.agent.device_process import DeviceProcess, program
from tests.devices.agent.protocol_server import ProtocolServer

SHA256 = "a" * 64
PATIENCE_SECONDS = 3600.0


@dataclass
class ManualClock:
    """A clock that stands still until somebody waits."""

    seconds: float = 1000.0

    def monotonic(self) -> float:
        return self.seconds

    def now(self) -> datetime:
        return datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=self.seconds)

    def wait(self, seconds: float) -> None:
        self.seconds += seconds


@dataclass
class FlakyTransport:
    """Takes reports outside its outages and remembers when they came."""

    clock: ManualClock
    error: TransportError
    away_until: float = 0.0
    is_server_there: bool = False
    has_stopped_answering_at: float = float("inf")
    tries: list[float] = field(default_factory=list)
    taken: list[tuple[float, Report]] = field(default_factory=list)

    def send_report(
        self, update_id: str, report: Report, *, traceparent: str = ""
    ) -> None:
        self.tries.append(self.clock.seconds)
        if self.clock.seconds < self.away_until:
            raise self.error
        self.taken.append((self.clock.seconds, report))

    def send_heartbeat(self, heartbeat: Mapping[str, Any]) -> HeartbeatAnswer:
        raise NotImplementedError

    def poll(self) -> PollAnswer:
        raise NotImplementedError

    def download(
        self,
        url: str,
        *,
        first: int,
        last: int,
        etag: str,
        more_headers: Mapping[str, str] | None = None,
    ) -> AbstractContextManager[Body]:
        raise NotImplementedError

    def answered_at(self) -> float | None:
        """Say when a heartbeat was last answered, the server being there."""
        if not self.is_server_there:
            return None
        return min(self.clock.seconds, self.has_stopped_answering_at)

    def statuses(self) -> list[str]:
        return [report.status.value for _, report in self.taken]


@dataclass
class Bench:
    """A reporter in the middle of a download, with a clock and a server to move."""

    clock: ManualClock
    transport: FlakyTransport
    reporter: Reporter
    saved: SavedState

    def pass_time(self, seconds: float) -> None:
        """Let time go by as the agent does: it looks every second."""
        for _ in range(int(seconds)):
            self.clock.wait(1)
            self.reporter.flush_if_due()


def make_bench(error: TransportError | None = None) -> Bench:
    clock = ManualClock()
    transport = FlakyTransport(clock, error or UnavailableError("away"))
    order = parse_order(
        {
            "updateId": "update-1",
            "action": "install",
            "firmware": {
                "version": "2.0.0",
                "model": "sensor-v1",
                "size": 1,
                "checksum": SHA256,
                "signature": "",
                "signatureAlgorithm": "",
                "keyId": "",
                "downloadUrl": "/",
            },
            "manifest": "",
            "manifestSignature": "",
            "rebootRequired": True,
        }
    )
    manifest = Manifest("sensor-v1", "2.0.0", 1, 1, SHA256, 1, "key")
    saved = SavedState(MemoryStateStore(), states.accept(AgentState(), order, manifest))
    reporter = Reporter(
        transport=transport,
        saved=saved,
        clock=clock,
        backoff=report_backoff(Limits(), Random(3)),
        boot_id="boot-1",
        running=lambda: UNKNOWN_IMAGE,
        wait=clock.wait,
        patience_seconds=PATIENCE_SECONDS,
        server_answered_at=transport.answered_at,
    )
    return Bench(clock, transport, reporter, saved)


def test_server_that_is_away_is_tried_at_least_every_30_seconds() -> None:
    bench = make_bench()
    bench.transport.away_until = bench.clock.seconds + 600

    bench.reporter.post(Status.DOWNLOADING, progress=10)
    bench.pass_time(700)

    tries = bench.transport.tries
    assert max(b - a for a, b in itertools.pairwise(tries)) <= 30
    taken_at, _ = bench.transport.taken[0]
    assert taken_at - bench.transport.away_until <= 30


def test_steps_of_an_outage_arrive_in_order_with_their_own_times() -> None:
    bench = make_bench()
    bench.transport.away_until = bench.clock.seconds + 100

    for status in (Status.DOWNLOADING, Status.VERIFYING, Status.REBOOTING):
        bench.reporter.post(status)
        bench.pass_time(10)
    bench.pass_time(120)

    assert bench.transport.statuses() == ["downloading", "verifying", "rebooting"]
    times = [report.occurred_at for _, report in bench.transport.taken]
    assert times == sorted(set(times))
    assert bench.saved.value.queued == ()


def test_only_the_newest_progress_waits() -> None:
    bench = make_bench()
    bench.transport.away_until = bench.clock.seconds + 100

    for percent in range(0, 100, 2):
        bench.reporter.post(Status.DOWNLOADING, progress=percent)
    bench.pass_time(200)

    reports = [report for _, report in bench.transport.taken]
    assert [each.progress_percentage for each in reports] == [98]


def test_waiting_reports_survive_a_restart() -> None:
    bench = make_bench()
    bench.transport.away_until = bench.clock.seconds + 100
    bench.reporter.post(Status.DOWNLOADING, progress=7)
    bench.reporter.post(Status.VERIFYING)

    again = decode(encode(bench.saved.value))

    assert again == bench.saved.value
    assert [each.status for each in again.queued] == ["downloading", "verifying"]


def test_longer_wait_that_the_server_asks_for_is_honoured() -> None:
    bench = make_bench(UnavailableError("busy", retry_after_seconds=200))
    bench.transport.away_until = bench.clock.seconds + 10

    bench.reporter.post(Status.VERIFYING)
    bench.pass_time(300)

    first, second = bench.transport.tries
    assert 200 <= second - first <= 250


def test_waiting_reports_go_before_the_one_that_must_arrive() -> None:
    bench = make_bench()
    bench.transport.away_until = bench.clock.seconds + 50
    bench.reporter.post(Status.VERIFYING)
    bench.saved.save(states.verified(states.downloaded(bench.saved.value)))

    is_open = bench.reporter.deliver(Status.INSTALLING)

    assert is_open
    assert bench.transport.statuses() == ["verifying", "installing"]
    sequences = [report.sequence for _, report in bench.transport.taken]
    assert sequences == sorted(sequences)


def test_report_that_is_refused_for_good_does_not_block_the_next() -> None:
    bench = make_bench(RefusedError(400, "HTTP 400"))
    bench.transport.away_until = bench.clock.seconds + 1
    bench.reporter.post(Status.DOWNLOADING)

    bench.clock.wait(1)
    bench.reporter.post(Status.VERIFYING)

    assert bench.transport.statuses() == ["verifying"]


def test_report_that_the_server_never_takes_is_given_up() -> None:
    bench = make_bench(UnavailableError("HTTP 500", status=500))
    bench.transport.away_until = float("inf")
    bench.transport.is_server_there = True
    bench.saved.save(states.verified(states.downloaded(bench.saved.value)))
    began_at = bench.clock.seconds

    is_open = bench.reporter.deliver(Status.INSTALLING)

    assert not is_open
    assert 0 <= bench.clock.seconds - began_at - PATIENCE_SECONDS <= 30


def test_answer_from_before_does_not_count_for_a_server_that_is_there() -> None:
    bench = make_bench(UnavailableError("HTTP 500", status=500))
    bench.transport.away_until = bench.clock.seconds + PATIENCE_SECONDS + 30
    bench.transport.is_server_there = True
    bench.transport.has_stopped_answering_at = bench.clock.seconds
    bench.reporter.post(Status.DOWNLOADING)

    bench.pass_time(PATIENCE_SECONDS + 90)

    assert bench.transport.statuses() == ["downloading"]


def test_waiting_report_that_the_server_never_takes_is_given_up() -> None:
    bench = make_bench(UnavailableError("HTTP 500", status=500))
    bench.transport.away_until = bench.clock.seconds + PATIENCE_SECONDS + 30
    bench.transport.is_server_there = True
    bench.reporter.post(Status.DOWNLOADING)

    bench.pass_time(PATIENCE_SECONDS + 60)
    bench.reporter.post(Status.VERIFYING)

    assert bench.transport.statuses() == ["verifying"]


def test_server_that_is_away_is_waited_for_without_end() -> None:
    bench = make_bench()
    bench.transport.away_until = bench.clock.seconds + 100 * PATIENCE_SECONDS
    bench.saved.save(states.verified(states.downloaded(bench.saved.value)))

    assert bench.reporter.deliver(Status.INSTALLING)


def test_report_that_no_address_takes_is_given_up_at_once() -> None:
    bench = make_bench(InsecureAddressError("no address"))
    bench.transport.away_until = float("inf")
    bench.saved.save(states.verified(states.downloaded(bench.saved.value)))

    assert not bench.reporter.deliver(Status.INSTALLING)
    assert len(bench.transport.tries) == 1


def test_order_found_closed_by_a_late_report_can_be_dropped() -> None:
    bench = make_bench(OrderClosedError("closed"))
    bench.transport.away_until = bench.clock.seconds + 1

    with pytest.raises(OrderClosedError):
        bench.reporter.post(Status.DOWNLOADING)


def test_steps_reach_a_busy_server_all_the_same(
    device: DeviceProcess, server: ProtocolServer
) -> None:
    server.faults.busy_for = ["downloading", "verifying", "verifying", "rebooting"]
    update_id = server.order("device-1", program("2.0.0"), "2.0.0")
    device.start()
    server.wait_for(update_id, "confirming")

    reports = server.reports_of(update_id)

    assert [each["status"] for each in reports] == [
        "downloading",
        "verifying",
        "installing",
        "rebooting",
        "confirming",
    ]
    # The step before the reboot is told as it was, in the boot it happened in.
    assert reports[3]["bootId"] == reports[2]["bootId"] != reports[4]["bootId"]
