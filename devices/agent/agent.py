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
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from random import Random

from devices.agent import states
from devices.agent.application import Application, ApplicationError
from devices.agent.backoff import Backoff
from devices.agent.clock import Clock
from devices.agent.crashpoints import reach
from devices.agent.download import (
    PAGE_SAID,
    Downloader,
    DownloadError,
    Pace,
    StagedImage,
    Staging,
)
from devices.agent.files import read_blocks
from devices.agent.heartbeat import Heart
from devices.agent.installer import (
    UNKNOWN_IMAGE,
    ContentChangedError,
    ImageRecord,
    Installer,
    InstallError,
    InstallLaterError,
)
from devices.agent.limits import Limits
from devices.agent.protocol import (
    Action,
    ErrorCode,
    Order,
    PollAnswer,
    ProtocolError,
    Source,
    Status,
    parse_order,
)
from devices.agent.reporting import Reporter, report_backoff
from devices.agent.secure_boot import SecureBoot
from devices.agent.states import DROPPABLE, AgentState, Failure, Phase
from devices.agent.store import (
    SavedState,
    StateDamagedError,
    StateNotSavedError,
    StateStore,
)
from devices.agent.supervision import Supervisor
from devices.agent.transport import (
    OrderClosedError,
    Transport,
    TransportError,
    is_login_refusal,
    looks_like_page,
)
from devices.agent.verify import (
    Floor,
    Manifest,
    TrustedKeys,
    VerificationError,
    check_image,
    check_manifest,
    check_slot_return,
)

logger = logging.getLogger(__name__)

SUPERVISION_SECONDS = 1.0
TRIAL_LOOK_SECONDS = 0.1
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


class RebootRequested(Exception):  # noqa: N818 - a request, not an error
    """The device shall reboot now."""


@dataclass(frozen=True, slots=True)
class Device:
    """Who this device is, and in which boot.

    An order to go back to its other slot has to name `device_id`.

    `self_test_seconds` is how long a new image has to stay alive.
    """

    device_id: str
    model: str
    boot_id: str
    self_test_seconds: float
    limits: Limits = field(default_factory=Limits)
    secure_boot: SecureBoot = "unknown"


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
    _save_backoff: Backoff = field(init=False)
    _later_backoff: Backoff = field(init=False)
    _later_since: float | None = field(init=False, default=None)
    _fault_backoff: Backoff = field(init=False)
    _poll_seconds: float = field(init=False)
    _progress_at: float = field(init=False, default=0.0)
    _has_failed: bool = field(init=False, default=False)
    _is_refused: bool = field(init=False, default=False)

    def __post_init__(self) -> None:
        """Prepare what lives as long as this boot."""
        limits = self.device.limits
        started_at = self.clock.monotonic()
        self._poll_seconds = limits.poll_seconds
        self._poll_backoff = self._new_backoff()
        self._save_backoff = self._new_backoff()
        self._later_backoff = self._new_backoff()
        self._fault_backoff = self._new_backoff()
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
            backoff=self._new_backoff(),
            running=lambda: self._supervisor.running,
            restarts=lambda: self._supervisor.restarts,
            kept_sha256=self._kept_sha256,
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
            patience_seconds=limits.report_patience_seconds,
            server_answered_at=lambda: self._heart.answered_at,
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
            self._save(states.renew_pending(self.state))
        if self.state.phase not in UNSETTLED:
            self._supervisor.start()

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
            self._heart.beat_if_due()
        while True:
            while self.state.phase is not Phase.IDLE:
                self._advance_or_wait()
                self._fault_backoff.reset()
            if once and is_cycle_over:
                return Ending.ORDER_FAILED if self._has_failed else Ending.DONE
            # The server must know this boot before it gives an order.
            while not self._heart.has_been_heard:
                self._heart.beat_if_due()
                if once and not self._heart.has_been_heard:
                    return self._unheard()
                self._wait(self._heart.seconds_until_due())
            self._heart.beat_if_due()
            self.when_idle()
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
        ends_at = self.clock.monotonic() + seconds
        while (remaining := ends_at - self.clock.monotonic()) > 0:
            for each in (self.on_tick, self._supervisor.tick, self._heart.beat_if_due):
                # It may be the very fault; the next cycle meets and logs it again.
                with contextlib.suppress(Exception):
                    each()
            self.clock.wait(min(remaining, SUPERVISION_SECONDS))

    def _give_up(self) -> None:
        """End an order that comes no further because the agent fails at it."""
        logger.error("order given up", extra={"phase": self.state.phase.value})
        code = ErrorCode.INSTALL_FAILED
        message = "The agent itself failed; its log says how."
        match self.state.phase:
            case Phase.DOWNLOADING | Phase.VERIFYING | Phase.INSTALLING:
                self._fail(code, message)
            case Phase.SWITCHING | Phase.TRYING:
                self._fall_back(code, message)
            case Phase.REVERTING:
                self._save(states.fail(self.state))
                self._supervisor.start()
            case Phase.ANNOUNCING | Phase.CLAIMING | Phase.FAILING:
                self._close()
            case Phase.IDLE:
                pass

    def _unheard(self) -> Ending:
        """Tell a server that lets the device in no more from one that is away."""
        if self._is_refused or self._heart.is_refused:
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
                self._wait(wait)
        else:
            self._save_backoff.reset()

    def _advance(self) -> None:
        """Do the work that the phase names."""
        try:
            match self.state.phase:
                case Phase.DOWNLOADING:
                    self._download()
                case Phase.VERIFYING:
                    self._verify()
                case Phase.ANNOUNCING:
                    self._announce()
                case Phase.INSTALLING:
                    self._install()
                case Phase.SWITCHING:
                    self._switch()
                case Phase.TRYING:
                    self._try_image()
                case Phase.CLAIMING:
                    self._claim()
                case Phase.REVERTING:
                    self._revert()
                case Phase.FAILING:
                    self._report_failure()
                case Phase.IDLE:
                    pass
        except OrderClosedError as error:
            if self.state.phase not in DROPPABLE:
                raise
            logger.warning("order dropped", extra={"reason": str(error)})
            self._close()

    # Phases

    def _poll(self) -> PollAnswer | None:
        """Ask for an order and take or refuse it; None if the server is away."""
        self._heart.update_is_available = False
        try:
            answer = self.transport.poll()
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
            manifest = self._judge(order)
        except VerificationError as error:
            logger.error(
                "order refused", extra={"code": error.code.value, "reason": str(error)}
            )
            failure = Failure(error.code, str(error))
            self._save(states.refuse(self.state, order, failure))
            return
        if self.installer.switches_at_boot and self.installer.current() is None:
            # A fall back from here could not be told from a success.
            failure = Failure(
                ErrorCode.DEVICE_STATE_UNKNOWN, "It is not known what runs now."
            )
            self._save(states.refuse(self.state, order, failure))
            return
        logger.info("manifest accepted", extra={"sequence": manifest.sequence})
        self.staging.clear(keep_sha256=manifest.sha256)
        # Coming back to what runs needs no reboot; installing it anew is proved by one.
        is_fulfilled = self._supervisor.is_running(manifest.sha256) and (
            order.action is Action.ROLLBACK or not order.reboot_required
        )
        if is_fulfilled:
            self._save(states.claim_at_once(self.state, order, manifest))
        else:
            self._save(states.accept(self.state, order, manifest))

    def _judge(self, order: Order) -> Manifest:
        """Check what an order is signed with; see `verify`."""
        if order.source is Source.SLOT:
            running = self.installer.current()
            return check_slot_return(
                order,
                keys=self.keys,
                device_id=self.device.device_id,
                model=self.device.model,
                floor=self.state.floor,
                kept=[each for each in (running, self._kept()) if each is not None],
            )
        return check_manifest(
            order,
            keys=self.keys,
            model=self.device.model,
            floor=self.state.floor,
            max_image_bytes=self.device.limits.max_image_bytes,
        )

    def _download(self) -> None:
        order = self.state.open_order()
        if self._held_file(order.firmware.sha256) is not None:
            logger.info("image is already in a slot")
            self._save(states.downloaded(self.state))
            return
        if order.source is Source.SLOT:
            self._fail(ErrorCode.IMAGE_NOT_KEPT, "Its bytes in the slot have changed.")
            return
        staged = self.staging.open(order.firmware.sha256)
        logger.info(
            "downloading",
            extra={
                "from_byte": staged.length_bytes(),
                "size_bytes": order.firmware.size_bytes,
            },
        )
        self._on_progress(staged.length_bytes())
        started_at = self.clock.monotonic()
        limits = self.device.limits
        downloader = Downloader(
            transport=self.transport,
            chunk_bytes=limits.chunk_bytes,
            patience_seconds=limits.download_patience_seconds,
            path_patience_seconds=limits.path_patience_seconds,
            backoff=self._new_backoff(),
            wait=self._wait,
            on_block=self._on_block,
            on_retry=self._on_progress,
            server_answered_at=lambda: self._heart.answered_at,
            pace=Pace(
                max_bytes_per_second=limits.max_bytes_per_second,
                min_bytes_per_second=limits.min_bytes_per_second,
                window_seconds=limits.min_rate_window_seconds,
            ),
            monotonic=self.clock.monotonic,
        )
        try:
            downloader.fetch(order, staged)
        except DownloadError as error:
            self._fail(error.code, str(error))
            return
        self._note_duration("download", started_at)
        self._save(states.downloaded(self.state))

    def _verify(self) -> None:
        order = self.state.open_order()
        self._reporter.post(Status.VERIFYING)
        started_at = self.clock.monotonic()
        held = self._held_file(order.firmware.sha256)
        staged = self.staging.open(order.firmware.sha256)
        try:
            if order.source is Source.DOWNLOAD:
                blocks = read_blocks(held) if held else staged.blocks()
                check_image(blocks, order, self.keys)
            elif held is None:
                raise VerificationError(
                    ErrorCode.IMAGE_NOT_KEPT, "Its bytes in the slot have changed."
                )
        except VerificationError as error:
            self._judge_bad_bytes(error, staged)
            return
        reach("verify.checked")
        logger.info("image verified", extra={"sha256": order.firmware.sha256})
        self._note_duration("verify", started_at)
        self._save(states.verified(self.state))

    def _judge_bad_bytes(self, error: VerificationError, staged: StagedImage) -> None:
        """Fetch again where that can help, else give up the order."""
        # A signature over the right bytes does not get better by fetching again.
        can_help = error.code in {ErrorCode.CHECKSUM_MISMATCH, ErrorCode.SIZE_MISMATCH}
        logger.error("image refused", extra={"code": error.code.value})
        if can_help and looks_like_page(next(iter(staged.blocks()), b"")):
            error = VerificationError(ErrorCode.PATH_NOT_FIRMWARE, PAGE_SAID)
        staged.begin("")
        if can_help and self.state.fetches + 1 < self.device.limits.fetch_attempts:
            self._save(states.fetch_again(self.state))
        else:
            self._fail(error.code, str(error))

    def _announce(self) -> None:
        """Install only what the server knows is being installed."""
        if self._reporter.deliver(Status.INSTALLING):
            reach("announce.acknowledged")
            self._save(states.announced(self.state))
        else:
            logger.warning("order dropped", extra={"reason": "closed by the server"})
            self._close()

    def _install(self) -> None:
        manifest = self.state.open_manifest()
        record = ImageRecord(
            version=manifest.version,
            sha256=manifest.sha256,
            size_bytes=manifest.size_bytes,
            sequence=manifest.sequence,
            security_version=manifest.security_version,
        )
        started_at = self.clock.monotonic()
        logger.info("installing", extra={"version": record.version})
        is_held = self._held_file(record.sha256) is not None
        if not is_held and self.state.open_order().source is Source.SLOT:
            self._fail(ErrorCode.IMAGE_NOT_KEPT, "Its bytes in the slot have changed.")
            return
        if not is_held:
            staged = self.staging.open(record.sha256)
            try:
                self.installer.install(staged.blocks(), record)
            except ContentChangedError as error:
                self._judge_bad_bytes(
                    VerificationError(ErrorCode.CHECKSUM_MISMATCH, str(error)), staged
                )
                return
            except InstallLaterError as error:
                self._try_later(error)
                return
            except InstallError as error:
                self._fail(error.code, str(error))
                return
        self._note_duration("install", started_at)
        self._save(
            states.installed(
                self.state,
                boot_id=self.device.boot_id,
                previous_sha256=self._sha256_to_return_to(record.sha256),
            )
        )
        self.staging.clear()

    def _switch(self) -> None:
        order = self.state.open_order()
        is_reboot_due = states.reboot_is_due(self.state, self.device.boot_id)
        if self._is_decided_at_boot() and not is_reboot_due:
            self._look_after_boot()
            return
        if is_reboot_due:
            if self.state.reboot_requests >= self.device.limits.reboot_attempts:
                self._fall_back(ErrorCode.INSTALL_FAILED, "The device does not reboot.")
                return
            self._reporter.post(Status.REBOOTING)
            reach("switch.reported")
        self._supervisor.stop()
        try:
            self.installer.activate(order.firmware.sha256)
        except InstallLaterError as error:
            self._supervisor.start()
            self._try_later(error)
            return
        except InstallError as error:
            self._supervisor.start()
            self._fail(ErrorCode.INSTALL_FAILED, str(error))
            return
        except Exception:
            self._supervisor.start()
            raise
        logger.info("slot switched", extra={"version": order.firmware.version})
        if is_reboot_due:
            self._save(states.reboot_requested(self.state))
            raise RebootRequested
        self._save(states.switched(self.state))

    def _is_decided_at_boot(self) -> bool:
        """Say whether only the boot that follows the switch tells what came of it."""
        return self.installer.switches_at_boot and (
            self.state.open_order().reboot_required
        )

    def _look_after_boot(self) -> None:
        """See which image the boot loader has started."""
        current = self.installer.current()
        if current is not None and (
            current.sha256 == self.state.open_manifest().sha256
        ):
            self._save(states.switched(self.state))
        elif self.state.reboot_requests == 0:
            # The boot came before the switch was noted: it may not have been made.
            self._save(states.switch_again(self.state, self.device.boot_id))
        else:
            self._note_fallen_back(current)

    def _note_fallen_back(self, current: ImageRecord | None) -> None:
        """Take it that the boot loader went back by itself, or that nobody can tell."""
        if current is None:
            code, what = ErrorCode.DEVICE_STATE_UNKNOWN, "an image that is not known"
        else:
            code, what = ErrorCode.DEVICE_FELL_BACK, current.version
        self._fall_back(code, f"The device came up with {what}.")

    def _try_image(self) -> None:
        """Start the new image and see whether it stays alive and works."""
        if self.state.boot_attempts >= self.device.limits.max_boot_attempts:
            self._fall_back(
                ErrorCode.SELF_TEST_FAILED,
                f"The image did not come up in {self.state.boot_attempts} starts.",
            )
            return
        current = self.installer.current()
        if self._is_decided_at_boot() and (
            current is None or current.sha256 != self.state.open_manifest().sha256
        ):
            self._note_fallen_back(current)
            return
        self._save(states.boot_attempted(self.state))
        started_at = self.clock.monotonic()
        problem = self._self_test() or self._confirm()
        if problem:
            self._fall_back(ErrorCode.SELF_TEST_FAILED, problem)
            return
        reach("try.passed")
        logger.info("self test passed")
        self._note_duration("selfTest", started_at)
        self._supervisor.keep()
        self._save(states.passed(self.state))

    def _self_test(self) -> str:
        """Start the image on trial; give what is wrong with it, "" if nothing is."""
        image = self.installer.bootable()
        if image is None or image.record.sha256 != self.state.open_manifest().sha256:
            return "The new slot is damaged."
        logger.info("trying the image", extra={"version": image.record.version})
        try:
            self._supervisor.try_image(image)
        except ApplicationError as error:
            return str(error)
        started_at = self.clock.monotonic()
        alive_at = started_at + self.device.self_test_seconds
        # A slow start is not a failure: the first metrics have a time of their own.
        metrics_at = max(
            alive_at, started_at + self.device.limits.first_metrics_seconds
        )
        while True:
            self.clock.wait(min(TRIAL_LOOK_SECONDS, self.device.self_test_seconds))
            has_reported = self.application.has_reported()
            if not self.application.is_running():
                return self.application.exit_message()
            now = self.clock.monotonic()
            if has_reported and now >= alive_at:
                return self.health_check(image.record)
            if now >= metrics_at:
                return "The application wrote no metrics during its self test."
            # Until the program works there is nothing true to say about it.
            if has_reported:
                self._heart.beat_if_due()
            self._reporter.flush_if_due()
            self.on_tick()

    def _confirm(self) -> str:
        """Keep the image that has passed; give what is wrong, "" if nothing is."""
        try:
            self.installer.confirm(self.state.open_manifest().sha256)
        except InstallError as error:
            return str(error)
        return ""

    def _claim(self) -> None:
        if not self._supervisor.is_running(self.state.open_manifest().sha256):
            # Another image runs now: the new one was damaged, or the boot loader went
            # back by itself, between the self test and this start.
            code = (
                ErrorCode.DEVICE_FELL_BACK
                if self.installer.switches_at_boot
                else ErrorCode.SELF_TEST_FAILED
            )
            self._fail(code, "The new image does not run.")
            return
        if self._reporter.deliver(Status.CONFIRMING):
            logger.info("update claimed")
        else:
            logger.warning("claim refused: the order is closed")
        reach("claim.acknowledged")
        self._close()
        # The proof is in the heartbeats that follow the claim.
        self._heart.beat_soon()

    def _revert(self) -> None:
        self._supervisor.stop()
        try:
            self.installer.revert(self.state.previous_sha256)
        except InstallLaterError as error:
            if self._try_later(error, gives_up=False):
                return
        except InstallError as error:
            logger.error("cannot fall back", extra={"reason": str(error)})
        else:
            logger.warning("switched back to the previous image")
        if (
            self._is_reboot_due_to_revert()
            and self.state.reboot_requests < self.device.limits.reboot_attempts
        ):
            self._save(states.reboot_requested(self.state))
            raise RebootRequested
        self._save(states.fail(self.state))
        self._supervisor.start()
        self._heart.beat_soon()

    def _is_reboot_due_to_revert(self) -> bool:
        if not self.installer.switches_at_boot:
            return states.reboot_is_due(self.state, self.device.boot_id)
        # The boot loader may have gone back by itself, or a boot may have come between.
        current = self.installer.current()
        previous = self.state.previous_sha256
        return bool(previous) and (current is None or current.sha256 != previous)

    def _report_failure(self) -> None:
        self._has_failed = True
        if not self._reporter.deliver(Status.FAILED):
            logger.warning("failure not wanted: the order is closed")
        reach("failure.acknowledged")
        self._close()

    def _try_later(self, error: InstallLaterError, *, gives_up: bool = True) -> bool:
        """Wait before the same phase is tried again; give whether it is worth it."""
        now = self.clock.monotonic()
        if self._later_since is None:
            self._later_since = now
        if now - self._later_since > self.device.limits.hook_patience_seconds:
            self._later_since = None
            if gives_up:
                self._fail(error.code, str(error))
            return False
        logger.warning("left for later", extra={"reason": str(error)})
        self._wait(self._later_backoff.next_seconds())
        return True

    # Ends of an order

    def _fail(self, code: ErrorCode, message: str) -> None:
        logger.error("update failed", extra={"code": code.value, "reason": message})
        self._save(states.fail(self.state, Failure(code, message)))

    def _fall_back(self, code: ErrorCode, message: str) -> None:
        logger.error("falling back", extra={"code": code.value, "reason": message})
        self._supervisor.stop()
        failure = Failure(code, message)
        self._save(states.fall_back(self.state, failure, boot_id=self.device.boot_id))

    def _close(self) -> None:
        self._later_since = None
        self._later_backoff.reset()
        self._save(states.close(self.state))
        self.staging.clear()

    # Reports

    def _on_block(self, held_bytes: int) -> None:
        self._tick()
        due_at = self._progress_at + self.device.limits.progress_seconds
        if self.clock.monotonic() >= due_at:
            self._on_progress(held_bytes)

    def _on_progress(self, held_bytes: int) -> None:
        self._progress_at = self.clock.monotonic()
        self._reporter.post(Status.DOWNLOADING, progress=self._percent(held_bytes))

    def _percent(self, held_bytes: int) -> int:
        return min(100, held_bytes * 100 // self.state.open_order().firmware.size_bytes)

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

    def _save(self, state: AgentState) -> None:
        self._saved.save(state)

    def _note_duration(self, name: str, started_at: float) -> None:
        seconds = self.clock.monotonic() - started_at
        self._saved.note(states.add_duration(self.state, name, seconds))

    def _kept(self) -> ImageRecord | None:
        """Give the image in the other slot, if the device may go back to it.

        It came with the device, or has passed its trial here.
        """
        if not self.installer.reads_other_slot:
            return None
        record = self.installer.previous()
        is_known = record is not None and (
            record.sequence == 0 or record.sha256 in self.state.confirmed_sha256s
        )
        return record if is_known else None

    def _kept_sha256(self) -> str | None:
        """Give the digest of that image for heartbeats; see `Heart`."""
        if not self.installer.reads_other_slot:
            return None
        kept = self._kept()
        return kept.sha256 if kept else ""

    def _held_file(self, sha256: str) -> Path | None:
        """Give the file of an undamaged image with this digest from a slot."""
        for record, check in (
            (self.installer.current(), self.installer.bootable),
            (self.installer.previous(), self.installer.previous_image),
        ):
            if record is not None and record.sha256 == sha256:
                image = check()
                return image.path if image else None
        return None

    def _sha256_to_return_to(self, sha256: str) -> str:
        """Give the image that a failed trial of another one goes back to."""
        for record in (self.installer.current(), self.installer.previous()):
            if record is not None and record.sha256 != sha256:
                return record.sha256
        return ""

    def _new_backoff(self) -> Backoff:
        limits = self.device.limits
        return Backoff(
            limits.retry_first_seconds, limits.retry_ceiling_seconds, self.random
        )
