"""Try a new image: first boot, self test, claim, or the way back.

Rules:
- The application is started only from an image whose digest was checked just before.
- Where the boot loader switches, only the boot that follows tells what came of it.
"""

import logging

from devices.agent import states
from devices.agent.application import ApplicationError
from devices.agent.boot import Phases, RebootRequested
from devices.agent.crashpoints import reach
from devices.agent.installer import ImageRecord, InstallError, InstallLaterError
from devices.agent.protocol import ErrorCode, Status

logger = logging.getLogger(__name__)

TRIAL_LOOK_SECONDS = 0.1


class Trial(Phases):
    """The phases of a new image from its first start to its claim, or back."""

    __slots__ = ()

    def is_decided_at_boot(self) -> bool:
        """Say whether only the boot that follows the switch tells what came of it."""
        return self.installer.switches_at_boot and (
            self.state.open_order().reboot_required
        )

    def look_after_boot(self) -> None:
        """See which image the boot loader has started."""
        current = self.installer.current()
        if current is not None and (
            current.sha256 == self.state.open_manifest().sha256
        ):
            self.boot.save(states.switched(self.state))
        elif self.state.reboot_requests == 0:
            # The boot came before the switch was noted: it may not have been made.
            self.boot.save(states.switch_again(self.state, self.device.boot_id))
        else:
            self._note_fallen_back(current)

    def _note_fallen_back(self, current: ImageRecord | None) -> None:
        """Take it that the boot loader went back by itself, or that nobody can tell."""
        if current is None:
            code, what = ErrorCode.DEVICE_STATE_UNKNOWN, "an image that is not known"
        else:
            code, what = ErrorCode.DEVICE_FELL_BACK, current.version
        self.boot.fall_back(code, f"The device came up with {what}.")

    def try_image(self) -> None:
        """Start the new image and see whether it stays alive and works."""
        if self.state.boot_attempts >= self.device.limits.max_boot_attempts:
            self.boot.fall_back(
                ErrorCode.SELF_TEST_FAILED,
                f"The image did not come up in {self.state.boot_attempts} starts.",
            )
            return
        current = self.installer.current()
        if self.is_decided_at_boot() and (
            current is None or current.sha256 != self.state.open_manifest().sha256
        ):
            self._note_fallen_back(current)
            return
        state = states.came_up(self.state, self.ports.clock.now())
        self.boot.save(states.boot_attempted(state))
        started_at = self.ports.clock.monotonic()
        problem = self._self_test() or self._confirm()
        if problem:
            self.boot.fall_back(ErrorCode.SELF_TEST_FAILED, problem)
            return
        reach("try.passed")
        logger.info("self test passed")
        self.boot.note_duration("selfTest", started_at)
        self.boot.supervisor.keep()
        self.boot.save(states.passed(self.state))

    def _self_test(self) -> str:
        """Start the image on trial; give what is wrong with it, "" if nothing is."""
        image = self.installer.bootable()
        if image is None or image.record.sha256 != self.state.open_manifest().sha256:
            return "The new slot is damaged."
        logger.info("trying the image", extra={"version": image.record.version})
        try:
            self.boot.supervisor.try_image(image)
        except ApplicationError as error:
            return str(error)
        started_at = self.ports.clock.monotonic()
        alive_at = started_at + self.device.self_test_seconds
        # A slow start is not a failure: the first metrics have a time of their own.
        metrics_at = max(
            alive_at, started_at + self.device.limits.first_metrics_seconds
        )
        while True:
            self.ports.clock.wait(
                min(TRIAL_LOOK_SECONDS, self.device.self_test_seconds)
            )
            has_reported = self.ports.application.has_reported()
            if not self.ports.application.is_running():
                return self.ports.application.exit_message()
            now = self.ports.clock.monotonic()
            if has_reported and now >= alive_at:
                return self.ports.health_check(image.record)
            if now >= metrics_at:
                return "The application wrote no metrics during its self test."
            # Until the program works there is nothing true to say about it.
            if has_reported:
                self.boot.heart.beat_if_due()
            self.boot.reporter.flush_if_due()
            self.ports.on_tick()

    def _confirm(self) -> str:
        """Keep the image that has passed; give what is wrong, "" if nothing is."""
        try:
            self.installer.confirm(self.state.open_manifest().sha256)
        except InstallError as error:
            return str(error)
        return ""

    def claim(self) -> None:
        """Tell the server that the image is installed; its heartbeats prove it."""
        if not self.boot.supervisor.is_running(self.state.open_manifest().sha256):
            # Another image runs now: the new one was damaged, or the boot loader went
            # back by itself, between the self test and this start.
            code = (
                ErrorCode.DEVICE_FELL_BACK
                if self.installer.switches_at_boot
                else ErrorCode.SELF_TEST_FAILED
            )
            self.boot.fail(code, "The new image does not run.")
            return
        self.boot.send_spans()
        if self.boot.reporter.deliver(Status.CONFIRMING):
            logger.info("update claimed")
        else:
            logger.warning("claim refused: the order is closed")
        reach("claim.acknowledged")
        self.boot.close()
        # The proof is in the heartbeats that follow the claim.
        self.boot.heart.beat_soon()

    def revert(self) -> None:
        """Go back to the image of before."""
        self.boot.supervisor.stop()
        try:
            self.installer.revert(self.state.previous_sha256)
        except InstallLaterError as error:
            if self.boot.try_later(error, gives_up=False):
                return
        except InstallError as error:
            logger.error("cannot fall back", extra={"reason": str(error)})
        else:
            logger.warning("switched back to the previous image")
        if (
            self._is_reboot_due_to_revert()
            and self.state.reboot_requests < self.device.limits.reboot_attempts
        ):
            self.boot.save(states.reboot_requested(self.state, self.ports.clock.now()))
            raise RebootRequested
        self.boot.save(states.fail(self.state))
        self.boot.supervisor.start()
        self.boot.heart.beat_soon()

    def _is_reboot_due_to_revert(self) -> bool:
        if not self.installer.switches_at_boot:
            return states.reboot_is_due(self.state, self.device.boot_id)
        # The boot loader may have gone back by itself, or a boot may have come between.
        current = self.installer.current()
        previous = self.state.previous_sha256
        return bool(previous) and (current is None or current.sha256 != previous)
