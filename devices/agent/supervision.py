"""Keep the application running from an image that was checked just before."""

import logging
from dataclasses import dataclass, field

from devices.agent.application import Application, ApplicationError
from devices.agent.backoff import Backoff
from devices.agent.clock import Clock
from devices.agent.installer import Image, ImageRecord, Installer

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class Supervisor:
    """Starts the application, and starts it again when it ends by itself.

    Attributes:
        running: the image that was started last, None if none could be.
        restarts: how often the application had to be started again.
    """

    application: Application
    installer: Installer
    clock: Clock
    backoff: Backoff
    running: ImageRecord | None = field(init=False, default=None)
    restarts: int = field(init=False, default=0)
    _is_watching: bool = field(init=False, default=False)
    _restart_at: float | None = field(init=False, default=None)

    def is_running(self, sha256: str) -> bool:
        """Say whether the image with this digest was started last."""
        return self.running is not None and self.running.sha256 == sha256

    def start(self) -> None:
        """Start the current image or, if it is damaged, the other one."""
        self._restart_at = None
        image = self.installer.bootable() or self.installer.recover()
        if image is None:
            # The agent stays: an update is the only way out.
            logger.error("no application runs until an update brings an image")
            self.running = None
            return
        try:
            self.application.start(image)
        except ApplicationError as error:
            logger.error("application not started", extra={"reason": str(error)})
        else:
            logger.info("application started", extra={"version": image.record.version})
        self.running = image.record
        self._is_watching = True

    def try_image(self, image: Image) -> None:
        """Start an image on trial, which is not started again if it ends.

        Raises:
            ApplicationError: it could not be started at all.
        """
        self.application.start(image)
        self.running = image.record

    def keep(self) -> None:
        """Watch over the image that has passed its trial."""
        self._is_watching = True

    def stop(self) -> None:
        """End the application and leave it ended."""
        self._is_watching = False
        self.application.stop()

    def tick(self) -> None:
        """Restart an application that has ended by itself, ever more slowly."""
        self.application.look()
        if not self._is_watching or self.application.is_running():
            return
        now = self.clock.monotonic()
        if self._restart_at is None:
            wait = self.backoff.next_seconds()
            self._restart_at = now + wait
            logger.error(
                "application ended",
                extra={
                    "reason": self.application.exit_message(),
                    "restart_seconds": round(wait, 1),
                },
            )
        elif now >= self._restart_at:
            self.restarts += 1
            self.start()
