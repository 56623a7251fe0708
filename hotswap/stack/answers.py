"""Notice that a server lives and answers nobody, and start it anew.

Rules:
- Frozen is who does not answer and uses no CPU meanwhile. Who is only slow uses some,
  and would be as slow after another start.
- The time in which this process itself was frozen does not count.
"""

import contextlib
import http.client
import socket
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit

from hotswap.stack.processes import Supervisor

LOOK_SECONDS = 2.0
ASK_SECONDS = 2.0
FROZEN_SECONDS = 20.0
# Of CPU, in `FROZEN_SECONDS`: more than what still runs of a server of which one
# process is frozen.
IDLE_SECONDS = 0.2

Ask = Callable[[], bool]


def web_answers(port: int) -> bool:
    """Tell whether the web server on a loopback port answers at all."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=ASK_SECONDS)
    try:
        connection.request("GET", "/health")
        connection.getresponse()
    except http.client.HTTPException:
        return True
    except OSError:
        return False
    finally:
        connection.close()
    return True


def postgres_answers(url: str) -> bool:
    """Tell whether a database answers a statement, or says why not."""
    # Slow to import, and not needed before the stack runs.
    import psycopg

    try:
        with psycopg.connect(url, connect_timeout=int(ASK_SECONDS)) as connection:
            connection.execute("SELECT 1")
    except psycopg.errors.ConnectionTimeout:
        return False
    except psycopg.Error:
        return True
    return True


def redis_answers(url: str) -> bool:
    """Tell whether a Redis answers, whatever it says."""
    address = urlsplit(url)
    password = unquote(address.password or "")
    sent = f"AUTH {password}\r\nPING\r\n".encode()
    with contextlib.suppress(OSError):
        where = (address.hostname or "", address.port or 6379)
        with socket.create_connection(where, timeout=ASK_SECONDS) as connection:
            connection.sendall(sent)
            return bool(connection.recv(64))
    return False


def cpu_seconds(pid: int) -> float:
    """Return the CPU that a program and all it has started have used."""
    import psutil

    total = 0.0
    with contextlib.suppress(psutil.Error):
        leader = psutil.Process(pid)
        for process in (leader, *leader.children(recursive=True)):
            with contextlib.suppress(psutil.Error):
                total += sum(process.cpu_times()[:2])
    return total


@dataclass(slots=True)
class FreezeDetector:
    """How long a program has not answered, and what CPU it has used meanwhile."""

    frozen_seconds: float = FROZEN_SECONDS
    _pid: int | None = field(init=False, default=None)
    _since: float = field(init=False, default=0.0)
    _cpu: float = field(init=False, default=0.0)

    def has_answered(self) -> None:
        """Forget what was before."""
        self._pid = None

    def is_frozen(self, pid: int, cpu: float, now: float) -> bool:
        """Take note of a question without an answer; tell whether that is too long.

        Args:
            cpu: seconds that the program has used since its start.
            now: seconds of a clock that nobody sets.
        """
        if pid != self._pid or cpu - self._cpu > IDLE_SECONDS:
            self._pid, self._since, self._cpu = pid, now, cpu
        return now - self._since >= self.frozen_seconds


class AnswerWatch:
    """Asks servers from a thread of its own whether they answer.

    Args:
        supervisor: runs the programs.
        asks: by name of the program, what tells whether it answers.
        on_event: told when one is started again.
    """

    def __init__(
        self,
        supervisor: Supervisor,
        asks: Mapping[str, Ask],
        *,
        on_event: Callable[[str], None] | None = None,
        look_seconds: float = LOOK_SECONDS,
        frozen_seconds: float = FROZEN_SECONDS,
    ) -> None:
        self._supervisor = supervisor
        self._asks = asks
        self._on_event = on_event or (lambda _: None)
        self._look_seconds = look_seconds
        self._frozen_seconds = frozen_seconds
        self._detectors = {name: FreezeDetector(frozen_seconds) for name in asks}
        self._over = threading.Event()
        self._thread = threading.Thread(
            target=self._run, name="hotswap-answers", daemon=True
        )

    def start(self) -> None:
        """Begin in the background."""
        self._thread.start()

    def stop(self) -> None:
        """Ask no more; a question that is under way has no consequence any more."""
        self._over.set()

    def _run(self) -> None:
        before = time.monotonic()
        while not self._over.wait(self._look_seconds):
            if time.monotonic() - before > self._frozen_seconds / 2:
                for detector in self._detectors.values():
                    detector.has_answered()
            before = time.monotonic()
            for name in self._asks:
                self._look_at(name)

    def _look_at(self, name: str) -> None:
        detector = self._detectors[name]
        pid = self._supervisor.pid(name)
        if pid is None or not self._supervisor.is_ready(name) or self._asks[name]():
            detector.has_answered()
        elif detector.is_frozen(pid, cpu_seconds(pid), time.monotonic()):
            detector.has_answered()
            if not self._over.is_set():
                self._on_event(
                    f"{name} has not answered for {self._frozen_seconds:.0f} s: it is "
                    "started again"
                )
                self._supervisor.replace(name)
