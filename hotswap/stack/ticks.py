"""Notice that periodic work has stopped though its programs live, and start them anew.

Rules:
- Whether work is done is read from the database: a frozen process is no dead one, and
  a worker that has lost its broker for good looks busy.
- Only what was seen to stand still counts: not the time in which the database did not
  answer, in which a program was away, or in which this process itself was frozen. No
  two machines' clocks are compared.
- A tick that an administrator has switched off is not missed.
"""

import threading
from collections.abc import Callable
from typing import Any

from hotswap.stack.processes import Supervisor

LOOK_SECONDS = 2.0
# After such a gap the clocks that measure devices begin anew, too.
STUCK_SECONDS = 30.0
# What a program may take to its first tick after it was started again.
START_SECONDS = 30.0
TICKING = ("worker", "beat")
_LAST_TICK = """
    SELECT clock.last_run_at
    FROM common_clock clock
    JOIN django_celery_beat_periodictask task ON task.name = clock.name
    WHERE clock.name = 'deployments-tick' AND task.enabled
"""


def last_tick(database_url: str) -> Any:
    """Return when the last tick began; None if that cannot be told."""
    # Not needed before the stack runs, and slow to import.
    import psycopg

    try:
        with psycopg.connect(database_url, connect_timeout=2) as connection:
            row = connection.execute(_LAST_TICK).fetchone()
    except psycopg.Error:
        return None
    return row[0] if row else None


class TickWatch:
    """Looks at the ticks from a thread of its own.

    Args:
        supervisor: runs `worker` and `beat`.
        read: gives a mark that changes with every tick, or None if it cannot tell.
        on_event: told when programs are started again.
    """

    def __init__(
        self,
        supervisor: Supervisor,
        *,
        read: Callable[[], Any],
        on_event: Callable[[str], None] | None = None,
        look_seconds: float = LOOK_SECONDS,
        stuck_seconds: float = STUCK_SECONDS,
    ) -> None:
        self._supervisor = supervisor
        self._read = read
        self._on_event = on_event or (lambda _: None)
        self._look_seconds = look_seconds
        self._stuck_seconds = stuck_seconds
        self._over = threading.Event()
        self._thread = threading.Thread(
            target=self._run, name="hotswap-ticks", daemon=True
        )

    def start(self) -> None:
        """Begin in the background."""
        self._thread.start()

    def stop(self) -> None:
        """Look no more; a look that has begun does nothing any more."""
        self._over.set()

    def _run(self) -> None:
        before: Any = None
        silent_seconds = 0.0
        while not self._over.wait(self._look_seconds):
            tick = self._read()
            if tick is None or not self._supervisor.is_ready(*TICKING):
                before, silent_seconds = None, min(silent_seconds, 0.0)
            elif tick != before:
                before, silent_seconds = tick, 0.0
            else:
                silent_seconds += self._look_seconds
            if silent_seconds >= self._stuck_seconds and not self._over.is_set():
                self._on_event(
                    f"no tick for {self._stuck_seconds:.0f} s: worker and beat are "
                    "started again"
                )
                for name in TICKING:
                    self._supervisor.replace(name)
                silent_seconds = -START_SECONDS
