"""Tell the server each step of an order, also when it is away for a while.

Rules:
- A report is saved before it is sent, so a crash or a reboot loses none.
- A report that cannot be sent waits in a queue and goes out, in order, as soon as the
  server answers again: it is tried at least every `report_ceiling_seconds`, unless the
  server itself asks for a longer wait by `Retry-After` (FR-FW-004).
- A report that the server does not take, though it answers the heartbeats, is given up
  after `report_patience_seconds`, and one that no address or header takes at once: a
  device never waits for ever to be rid of an order.
- Of several waiting progress reports only the newest is worth sending.
- A report sent twice does no harm: the server compares sequences first.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random

from devices.agent import states
from devices.agent.backoff import Backoff
from devices.agent.clock import Clock
from devices.agent.installer import ImageRecord
from devices.agent.limits import Limits
from devices.agent.protocol import Report, Status
from devices.agent.states import DROPPABLE
from devices.agent.store import SavedState
from devices.agent.transport import (
    InsecureAddressError,
    OrderClosedError,
    RefusedError,
    Transport,
    TransportError,
)

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class Reporter:
    """Sends the reports of the order in progress.

    Attributes:
        running: gives the image that runs now, or one that stands for "unknown".
        wait: sleeps for some seconds; the agent keeps its heartbeats going in it.
        server_answered_at: when the server answered the last heartbeat, by the
            monotonic clock; None if it did not.
        exports_spans: whether the device sends its spans to a collector by itself.
    """

    transport: Transport
    saved: SavedState
    clock: Clock
    backoff: Backoff
    boot_id: str
    patience_seconds: float
    running: Callable[[], ImageRecord]
    wait: Callable[[float], None]
    server_answered_at: Callable[[], float | None]
    exports_spans: bool = False
    _due_at: float = field(init=False, default=0.0)
    _fails_since: float | None = field(init=False, default=None)

    def post(self, status: Status, *, progress: int | None = None) -> None:
        """Queue a report and send what is queued, if the server is there.

        Args:
            status: the step that begins now.
            progress: percent of the download.

        Raises:
            OrderClosedError: the order is closed, and can still be dropped.
        """
        state = states.next_report(self.saved.value)
        report = self._make(status, state.report_sequence, progress)
        self.saved.save(states.queue_report(state, report))
        self.flush_if_due()

    def flush_if_due(self) -> None:
        """Send what is queued unless the last try was too short a time ago.

        Raises:
            OrderClosedError: the order is closed, and can still be dropped.
        """
        if self.saved.value.queued and self.clock.monotonic() >= self._due_at:
            self._flush()

    def deliver(self, status: Status) -> bool:
        """Send the pending report until it is acknowledged.

        Returns:
            Whether the order is still open.

        Raises:
            OrderClosedError: the order is closed, and can still be dropped.
        """
        state = self.saved.value
        order = state.open_order()
        report = self._make(status, state.pending_sequence, None)
        while True:
            if self._flush():
                try:
                    self.transport.send_report(
                        order.update_id, report, traceparent=order.traceparent
                    )
                except OrderClosedError:
                    return False
                except TransportError as error:
                    if self._is_final(error):
                        # The same bytes will be refused for ever: do not hang on it.
                        logger.error("report refused", extra={"reason": str(error)})
                        return False
                    self._postpone(status, error)
                else:
                    self._note_taken()
                    logger.info("acknowledged", extra={"status": status.value})
                    return True
            self.wait(max(0.0, self._due_at - self.clock.monotonic()))

    def _flush(self) -> bool:
        """Send what is queued, oldest first; give whether nothing is left."""
        while self.saved.value.queued:
            state = self.saved.value
            report = state.queued[0]
            order = state.open_order()
            try:
                self.transport.send_report(
                    order.update_id, report, traceparent=order.traceparent
                )
            except OrderClosedError:
                if state.phase in DROPPABLE:
                    raise
                # The order goes to its end all the same, see `states`.
                self.saved.note(states.forget_queued(state))
                return True
            except TransportError as error:
                if not self._is_final(error):
                    self._postpone(report.status, error)
                    return False
                logger.error("report refused", extra={"reason": str(error)})
            else:
                self._note_taken()
                logger.info(
                    "reported",
                    extra={
                        "status": report.status.value,
                        "percent": report.progress_percentage,
                    },
                )
            self.saved.note(states.forget_first_queued(self.saved.value))
        return True

    def _is_final(self, error: TransportError) -> bool:
        """Say whether the same report would be refused again and again."""
        if isinstance(error, InsecureAddressError):
            return True
        if isinstance(error, RefusedError) and error.status not in {401, 403}:
            return True
        now = self.clock.monotonic()
        answered_at = self.server_answered_at()
        if self._fails_since is None or answered_at is None:
            self._fails_since = now
            return False
        # What it answered before says nothing of whether it is there now.
        is_there = answered_at > self._fails_since
        if now - self._fails_since <= self.patience_seconds or not is_there:
            return False
        self._fails_since = None
        return True

    def _note_taken(self) -> None:
        self._fails_since = None
        self.backoff.reset()

    def _postpone(self, status: Status, error: TransportError) -> None:
        retry_after = getattr(error, "retry_after_seconds", None)
        wait = self.backoff.next_seconds(retry_after)
        self._due_at = self.clock.monotonic() + wait
        logger.warning(
            "report not acknowledged",
            extra={
                "status": status.value,
                "reason": str(error),
                "retry_seconds": round(wait, 1),
            },
        )

    def _make(self, status: Status, sequence: int, progress: int | None) -> Report:
        state = self.saved.value
        running = self.running()
        failure = state.failure if status is Status.FAILED else None
        return Report(
            sequence=sequence,
            status=status,
            boot_id=self.boot_id,
            firmware_version=running.version,
            firmware_checksum=running.sha256,
            occurred_at=self.clock.now().isoformat(),
            progress_percentage=progress,
            error_code=failure.code if failure else None,
            message=failure.message if failure else "",
            durations_seconds=state.durations_seconds,
            spans_exported=state.spans_exported if self.exports_spans else None,
        )


def report_backoff(limits: Limits, random: Random) -> Backoff:
    """Give the back-off of reports, whose ceiling is lower than that of the rest."""
    ceiling_seconds = min(limits.retry_ceiling_seconds, limits.report_ceiling_seconds)
    return Backoff(limits.retry_first_seconds, ceiling_seconds, random)
