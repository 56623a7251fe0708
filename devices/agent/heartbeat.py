"""Tell the server that the device lives, and how well.

Rules:
- The interval is the server's; without an answer it backs off.
- What runs is what is reported: version and SHA-256 are those of the image that was
  checked and started, not those that were ordered.
- An application that is not running, or that hangs and writes no metrics any more,
  fails at all of its work: its error rate is 1.
- Which image is kept beside the running one is said once, and again when it changes.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from devices.agent.application import Application
from devices.agent.backoff import Backoff
from devices.agent.clock import Clock
from devices.agent.installer import UNKNOWN_IMAGE, ImageRecord
from devices.agent.secure_boot import SecureBoot
from devices.agent.transport import (
    RefusedError,
    Transport,
    UnavailableError,
    is_login_refusal,
)

logger = logging.getLogger(__name__)

MIN_INTERVAL_SECONDS = 0.2
MAX_INTERVAL_SECONDS = 3600.0


@dataclass(slots=True)
class Heart:
    """Sends heartbeats when they are due.

    Attributes:
        running: gives the image that was started last, None if none could be.
        kept_sha256: gives the digest of the image that the device can go back to by
            itself, "" if there is none, None if it never can.
        update_is_available: set by an answer, cleared by whoever polls.
        is_connected: the server has answered since the start.
        answered_at: when the server answered the last one, by the monotonic clock;
            None if it did not.
        is_refused: the last answer was that the device may not come in.
    """

    transport: Transport
    application: Application
    clock: Clock
    boot_id: str
    interval_seconds: float
    stale_metrics_seconds: float
    backoff: Backoff
    running: Callable[[], ImageRecord | None]
    restarts: Callable[[], int]
    uptime_seconds: Callable[[], float]
    kept_sha256: Callable[[], str | None] = lambda: None
    secure_boot: SecureBoot = "unknown"
    update_is_available: bool = False
    is_connected: bool = False
    answered_at: float | None = None
    is_refused: bool = False
    _due_at: float = field(init=False, default=0.0)
    _reported_kept: str | None = field(init=False, default=None)

    def seconds_until_due(self) -> float:
        """Say how long until the next heartbeat, 0 or more."""
        return max(0.0, self._due_at - self.clock.monotonic())

    def beat_soon(self) -> None:
        """Make the next heartbeat due at once."""
        self._due_at = 0.0

    def beat_if_due(self) -> None:
        """Send a heartbeat if its time has come; a failure only moves the next."""
        if self.seconds_until_due() > 0:
            return
        # Should the agent itself fail at it, the next one is not due at once.
        self._due_at = self.clock.monotonic() + self.interval_seconds
        try:
            kept = self.kept_sha256()
            answer = self.transport.send_heartbeat(self._heartbeat(kept))
        except (UnavailableError, RefusedError) as error:
            retry_after = getattr(error, "retry_after_seconds", None)
            self.is_refused = is_login_refusal(error)
            self.answered_at = None
            if isinstance(error, RefusedError) and not self.is_refused:
                # It was heard, if not understood: that must not keep an order away.
                self.is_connected = True
            wait = self.backoff.next_seconds(retry_after)
            self._due_at = self.clock.monotonic() + wait
            logger.warning(
                "heartbeat failed",
                extra={"reason": str(error), "retry_seconds": round(wait, 1)},
            )
            return
        self._reported_kept = kept
        self.backoff.reset()
        self.is_refused = False
        self.answered_at = self.clock.monotonic()
        if answer.next_heartbeat_seconds is not None:
            self.interval_seconds = min(
                MAX_INTERVAL_SECONDS,
                max(MIN_INTERVAL_SECONDS, answer.next_heartbeat_seconds),
            )
        self._due_at = self.clock.monotonic() + self.interval_seconds
        if not self.is_connected:
            logger.info("server heard the device", extra={"boot_id": self.boot_id})
        self.is_connected = True
        if answer.update_available:
            self.update_is_available = True

    def _heartbeat(self, kept: str | None) -> dict[str, Any]:
        image = self.running() or UNKNOWN_IMAGE
        is_running = self.application.is_running()
        seen = self.application.measure()
        metrics: dict[str, float] = dict(seen.metrics)
        age = seen.metrics_age_seconds
        hangs = age is not None and age > self.stale_metrics_seconds
        if hangs or not is_running:
            metrics["errorRate"] = 1.0
        if self.application.is_own:
            metrics["applicationRunning"] = int(is_running)
            metrics["applicationRestarts"] = self.restarts()
        if age is not None:
            metrics["metricsAgeSeconds"] = age
        news = (
            {} if kept in (None, self._reported_kept) else {"otherSlotChecksum": kept}
        )
        return {
            **news,
            **seen.measures,
            "uptime": int(self.uptime_seconds()),
            "bootId": self.boot_id,
            "firmwareVersion": image.version,
            "firmwareChecksum": image.sha256,
            "applicationMetrics": metrics,
            "secureBoot": self.secure_boot,
        }
