"""Notice that periodic work has stopped though its programs live, and start them anew.

Rules:
- Whether work is done is read from the database: a frozen process is no dead one, and
  a worker that has lost its broker for good looks busy.
- The row of the tick is written anew by each; the time in it stands still where a
  clock was set back, or another host's is ahead.
- Only what was seen to stand still counts: not the time in which the database did not
  answer, in which a program was away, or in which this process itself was frozen. No
  two machines' clocks are compared.
- A program has time to come to its first tick, each time twice as long: on a slow or
  busy machine starting it anew would only begin the same start once more.
- A tick that an administrator has switched off is not missed.
"""

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from hotswap.common.postgresql.network import NOTICED
from hotswap.stack.processes import Supervisor

LOOK_SECONDS = 2.0
# After such a gap the clocks that measure devices begin anew, too.
STUCK_SECONDS = 30.0
# What a program may take to its first tick, at first and at most.
START_SECONDS = 60.0
MAX_START_SECONDS = 960.0
TICKING = ("worker", "beat")
_LAST_TICK = """
    SELECT clock.xmin::text
    FROM common_jobrun clock
    JOIN django_celery_beat_periodictask task ON task.name = clock.name
    WHERE clock.name = 'deployments-tick' AND task.enabled
"""


def last_tick(database_url: str) -> Any:
    """Return a mark that changes with every tick; None if it cannot be told."""
    # Not needed before the stack runs, and slow to import.
    import psycopg
    from psycopg.conninfo import make_conninfo

    try:
        patient = make_conninfo(database_url, **NOTICED)
        with psycopg.connect(patient, connect_timeout=2) as connection:
            row = connection.execute(_LAST_TICK).fetchone()
    except psycopg.Error:
        return None
    return row[0] if row else None


@dataclass(slots=True)
class StallDetector:
    """Counts for how long no tick was seen while the programs were there.

    Attributes:
        start_seconds: what the programs may take to their first tick.
    """

    stuck_seconds: float = STUCK_SECONDS
    start_seconds: float = START_SECONDS
    _before: Any = field(init=False, default=None)
    _seconds: float = field(init=False, default=0.0)
    _grace_seconds: float = field(init=False)

    def __post_init__(self) -> None:
        self._begin_anew()

    def is_too_long(self, tick: Any, is_there: bool, look_seconds: float) -> bool:
        """Take note of one look, and say whether to start the programs again.

        Args:
            tick: a mark that changes with every tick, None if it cannot be told.
            is_there: whether the programs run.
            look_seconds: since the last look.
        """
        if tick is None or not is_there:
            self._before = None
            self._seconds = min(self._seconds, -self._grace_seconds)
        elif self._before is None:
            # That of an earlier start, or of this one: nobody can tell.
            self._before = tick
        elif tick != self._before:
            self._before = tick
            self._begin_anew()
            self._seconds = 0.0
        else:
            self._seconds += look_seconds
        if self._seconds < self.stuck_seconds:
            return False
        self._grace_seconds = min(MAX_START_SECONDS, 2 * self._grace_seconds)
        self._seconds = -self._grace_seconds
        return True

    def _begin_anew(self) -> None:
        self._grace_seconds = self.start_seconds
        self._seconds = -self.start_seconds


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
        start_seconds: float = START_SECONDS,
    ) -> None:
        self._supervisor = supervisor
        self._read = read
        self._on_event = on_event or (lambda _: None)
        self._look_seconds = look_seconds
        self._stall = StallDetector(stuck_seconds, start_seconds)
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
        while not self._over.wait(self._look_seconds):
            is_too_long = self._stall.is_too_long(
                self._read(), self._supervisor.is_ready(*TICKING), self._look_seconds
            )
            if is_too_long and not self._over.is_set():
                self._on_event(
                    f"no tick for {self._stall.stuck_seconds:.0f} s: worker and beat "
                    "are started again"
                )
                for name in TICKING:
                    self._supervisor.replace(name)
