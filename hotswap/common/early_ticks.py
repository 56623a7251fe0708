"""Ticks before their time, asked for where something may be due at once.

It is a hint and no more: beat asks for a tick every second whatever happens, and a tick
finds out by itself what is due (docs/decisions/0004-level-triggered-ticks.md). A hint
that is lost, as without Redis, costs up to that second.
"""

import logging
import threading
import time
from typing import Final

from celery import current_app
from django.conf import settings
from django.db import transaction

logger = logging.getLogger(__name__)

# Of all that is asked for within that time, one task is sent.
PAUSE_SECONDS: Final = 0.1
EXPIRES_SECONDS: Final = 2


class EarlyTicks:
    """Sends the hints of one process, from a thread of its own: nobody waits for Redis.

    What is asked for while a task is being sent or a pause lasts is sent after it.
    """

    def __init__(self) -> None:
        self._wanted = threading.Event()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def ask(self) -> None:
        """Ask for a tick; returns at once."""
        self._wanted.set()
        # A process that was forked has the object, and not the thread.
        if self._thread is None or not self._thread.is_alive():
            self._start()

    def _start(self) -> None:
        with self._lock:
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(
                    target=self._send_all, name="early-ticks", daemon=True
                )
                self._thread.start()

    def _send_all(self) -> None:
        while self._wanted.wait():
            self._wanted.clear()
            try:
                current_app.send_task(
                    settings.EARLY_TICK_TASK,
                    retry=False,
                    ignore_result=True,
                    expires=EXPIRES_SECONDS,
                )
            except Exception as error:  # noqa: BLE001 - it is a hint
                logger.info("No early tick", extra={"reason": str(error)})
            time.sleep(PAUSE_SECONDS)


_early_ticks: Final = EarlyTicks()


def ask_for_tick() -> None:
    """Say that deployments may have something to do, of what is committed."""
    if settings.EARLY_TICKS:
        _early_ticks.ask()


def ask_for_tick_on_commit() -> None:
    """Say so once this transaction is committed; at once outside of one."""
    transaction.on_commit(ask_for_tick, robust=True)
