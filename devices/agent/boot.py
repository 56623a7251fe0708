"""What the parts of an agent share in one boot of the device.

Rules:
- The state is saved before the work that it names begins.
- Waits and downloads give way to the heartbeat: `tick` does what must go on.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import timedelta

from devices.agent import states
from devices.agent.backoff import Backoff
from devices.agent.heartbeat import Heart
from devices.agent.installer import (
    UNKNOWN_IMAGE,
    ImageRecord,
    Installer,
    InstallLaterError,
)
from devices.agent.logs import bind
from devices.agent.ports import Device, Ports
from devices.agent.protocol import ErrorCode, Order, trace_id_of
from devices.agent.reporting import Reporter, report_backoff
from devices.agent.spans import Step
from devices.agent.states import AgentState, Failure
from devices.agent.store import SavedState
from devices.agent.supervision import Supervisor

logger = logging.getLogger(__name__)

SUPERVISION_SECONDS = 1.0


class RebootRequested(Exception):  # noqa: N818 - a request, not an error
    """The device shall reboot now."""


@dataclass(slots=True)
class Boot:
    """One boot of a device: what its loop, its orders and its trials share.

    Attributes:
        saved: the state in hand and on the medium.
        has_failed: an order has failed in this boot.
    """

    device: Device
    ports: Ports
    has_failed: bool = False
    saved: SavedState = field(init=False)
    heart: Heart = field(init=False)
    reporter: Reporter = field(init=False)
    supervisor: Supervisor = field(init=False)
    _later_backoff: Backoff = field(init=False)
    _later_since: float | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        """Prepare what lives as long as this boot."""
        limits = self.device.limits
        started_at = self.ports.clock.monotonic()
        self._later_backoff = self.new_backoff()
        self.saved = SavedState(self.ports.store)
        self.supervisor = Supervisor(
            application=self.ports.application,
            installer=self.ports.installer,
            clock=self.ports.clock,
            backoff=Backoff(
                limits.restart_first_seconds,
                limits.restart_ceiling_seconds,
                self.ports.random,
            ),
        )
        self.heart = Heart(
            transport=self.ports.transport,
            application=self.ports.application,
            clock=self.ports.clock,
            boot_id=self.device.boot_id,
            interval_seconds=limits.heartbeat_seconds,
            stale_metrics_seconds=limits.stale_metrics_seconds,
            backoff=self.new_backoff(),
            running=lambda: self.supervisor.running,
            restarts=lambda: self.supervisor.restarts,
            kept_sha256=self._kept_sha256,
            secure_boot=self.device.secure_boot,
            uptime_seconds=self.ports.uptime_seconds
            or (lambda: self.ports.clock.monotonic() - started_at),
        )
        self.reporter = Reporter(
            transport=self.ports.transport,
            saved=self.saved,
            clock=self.ports.clock,
            backoff=report_backoff(limits, self.ports.random),
            boot_id=self.device.boot_id,
            running=lambda: (
                self.supervisor.running
                or self.ports.installer.current()
                or UNKNOWN_IMAGE
            ),
            wait=self.wait,
            patience_seconds=limits.report_patience_seconds,
            server_answered_at=lambda: self.heart.answered_at,
            exports_spans=self.ports.spans is not None,
        )

    @property
    def state(self) -> AgentState:
        """Give the state in hand."""
        return self.saved.value

    def save(self, state: AgentState) -> None:
        """Write a state to the medium, then hold it.

        Raises:
            StateNotSavedError: the medium does not take it.
        """
        self.saved.save(state)

    def note_duration(self, name: str, started_at: float) -> None:
        """Note how long a step took, for the next report."""
        seconds = self.ports.clock.monotonic() - started_at
        began_at = self.ports.clock.now() - timedelta(seconds=seconds)
        state = states.add_duration(self.state, name, seconds)
        self.saved.note(states.add_step(state, Step(name, began_at, seconds)))

    def send_spans(self) -> None:
        """Tell a collector what was done, and the server whether it has taken it."""
        state = self.state
        if self.ports.spans is None or state.spans_exported:
            return
        error = state.failure.code.value if state.failure else ""
        if self.ports.spans.send(state.open_order(), state.steps, error=error):
            self.saved.note(replace(state, spans_exported=True))

    def name_order(self, order: Order | None) -> None:
        """Let the lines of the log that follow say which order they are about."""
        bind(
            trace_id=trace_id_of(order.traceparent) if order else "",
            update_id=order.update_id if order else "",
            firmware_version=order.firmware.version if order else "",
        )

    # Ends of an order

    def fail(self, code: ErrorCode, message: str) -> None:
        """End the order in hand as failed; what runs goes on."""
        logger.error("update failed", extra={"code": code.value, "reason": message})
        self.save(states.fail(self.state, Failure(code, message)))

    def fall_back(self, code: ErrorCode, message: str) -> None:
        """Leave the image on trial for the previous one."""
        logger.error("falling back", extra={"code": code.value, "reason": message})
        self.supervisor.stop()
        failure = Failure(code, message)
        self.save(states.fall_back(self.state, failure, boot_id=self.device.boot_id))

    def close(self) -> None:
        """Let go of the order in hand."""
        self._later_since = None
        self._later_backoff.reset()
        self.save(states.close(self.state))
        self.name_order(None)
        self.ports.staging.clear()

    def try_later(self, error: InstallLaterError, *, gives_up: bool = True) -> bool:
        """Wait before the same phase is tried again; give whether it is worth it."""
        now = self.ports.clock.monotonic()
        if self._later_since is None:
            self._later_since = now
        if now - self._later_since > self.device.limits.hook_patience_seconds:
            self._later_since = None
            if gives_up:
                self.fail(error.code, str(error))
            return False
        logger.warning("left for later", extra={"reason": str(error)})
        self.wait(self._later_backoff.next_seconds())
        return True

    # Time

    def tick(self) -> None:
        """Do what must go on while something long is under way."""
        self.ports.on_tick()
        self.supervisor.tick()
        self.heart.beat_if_due()
        self.reporter.flush_if_due()

    def wait(self, seconds: float, until: Callable[[], bool] | None = None) -> None:
        """Wait, keeping the application and the heartbeat alive meanwhile."""
        ends_at = self.ports.clock.monotonic() + seconds
        while True:
            self.tick()
            remaining = ends_at - self.ports.clock.monotonic()
            if remaining <= 0 or (until is not None and until()):
                return
            beat_seconds = self.heart.seconds_until_due()
            self.ports.clock.wait(min(remaining, beat_seconds, SUPERVISION_SECONDS))

    def new_backoff(self) -> Backoff:
        """Return the usual delays between attempts."""
        limits = self.device.limits
        return Backoff(
            limits.retry_first_seconds, limits.retry_ceiling_seconds, self.ports.random
        )

    # Images

    def kept(self) -> ImageRecord | None:
        """Give the image in the other slot, if the device may go back to it.

        It came with the device, or has passed its trial here.
        """
        if not self.ports.installer.reads_other_slot:
            return None
        record = self.ports.installer.previous()
        is_known = record is not None and (
            record.sequence == 0 or record.sha256 in self.state.confirmed_sha256s
        )
        return record if is_known else None

    def _kept_sha256(self) -> str | None:
        """Give the digest of that image for heartbeats; see `Heart`."""
        if not self.ports.installer.reads_other_slot:
            return None
        kept = self.kept()
        return kept.sha256 if kept else ""


@dataclass(slots=True)
class Phases:
    """Base of what works off phases of an order, with short names for what it uses."""

    boot: Boot

    @property
    def device(self) -> Device:
        """Give who this device is."""
        return self.boot.device

    @property
    def ports(self) -> Ports:
        """Give what the agent works with."""
        return self.boot.ports

    @property
    def installer(self) -> Installer:
        """Give the place for images."""
        return self.boot.ports.installer

    @property
    def state(self) -> AgentState:
        """Give the state in hand."""
        return self.boot.state
