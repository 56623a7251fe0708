"""Tell systemd that the agent is up and alive (sd_notify), if systemd wants to know."""

import logging
import os
import socket
import time
from dataclasses import dataclass, field

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class Notifier:
    """Speaks to the socket that `NOTIFY_SOCKET` names; without one it says nothing.

    The first sign of life says READY as well. Signs of life go out at most as often as
    the watchdog needs them: four times in its interval.
    """

    address: str = field(default_factory=lambda: os.environ.get("NOTIFY_SOCKET", ""))
    watchdog_seconds: float = field(default_factory=lambda: _watchdog_seconds())
    _is_ready: bool = field(init=False, default=False)
    _due_at: float = field(init=False, default=0.0)

    def alive(self) -> None:
        """Give a sign of life, if one is due."""
        if not self.address:
            return
        now = time.monotonic()
        if not self._is_ready:
            self._is_ready = True
            self._send("READY=1")
        if self.watchdog_seconds and now >= self._due_at:
            self._due_at = now + self.watchdog_seconds / 4
            self._send("WATCHDOG=1")

    def stopping(self) -> None:
        """Say that the agent ends as it was told."""
        if self.address:
            self._send("STOPPING=1")

    def _send(self, message: str) -> None:
        # "@" stands for the zero byte of an abstract address.
        address = self.address
        if address.startswith("@"):
            address = "\0" + address[1:]
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as unix:
                unix.settimeout(1.0)
                unix.connect(address)
                unix.send(message.encode())
        except OSError as error:
            logger.warning("systemd not told", extra={"reason": str(error)})


def _watchdog_seconds() -> float:
    """Give the interval of the watchdog, 0 for none or for another process."""
    if os.environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return 0.0
    microseconds = os.environ.get("WATCHDOG_USEC", "")
    return int(microseconds) / 1e6 if microseconds.isdigit() else 0.0
