"""Run a device: its application, its heartbeats and its updates.

Rules:
- One loop looks at the saved phase and does the work it names. A restart is nothing
  special: the same loop looks at the same phase.
- The state is saved before the work it names begins.
- One thread does everything. Waits and downloads give way to the heartbeat, so there
  is nothing to lock and nothing happens at the same time as an installation.
- The application is started only from an image whose digest was checked just before.
- A server that is away is never an error, only a wait.
- A fault of the agent itself ends neither it nor the application: the phase is tried
  again, ever more slowly, and an order that comes no further for it is given up.
"""

import contextlib
import logging
from dataclasses import dataclass, field
from enum import Enum

from devices.agent import states
from devices.agent.backoff import Backoff
from devices.agent.boot import SUPERVISION_SECONDS, Boot, RebootRequested
from devices.agent.installer import UNKNOWN_IMAGE
from devices.agent.order_run import OrderRun
from devices.agent.ports import Device, Ports
from devices.agent.protocol import ErrorCode, PollAnswer, ProtocolError, parse_order
from devices.agent.states import DROPPABLE, AgentState, Phase
from devices.agent.store import StateDamagedError, StateNotSavedError
from devices.agent.transport import OrderClosedError, TransportError, is_login_refusal
from devices.agent.trial import Trial
from devices.agent.verify import Floor

logger = logging.getLogger(__name__)

MIN_POLL_SECONDS = 0.2
MAX_POLL_SECONDS = 3600.0
MAX_FAULTS = 10
UNSETTLED = frozenset({Phase.SWITCHING, Phase.TRYING, Phase.REVERTING})
"""Phases that start the application themselves, or have it stopped."""


class Ending(Enum):
    """Why a run of the agent is over."""

    REBOOT = "reboot"
    DONE = "done"
    ORDER_FAILED = "order_failed"
    SERVER_UNREACHABLE = "server_unreachable"
    DEVICE_REFUSED = "device_refused"


@dataclass(slots=True)
class Agent:
    """One boot of one device; made anew after each reboot."""

    device: Device
    ports: Ports
    boot: Boot = field(init=False)
    trial: Trial = field(init=False)
    order_run: OrderRun = field(init=False)
    _poll_backoff: Backoff = field(init=False)
    _save_backoff: Backoff = field(init=False)
    _fault_backoff: Backoff = field(init=False)
    _poll_seconds: float = field(init=False)
    _is_refused: bool = field(init=False, default=False)

    def __post_init__(self) -> None:
        """Prepare what lives as long as this boot."""
        self.boot = Boot(self.device, self.ports)
        self.trial = Trial(self.boot)
        self.order_run = OrderRun(self.boot, self.trial)
        self._poll_seconds = self.device.limits.poll_seconds
        self._poll_backoff = self.boot.new_backoff()
        self._save_backoff = self.boot.new_backoff()
        self._fault_backoff = self.boot.new_backoff()

    @property
    def state(self) -> AgentState:
        """Give the state in hand."""
        return self.boot.state

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
            self.boot.supervisor.stop()

    def _start(self) -> None:
        self.boot.saved.value = self._load()
        if self.state.phase is not Phase.IDLE:
            logger.info("resuming an order", extra={"phase": self.state.phase.value})
        if self.state.phase is Phase.CLAIMING:
            # The claim names the boot it is made in, and this is another one.
            self.boot.save(states.renew_pending(self.state))
        if self.state.phase not in UNSETTLED:
            self.boot.supervisor.start()

    def _work(self, once: bool) -> Ending:
        """Do the work of `run`, over and over if the agent itself fails at it."""
        while True:
            try:
                if self._fault_backoff.failures >= MAX_FAULTS:
                    self._give_up()
                    self._fault_backoff.reset()
                return self._cycle(once)
            except RebootRequested:
                raise
            except Exception as error:
                if once:
                    raise
                self._rest_after(error)

    def _cycle(self, once: bool) -> Ending:
        is_cycle_over = self.state.phase is not Phase.IDLE
        if self.state.phase not in UNSETTLED:
            self.boot.heart.beat_if_due()
        while True:
            while self.state.phase is not Phase.IDLE:
                self._advance_or_wait()
                self._fault_backoff.reset()
            if once and is_cycle_over:
                return Ending.ORDER_FAILED if self.boot.has_failed else Ending.DONE
            # The server must know this boot before it gives an order.
            while not self.boot.heart.is_connected:
                self.boot.heart.beat_if_due()
                if once and not self.boot.heart.is_connected:
                    return self._unheard()
                self.boot.wait(self.boot.heart.seconds_until_due())
            self.boot.heart.beat_if_due()
            self.ports.when_idle()
            answer = self._poll()
            if once and answer is None:
                return self._unheard()
            is_cycle_over = True
            if self.state.phase is Phase.IDLE and not once:
                self._wait_for_poll(answer)
                self._fault_backoff.reset()

    def _rest_after(self, fault: Exception) -> None:
        """Log a fault and wait; the application and the heartbeats go on."""
        seconds = self._fault_backoff.next_seconds()
        logger.error(
            "fault of the agent",
            exc_info=fault,
            extra={
                "phase": self.state.phase.value,
                "retry_seconds": round(seconds, 1),
            },
        )
        ends_at = self.ports.clock.monotonic() + seconds
        while (remaining := ends_at - self.ports.clock.monotonic()) > 0:
            for each in (
                self.ports.on_tick,
                self.boot.supervisor.tick,
                self.boot.heart.beat_if_due,
            ):
                # It may be the very fault; the next cycle meets and logs it again.
                with contextlib.suppress(Exception):
                    each()
            self.ports.clock.wait(min(remaining, SUPERVISION_SECONDS))

    def _give_up(self) -> None:
        """End an order that comes no further because the agent fails at it."""
        logger.error("order given up", extra={"phase": self.state.phase.value})
        code = ErrorCode.INSTALL_FAILED
        message = "The agent itself failed; its log says how."
        match self.state.phase:
            case Phase.DOWNLOADING | Phase.VERIFYING | Phase.INSTALLING:
                self.boot.fail(code, message)
            case Phase.SWITCHING | Phase.TRYING:
                self.boot.fall_back(code, message)
            case Phase.REVERTING:
                self.boot.save(states.fail(self.state))
                self.boot.supervisor.start()
            case Phase.ANNOUNCING | Phase.CLAIMING | Phase.FAILING:
                self.boot.close()
            case Phase.IDLE:
                pass

    def _unheard(self) -> Ending:
        """Tell a server that lets the device in no more from one that is away."""
        if self._is_refused or self.boot.heart.is_refused:
            return Ending.DEVICE_REFUSED
        return Ending.SERVER_UNREACHABLE

    def _advance_or_wait(self) -> None:
        """Do the work that the phase names, or leave it for later.

        Nothing is done that was not saved before, so a medium that takes no state
        stops the order and nothing else: what runs goes on.
        """
        try:
            self._advance()
        except StateNotSavedError as error:
            wait = self._save_backoff.next_seconds()
            logger.error("state cannot be saved", extra={"reason": str(error)})
            with contextlib.suppress(OrderClosedError):
                # It is found closed again when its next report is sent.
                self.boot.wait(wait)
        else:
            self._save_backoff.reset()

    def _advance(self) -> None:
        """Do the work that the phase names."""
        self.boot.name_order(self.state.order)
        try:
            match self.state.phase:
                case Phase.DOWNLOADING:
                    self.order_run.download()
                case Phase.VERIFYING:
                    self.order_run.verify()
                case Phase.ANNOUNCING:
                    self.order_run.announce()
                case Phase.INSTALLING:
                    self.order_run.install()
                case Phase.SWITCHING:
                    self.order_run.switch()
                case Phase.TRYING:
                    self.trial.try_image()
                case Phase.CLAIMING:
                    self.trial.claim()
                case Phase.REVERTING:
                    self.trial.revert()
                case Phase.FAILING:
                    self.order_run.report_failure()
                case Phase.IDLE:
                    pass
        except OrderClosedError as error:
            if self.state.phase not in DROPPABLE:
                raise
            logger.warning("order dropped", extra={"reason": str(error)})
            self.boot.close()

    def _poll(self) -> PollAnswer | None:
        """Ask for an order and take or refuse it; None if the server is away."""
        self.boot.heart.update_is_available = False
        try:
            answer = self.ports.transport.poll()
        except TransportError as error:
            logger.warning("poll failed", extra={"reason": str(error)})
            self._is_refused = is_login_refusal(error)
            retry_after = getattr(error, "retry_after_seconds", None)
            self._poll_seconds = self._poll_backoff.next_seconds(retry_after)
            return None
        self._poll_backoff.reset()
        asked = answer.poll_interval_seconds or self.device.limits.poll_seconds
        self._poll_seconds = min(MAX_POLL_SECONDS, max(MIN_POLL_SECONDS, asked))
        if answer.instruction is not None:
            try:
                self.order_run.consider(parse_order(answer.instruction))
            except ProtocolError as error:
                logger.error("order not understood", extra={"reason": str(error)})
            except StateNotSavedError as error:
                # Not taken, as nothing could be remembered of it; offered again.
                logger.error("state cannot be saved", extra={"reason": str(error)})
        return answer

    def keep_alive(self) -> None:
        """Do what must go on while something long is under way."""
        self.boot.tick()

    def _wait_for_poll(self, answer: PollAnswer | None) -> None:
        seconds = self._poll_seconds
        if answer is not None:
            # Spread a fleet that was started together.
            seconds *= self.ports.random.uniform(0.9, 1.0)
        self.boot.wait(seconds, until=lambda: self.boot.heart.update_is_available)

    def _load(self) -> AgentState:
        floor = self._floor_of_slots()
        try:
            state = self.ports.store.load() or AgentState(floor=floor)
        except StateDamagedError as error:
            logger.error("state is damaged, begun anew", extra={"reason": str(error)})
            state = AgentState(floor=floor)
        return state

    def _floor_of_slots(self) -> Floor:
        """Give the floor that the slots bear witness to, should the state be lost."""
        records = [
            record
            for record in (
                self.ports.installer.current(),
                self.ports.installer.previous(),
            )
            if record is not None
        ]
        newest = max(records, key=lambda record: record.sequence, default=UNKNOWN_IMAGE)
        current = self.ports.installer.current() or UNKNOWN_IMAGE
        return Floor(
            sequence=newest.sequence,
            sequence_sha256=newest.sha256 if newest.sequence else "",
            security_version=current.security_version,
        )
