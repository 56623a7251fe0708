"""Work off an order: accept, download, verify, announce, install, switch.

Rules:
- An order is judged by what it is signed with before anything of it is fetched.
- Only what the server knows is being installed is installed.
"""

import logging
from dataclasses import dataclass, field
from pathlib import Path

from devices.agent import states
from devices.agent.boot import Phases, RebootRequested
from devices.agent.crashpoints import reach
from devices.agent.download import (
    PAGE_MESSAGE,
    Downloader,
    DownloadError,
    Pace,
    StagedImage,
)
from devices.agent.files import read_blocks
from devices.agent.installer import (
    ContentChangedError,
    ImageRecord,
    InstallError,
    InstallLaterError,
)
from devices.agent.protocol import Action, ErrorCode, Order, Source, Status
from devices.agent.states import Failure
from devices.agent.transport import looks_like_page
from devices.agent.trial import Trial
from devices.agent.verify import (
    Manifest,
    VerificationError,
    check_image,
    check_manifest,
    check_slot_return,
)

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class OrderRun(Phases):
    """The phases of an order from its acceptance to the switch, and its failure."""

    trial: Trial
    _progress_at: float = field(init=False, default=0.0)

    def consider(self, order: Order) -> None:
        """Take an order or refuse it, by what it is signed with."""
        if order.update_id == self.state.last_closed_update_id:
            return
        self.boot.name_order(order)
        logger.info("order received", extra={"action": order.action.value})
        try:
            manifest = self._judge(order)
        except VerificationError as error:
            logger.error(
                "order refused", extra={"code": error.code.value, "reason": str(error)}
            )
            failure = Failure(error.code, str(error))
            self.boot.save(states.refuse(self.state, order, failure))
            return
        if self.installer.switches_at_boot and self.installer.current() is None:
            # A fall back from here could not be told from a success.
            failure = Failure(
                ErrorCode.DEVICE_STATE_UNKNOWN, "It is not known what runs now."
            )
            self.boot.save(states.refuse(self.state, order, failure))
            return
        logger.info("manifest accepted", extra={"sequence": manifest.sequence})
        self.ports.staging.clear(keep_sha256=manifest.sha256)
        # Coming back to what runs needs no reboot; installing it anew is proved by one.
        is_fulfilled = self.boot.supervisor.is_running(manifest.sha256) and (
            order.action is Action.ROLLBACK or not order.reboot_required
        )
        if is_fulfilled:
            self.boot.save(states.claim_at_once(self.state, order, manifest))
        else:
            self.boot.save(states.accept(self.state, order, manifest))

    def _judge(self, order: Order) -> Manifest:
        """Check what an order is signed with; see `verify`."""
        if order.source is Source.SLOT:
            running = self.installer.current()
            return check_slot_return(
                order,
                keys=self.ports.keys,
                device_id=self.device.device_id,
                model=self.device.model,
                floor=self.state.floor,
                kept=[each for each in (running, self.boot.kept()) if each is not None],
            )
        return check_manifest(
            order,
            keys=self.ports.keys,
            model=self.device.model,
            floor=self.state.floor,
            max_image_bytes=self.device.limits.max_image_bytes,
        )

    def download(self) -> None:
        """Fetch the image, unless a slot holds it already."""
        order = self.state.open_order()
        if self._held_file(order.firmware.sha256) is not None:
            logger.info("image is already in a slot")
            self.boot.save(states.downloaded(self.state))
            return
        if order.source is Source.SLOT:
            self.boot.fail(
                ErrorCode.IMAGE_NOT_KEPT, "Its bytes in the slot have changed."
            )
            return
        staged = self.ports.staging.open(order.firmware.sha256)
        logger.info(
            "downloading",
            extra={
                "from_byte": staged.length_bytes(),
                "size_bytes": order.firmware.size_bytes,
            },
        )
        self._on_progress(staged.length_bytes())
        started_at = self.ports.clock.monotonic()
        limits = self.device.limits
        downloader = Downloader(
            transport=self.ports.transport,
            chunk_bytes=limits.chunk_bytes,
            patience_seconds=limits.download_patience_seconds,
            path_patience_seconds=limits.path_patience_seconds,
            backoff=self.boot.new_backoff(),
            wait=self.boot.wait,
            on_block=self._on_block,
            on_retry=self._on_progress,
            server_answered_at=lambda: self.boot.heart.answered_at,
            pace=Pace(
                max_bytes_per_second=limits.max_bytes_per_second,
                min_bytes_per_second=limits.min_bytes_per_second,
                window_seconds=limits.min_rate_window_seconds,
            ),
            monotonic=self.ports.clock.monotonic,
        )
        try:
            downloader.fetch(order, staged)
        except DownloadError as error:
            self.boot.fail(error.code, str(error))
            return
        self.boot.note_duration("download", started_at)
        self.boot.save(states.downloaded(self.state))

    def verify(self) -> None:
        """Check the image against its order, whole."""
        order = self.state.open_order()
        self.boot.reporter.post(Status.VERIFYING)
        started_at = self.ports.clock.monotonic()
        held = self._held_file(order.firmware.sha256)
        staged = self.ports.staging.open(order.firmware.sha256)
        try:
            if order.source is Source.DOWNLOAD:
                blocks = read_blocks(held) if held else staged.blocks()
                check_image(blocks, order, self.ports.keys)
            elif held is None:
                raise VerificationError(
                    ErrorCode.IMAGE_NOT_KEPT, "Its bytes in the slot have changed."
                )
        except VerificationError as error:
            self._judge_bad_bytes(error, staged)
            return
        reach("verify.checked")
        logger.info("image verified", extra={"sha256": order.firmware.sha256})
        self.boot.note_duration("verify", started_at)
        self.boot.save(states.verified(self.state))

    def _judge_bad_bytes(self, error: VerificationError, staged: StagedImage) -> None:
        """Fetch again where that can help, else give up the order."""
        # A signature over the right bytes does not get better by fetching again.
        can_help = error.code in {ErrorCode.CHECKSUM_MISMATCH, ErrorCode.SIZE_MISMATCH}
        logger.error("image refused", extra={"code": error.code.value})
        if can_help and looks_like_page(next(iter(staged.blocks()), b"")):
            error = VerificationError(ErrorCode.PATH_NOT_FIRMWARE, PAGE_MESSAGE)
        staged.begin("")
        if can_help and self.state.fetches + 1 < self.device.limits.fetch_attempts:
            self.boot.save(states.fetch_again(self.state))
        else:
            self.boot.fail(error.code, str(error))

    def announce(self) -> None:
        """Install only what the server knows is being installed."""
        if self.boot.reporter.deliver(Status.INSTALLING):
            reach("announce.acknowledged")
            self.boot.save(states.announced(self.state))
        else:
            logger.warning("order dropped", extra={"reason": "closed by the server"})
            self.boot.close()

    def install(self) -> None:
        """Put the image into the slot that does not run."""
        manifest = self.state.open_manifest()
        record = ImageRecord(
            version=manifest.version,
            sha256=manifest.sha256,
            size_bytes=manifest.size_bytes,
            sequence=manifest.sequence,
            security_version=manifest.security_version,
        )
        started_at = self.ports.clock.monotonic()
        logger.info("installing", extra={"version": record.version})
        is_held = self._held_file(record.sha256) is not None
        if not is_held and self.state.open_order().source is Source.SLOT:
            self.boot.fail(
                ErrorCode.IMAGE_NOT_KEPT, "Its bytes in the slot have changed."
            )
            return
        if not is_held:
            staged = self.ports.staging.open(record.sha256)
            try:
                self.installer.install(staged.blocks(), record)
            except ContentChangedError as error:
                self._judge_bad_bytes(
                    VerificationError(ErrorCode.CHECKSUM_MISMATCH, str(error)), staged
                )
                return
            except InstallLaterError as error:
                self.boot.try_later(error)
                return
            except InstallError as error:
                self.boot.fail(error.code, str(error))
                return
        self.boot.note_duration("install", started_at)
        self.boot.save(
            states.installed(
                self.state,
                boot_id=self.device.boot_id,
                previous_sha256=self._sha256_to_return_to(record.sha256),
            )
        )
        self.ports.staging.clear()

    def switch(self) -> None:
        """Make the new image the one that starts next."""
        order = self.state.open_order()
        is_reboot_due = states.reboot_is_due(self.state, self.device.boot_id)
        if self.trial.is_decided_at_boot() and not is_reboot_due:
            self.trial.look_after_boot()
            return
        if is_reboot_due:
            if self.state.reboot_requests >= self.device.limits.reboot_attempts:
                self.boot.fall_back(
                    ErrorCode.INSTALL_FAILED, "The device does not reboot."
                )
                return
            self.boot.reporter.post(Status.REBOOTING)
            reach("switch.reported")
        self.boot.supervisor.stop()
        try:
            self.installer.activate(order.firmware.sha256)
        except InstallLaterError as error:
            self.boot.supervisor.start()
            self.boot.try_later(error)
            return
        except InstallError as error:
            self.boot.supervisor.start()
            self.boot.fail(ErrorCode.INSTALL_FAILED, str(error))
            return
        except Exception:
            self.boot.supervisor.start()
            raise
        logger.info("slot switched", extra={"version": order.firmware.version})
        if is_reboot_due:
            self.boot.save(states.reboot_requested(self.state, self.ports.clock.now()))
            raise RebootRequested
        self.boot.save(states.switched(self.state))

    def report_failure(self) -> None:
        """Tell the server why the order has failed, and let go of it."""
        self.boot.has_failed = True
        self.boot.send_spans()
        if not self.boot.reporter.deliver(Status.FAILED):
            logger.warning("failure not wanted: the order is closed")
        reach("failure.acknowledged")
        self.boot.close()

    def _on_block(self, held_bytes: int) -> None:
        self.boot.tick()
        due_at = self._progress_at + self.device.limits.progress_seconds
        if self.ports.clock.monotonic() >= due_at:
            self._on_progress(held_bytes)

    def _on_progress(self, held_bytes: int) -> None:
        self._progress_at = self.ports.clock.monotonic()
        self.boot.reporter.post(Status.DOWNLOADING, progress=self._percent(held_bytes))

    def _percent(self, held_bytes: int) -> int:
        return min(100, held_bytes * 100 // self.state.open_order().firmware.size_bytes)

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
