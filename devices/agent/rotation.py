"""Renew the device's key before it ends.

Rules:
- Renewal begins when less than `rotate_key_before_seconds` are left, spread by device
  over the first seventh of that time, so that a fleet does not renew in step.
- Where even new keys have less than that, one is renewed at half of its life.
- What is left is counted from the server's own clock: a device's may be years off.
- There is room for the new key before one is asked for, and it is saved before it is
  tried; see `credentials`.
"""

import hashlib
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from devices.agent.backoff import Backoff
from devices.agent.crashpoints import reach
from devices.agent.credentials import KeyFile
from devices.agent.transport import TransportError

logger = logging.getLogger(__name__)

SPREAD_RATIO = 1 / 7


class KeyCalls(Protocol):
    """What renewing a key needs of the server; see `HttpTransport`."""

    def ask_for_key(self) -> str:
        """Have a new key made and give it."""

    def log_in(self) -> None:
        """Log in anew with the keys at hand."""


@dataclass(slots=True)
class KeyRotation:
    """Renews the key when its end comes near."""

    keys: KeyFile
    server: KeyCalls
    device_id: str
    before_seconds: float
    backoff: Backoff
    monotonic: Callable[[], float] = time.monotonic
    _due_at: float = field(init=False, default=0.0)

    def is_due(self) -> bool:
        """Say whether the key shall be renewed now."""
        remaining = self.keys.remaining_seconds()
        if remaining is None or self.monotonic() < self._due_at:
            return False
        return remaining < self.before_seconds * (1 - SPREAD_RATIO * self._share())

    def rotate_if_due(self) -> None:
        """Renew the key if it is time; what fails is tried again later."""
        if not self.is_due():
            return
        try:
            if not self.keys.has_next():
                self.keys.make_room()
                key = self.server.ask_for_key()
                reach("rotate.answered")
                self.keys.keep_next(key)
            self.server.log_in()
        except (OSError, TransportError) as error:
            wait = self.backoff.next_seconds(
                getattr(error, "retry_after_seconds", None)
            )
            self._due_at = self.monotonic() + wait
            logger.error(
                "API key not renewed",
                extra={"reason": str(error), "retry_seconds": round(wait, 1)},
            )
        else:
            self.backoff.reset()
            if self.is_due():
                # Else each poll would bring another key.
                remaining = self.keys.remaining_seconds() or 0.0
                self._due_at = self.monotonic() + max(0.0, remaining / 2)

    def _share(self) -> float:
        """Give this device's place in the spread, 0 to 1, always the same."""
        digest = hashlib.sha256(self.device_id.encode()).digest()
        return int.from_bytes(digest[:4], "big") / 2**32
