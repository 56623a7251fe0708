"""Run a device: its application, its heartbeats and its updates.

Rules:
- One loop looks at the saved phase and does the work it names. A restart is nothing
  special: the same loop looks at the same phase.
- The state is saved before the work it names begins.
- One thread does everything. Waits and downloads give way to the heartbeat, so there
  is nothing to lock and nothing happens at the same time as an installation.
- The application is started only from an image whose digest was checked just before.
- A server that is away is never an error, only a wait.
"""

import contextlib
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from random import Random

from devices.agent import states
from devices.agent.application import Application
from devices.agent.backoff import Backoff, retry_backoff
from devices.agent.clock import Clock
from devices.agent.download import (
    Staging,
)
from devices.agent.heartbeat import Heart
from devices.agent.installer import (
    UNKNOWN_IMAGE,
    ImageRecord,
    Installer,
)
from devices.agent.orders import Device, OrderWork, RebootRequested
from devices.agent.protocol import (
    Action,
    ErrorCode,
    Order,
    PollAnswer,
    ProtocolError,
    parse_order,
)
from devices.agent.reporting import Reporter, report_backoff
from devices.agent.states import AgentState, Failure, Phase
from devices.agent.store import (
    SavedState,
    StateDamagedError,
    StateNotSavedError,
    StateStore,
)
from devices.agent.supervision import Supervisor
from devices.agent.transport import (
    Transport,
    TransportError,
)
from devices.agent.verify import (
    Floor,
    TrustedKeys,
    VerificationError,
    check_manifest,
)

logger = logging.getLogger(__name__)

SUPERVISION_SECONDS = 1.0
MIN_POLL_SECONDS = 0.2
MAX_POLL_SECONDS = 3600.0


class Ending(Enum):
    """Why a run of the agent is over."""

    REBOOT = "reboot"
    DONE = "done"
    ORDER_FAILED = "order_failed"
    SERVER_UNREACHABLE = "server_unreachable"


@dataclass(slots=True)
class Agent:
    """One boot of one device; made anew after each reboot.

    Attributes:
        health_check: the owner's last word on an image on trial: gives what is wrong
            with it, "" if nothing is.
        when_idle: called before each poll, while there is no order.
        on_tick: called about every second, also during downloads and waits.
    """

    device: Device
    transport: Transport
    installer: Installer
    staging: Staging
    store: StateStore
    application: Application
    keys: TrustedKeys
    clock: Clock
    uptime_seconds: Callable[[], float] | None = None
    random: Random = field(default_factory=Random)
    health_check: Callable[[ImageRecord], str] = field(default=lambda _: "")
    when_idle: Callable[[], None] = field(default=lambda: None)
    on_tick: Callable[[], None] = field(default=lambda: None)
    _saved: SavedState = field(init=False)
    _heart: Heart = field(init=False)
    _reporter: Reporter = field(init=False)
    _supervisor: Supervisor = field(init=False)
    _poll_backoff: Backoff = field(init=False)
    _orders: OrderWork = field(init=False)
    _poll_seconds: float = field(init=False)

    def __post_init__(self) -> None:
        """Prepare what lives as long as this boot."""
        limits = self.device.limits
        started_at = self.clock.monotonic()
        self._poll_seconds = limits.poll_seconds
        self._poll_backoff = retry_backoff(limits, self.random)
        self._saved = SavedState(self.store)
        self._supervisor = Supervisor(
            application=self.application,
            installer=self.installer,
            clock=self.clock,
            backoff=Backoff(
                limits.restart_first_seconds,
                limits.restart_ceiling_seconds,
                self.random,
            ),
        )
        self._heart = Heart(
            transport=self.transport,
            application=self.application,
            clock=self.clock,
            boot_id=self.device.boot_id,
            interval_seconds=limits.heartbeat_seconds,
            stale_metrics_seconds=limits.stale_metrics_seconds,
            backoff=retry_backoff(limits, self.random),
            running=lambda: self._supervisor.running,
            restarts=lambda: self._supervisor.restarts,
            secure_boot=self.device.secure_boot,
            uptime_seconds=self.uptime_seconds
            or (lambda: self.clock.monotonic() - started_at),
        )
        self._reporter = Reporter(
            transport=self.transport,
            saved=self._saved,
            clock=self.clock,
            backoff=report_backoff(limits, self.random),
            boot_id=self.device.boot_id,
            running=lambda: (
                self._supervisor.running or self.installer.current() or UNKNOWN_IMAGE
            ),
            wait=self._wait,
        )
        self._orders = OrderWork(
            device=self.device,
            transport=self.transport,
            installer=self.installer,
            staging=self.staging,
            application=self.application,
            keys=self.keys,
            clock=self.clock,
            random=self.random,
            saved=self._saved,
            heart=self._heart,
            reporter=self._reporter,
            supervisor=self._supervisor,
            health_check=self.health_check,
            wait=self._wait,
            tick=self._tick,
            on_tick=self.on_tick,
        )

    @property
    def state(self) -> AgentState:
        """Give the state in hand."""
        return self._saved.value

    def run(self, *, once: bool = False) -> Ending:
        """Work until a reboot is due or, with `once`, one poll is worked off.

        The application is stopped in every case.

        Raises:
            StopRequested: the clock was told to stop.
        """
        try:
            self._start()
            return self._work(once)
        except RebootRequested:
            return Ending.REBOOT
        finally:
            self._supervisor.stop()

    # The loop

    def _start(self) -> None:
        self._saved.value = self._load()
        if self.state.phase is not Phase.IDLE:
            logger.info("resuming an order", extra={"phase": self.state.phase.value})
        if self.state.phase is Phase.CLAIMING:
            # The claim names the boot it is made in, and this is another one.
            with contextlib.suppress(StateNotSavedError):
                self._saved.save(states.renew_pending(self.state))
        if self.state.phase not in {Phase.SWITCHING, Phase.TRYING, Phase.REVERTING}:
            self._supervisor.start()
            self._heart.beat_if_due()

    def _work(self, once: bool) -> Ending:
        is_cycle_over = self.state.phase is not Phase.IDLE
        while True:
            while self.state.phase is not Phase.IDLE:
                self._orders.advance()
            if once and is_cycle_over:
                return Ending.ORDER_FAILED if self._orders.has_failed else Ending.DONE
            # The server must know this boot before it gives an order.
            while not self._heart.has_been_heard:
                self._heart.beat_if_due()
                if once and not self._heart.has_been_heard:
                    return Ending.SERVER_UNREACHABLE
                self._wait(self._heart.seconds_until_due())
            self._heart.beat_if_due()
            self.when_idle()
            answer = self._poll()
            if once and answer is None:
                return Ending.SERVER_UNREACHABLE
            is_cycle_over = True
            if self.state.phase is Phase.IDLE and not once:
                self._wait_for_poll(answer)

    # Orders

    def _poll(self) -> PollAnswer | None:
        """Ask for an order and take or refuse it; None if the server is away."""
        self._heart.update_is_available = False
        try:
            answer = self.transport.poll()
        except TransportError as error:
            logger.warning("poll failed", extra={"reason": str(error)})
            retry_after = getattr(error, "retry_after_seconds", None)
            self._poll_seconds = self._poll_backoff.next_seconds(retry_after)
            return None
        self._poll_backoff.reset()
        asked = answer.poll_interval_seconds or self.device.limits.poll_seconds
        self._poll_seconds = min(MAX_POLL_SECONDS, max(MIN_POLL_SECONDS, asked))
        if answer.instruction is not None:
            try:
                self._consider(parse_order(answer.instruction))
            except ProtocolError as error:
                logger.error("order not understood", extra={"reason": str(error)})
            except StateNotSavedError as error:
                # Not taken, as nothing could be remembered of it; offered again.
                logger.error("state cannot be saved", extra={"reason": str(error)})
        return answer

    def _consider(self, order: Order) -> None:
        if order.update_id == self.state.last_closed_update_id:
            return
        logger.info(
            "order received",
            extra={
                "update_id": order.update_id,
                "action": order.action.value,
                "version": order.firmware.version,
            },
        )
        try:
            manifest = check_manifest(
                order,
                keys=self.keys,
                model=self.device.model,
                floor=self.state.floor,
                max_image_bytes=self.device.limits.max_image_bytes,
            )
        except VerificationError as error:
            logger.error(
                "order refused", extra={"code": error.code.value, "reason": str(error)}
            )
            failure = Failure(error.code, str(error))
            self._saved.save(states.refuse(self.state, order, failure))
            return
        if self.installer.switches_at_boot and self.installer.current() is None:
            # A fall back from here could not be told from a success.
            failure = Failure(
                ErrorCode.DEVICE_STATE_UNKNOWN, "It is not known what runs now."
            )
            self._saved.save(states.refuse(self.state, order, failure))
            return
        logger.info("manifest accepted", extra={"sequence": manifest.sequence})
        self.staging.clear(keep_sha256=manifest.sha256)
        # Coming back to what runs needs no reboot; installing it anew is proved by one.
        is_fulfilled = self._supervisor.is_running(manifest.sha256) and (
            order.action is Action.ROLLBACK or not order.reboot_required
        )
        if is_fulfilled:
            self._saved.save(states.claim_at_once(self.state, order, manifest))
        else:
            self._saved.save(states.accept(self.state, order, manifest))

    # Time

    def keep_alive(self) -> None:
        """Do what must go on while something long is under way."""
        self._tick()

    def _tick(self) -> None:
        self.on_tick()
        self._supervisor.tick()
        self._heart.beat_if_due()
        self._reporter.flush_if_due()

    def _wait(self, seconds: float, until: Callable[[], bool] | None = None) -> None:
        """Wait, keeping the application and the heartbeat alive meanwhile."""
        ends_at = self.clock.monotonic() + seconds
        while True:
            self._tick()
            remaining = ends_at - self.clock.monotonic()
            if remaining <= 0 or (until is not None and until()):
                return
            beat_seconds = self._heart.seconds_until_due()
            self.clock.wait(min(remaining, beat_seconds, SUPERVISION_SECONDS))

    def _wait_for_poll(self, answer: PollAnswer | None) -> None:
        seconds = self._poll_seconds
        if answer is not None:
            # Spread a fleet that was started together.
            seconds *= self.random.uniform(0.9, 1.0)
        self._wait(seconds, until=lambda: self._heart.update_is_available)

    # Small helpers

    def _load(self) -> AgentState:
        floor = self._floor_of_slots()
        try:
            state = self.store.load() or AgentState(floor=floor)
        except StateDamagedError as error:
            logger.error("state is damaged, begun anew", extra={"reason": str(error)})
            state = AgentState(floor=floor)
        return state

    def _floor_of_slots(self) -> Floor:
        """Give the floor that the slots bear witness to, should the state be lost."""
        records = [
            record
            for record in (self.installer.current(), self.installer.previous())
            if record is not None
        ]
        newest = max(records, key=lambda record: record.sequence, default=UNKNOWN_IMAGE)
        current = self.installer.current() or UNKNOWN_IMAGE
        return Floor(
            sequence=newest.sequence,
            sequence_sha256=newest.sha256 if newest.sequence else "",
            security_version=current.security_version,
        )
