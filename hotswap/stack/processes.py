"""Keep a handful of programs running, and end all of them together.

Rules:
- One thread starts every program: the kernel ends a program with the thread that
  started it, so nothing outlives a supervisor that was killed.
- Each program leads its own process group; what it leaves behind is killed with it.
- A program starts when all it needs are ready. One that dies while something it needs
  is away is not to blame, and waits for it.
- A program that fails five times running, each soon after its start, stops
  everything, with the end of its log as the reason.
- Whether a program that runs does its work is for others to say: see `ticks.py` and
  `answers.py`.
"""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from hotswap.stack.errors import StackError

LAUNCHER = Path(__file__).with_name("launch.py")
LOOK_EVERY_SECONDS = 0.05
# A run that ends sooner counts as a failed start; so many running give up. A busy
# machine takes long to load a program that then refuses its settings.
SHORT_RUN_SECONDS = 5.0
FAILED_START_SECONDS = 60.0
SHORT_RUNS_ALLOWED = 5
# Pauses before the restarts after one, two, ... short runs; all below 2 s.
RESTART_PAUSES_SECONDS = (0.0, 0.2, 0.5, 1.0, 1.0)
LOG_LIMIT_BYTES = 20 * 1024 * 1024
LOG_LOOK_SECONDS = 5.0
REASON_LINES = 12


def _always_ready() -> bool:
    return True


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """The user a program runs as, where it is not the supervisor's.

    `must_enter`: some folder above its files is closed to that user.
    """

    user: int
    group: int
    must_enter: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """How to run one program.

    Attributes:
        needs: names of programs that must be ready before this one starts.
        one_shot: runs to its end once; ready when it ended well, and any other end
            stops everything.
        before_start: called before every start, in the supervisor's thread.
        is_ready: asked after the start until it holds.
        stop_signal: asks for an orderly end; killed after `stop_seconds`.
        death_signal: what it gets when the supervisor is gone.
    """

    name: str
    command: Sequence[str]
    log: Path
    environment: Mapping[str, str] | None = None
    folder: Path | None = None
    needs: tuple[str, ...] = ()
    one_shot: bool = False
    account: Account | None = None
    before_start: Callable[[], None] | None = None
    is_ready: Callable[[], bool] = _always_ready
    stop_signal: signal.Signals = signal.SIGTERM
    stop_seconds: float = 10.0
    death_signal: signal.Signals = signal.SIGKILL


@dataclass(slots=True)
class _Child:
    """What is known of a program while it is supervised."""

    program: Program
    process: subprocess.Popen[bytes] | None = None
    started_at: float = 0.0
    ready: bool = False
    starts: int = 0
    short_runs: int = 0
    not_before: float = 0.0
    output_from: int = 0
    exits: list[int] = field(default_factory=list)
    is_replaced: bool = False
    restarts: Counter[str] = field(default_factory=Counter)


class Supervisor:
    """Runs programs in the order given and stops them in reverse.

    Both are called from the supervisor's thread: `on_event(text)` when a program has
    ended or is back, `on_start()` after every start of one.
    """

    def __init__(
        self,
        programs: Sequence[Program],
        *,
        on_event: Callable[[str], None] | None = None,
        on_start: Callable[[], None] | None = None,
    ) -> None:
        self._children = {program.name: _Child(program) for program in programs}
        self._on_event = on_event or (lambda _: None)
        self._on_start = on_start or (lambda: None)
        self._stopping = threading.Event()
        self._is_in_hurry = False
        self._finished = threading.Event()
        self._thread = threading.Thread(
            target=self._run, name="hotswap-supervisor", daemon=True
        )
        self._looked_at_logs = 0.0
        self._to_replace: set[str] = set()
        self.failure: str | None = None

    # --- asked by others -------------------------------------------------------

    def start(self) -> None:
        """Begin in the background."""
        self._thread.start()

    def stop(self) -> None:
        """Ask every program to end, in reverse order, and wait until all have."""
        self._stopping.set()
        if self._thread.ident is not None:
            self._thread.join()

    def hurry(self) -> None:
        """Kill what is still there when stopping takes too long for somebody.

        Takes no lock, as a signal may call it anywhere.
        """
        self._is_in_hurry = True

    def wait(self, seconds: float | None = None) -> bool:
        """Wait until everything has stopped; tell whether it has."""
        return self._finished.wait(seconds)

    def replace(self, name: str) -> None:
        """Kill a program that runs and does not do its work; it is started again."""
        self._to_replace.add(name)

    def pid(self, name: str) -> int | None:
        """Return the process id of a program, None while it does not run."""
        process = self._children[name].process
        return process.pid if process is not None else None

    def pids(self) -> dict[str, int]:
        """Return the process ids of all programs that run."""
        return {
            name: child.process.pid
            for name, child in self._children.items()
            if child.process is not None
        }

    def restarts(self, name: str) -> int:
        """Return how often a program was started again."""
        return max(self._children[name].starts - 1, 0)

    def restarts_by_reason(self) -> dict[str, dict[str, int]]:
        """Return how often each program was started again.

        By reason: `ended`, or `frozen` if it ran and did not do its work.
        """
        return {name: dict(child.restarts) for name, child in self._children.items()}

    def is_ready(self, *names: str) -> bool:
        """Tell whether the named programs (all, if none is named) are ready."""
        return all(self._children[name].ready for name in names or self._children)

    def wait_ready(self, seconds: float, *names: str) -> None:
        """Wait until the named programs (all, if none is named) are ready.

        Args:
            seconds: longest time in which no further program becomes ready.

        Raises:
            StackError: one gave up, or the time is over.
        """
        ready: set[str] = set()
        deadline = time.monotonic() + seconds
        while not self.is_ready(*names):
            if self._finished.is_set() or self._stopping.is_set():
                raise StackError(self.failure or "stopped before it was ready")
            waiting = [name for name, c in self._children.items() if not c.ready]
            if before := self._children.keys() - ready - set(waiting):
                ready |= before
                deadline = time.monotonic() + seconds
            if time.monotonic() > deadline:
                raise StackError(
                    f"not ready after {seconds:.0f} s: {', '.join(waiting)}; "
                    f"see {self._children[waiting[0]].program.log}"
                )
            time.sleep(LOOK_EVERY_SECONDS)

    # --- the supervisor's thread -----------------------------------------------

    def _run(self) -> None:
        try:
            while not self._stopping.is_set():
                for child in self._children.values():
                    self._look_at(child)
                    if self._stopping.is_set():
                        break
                self._bound_logs()
                self._stopping.wait(LOOK_EVERY_SECONDS)
        except Exception as error:  # noqa: BLE001 - whatever it was, nothing may stay
            self._give_up(f"the supervisor failed: {error!r}")
        finally:
            for child in reversed(self._children.values()):
                self._end(child)
            self._finished.set()

    def _look_at(self, child: _Child) -> None:
        process = child.process
        now = time.monotonic()
        if process is None:
            finished = child.program.one_shot and child.ready
            if not finished and now >= child.not_before and self._can_start(child):
                self._start(child)
        elif process.poll() is not None:
            self._note_end(child, process.returncode)
        elif child.program.name in self._to_replace:
            self._to_replace.discard(child.program.name)
            child.is_replaced = True
            kill_group(process.pid)
        elif not child.ready and not child.program.one_shot:
            child.ready = child.program.is_ready()

    def _can_start(self, child: _Child) -> bool:
        return all(self._children[name].ready for name in child.program.needs)

    def _start(self, child: _Child) -> None:
        program = child.program
        try:
            if program.before_start is not None:
                program.before_start()
            child.output_from = (
                program.log.stat().st_size if program.log.exists() else 0
            )
            child.process = start_process(program)
        except (StackError, OSError) as error:
            self._give_up(f"{program.name} cannot start: {error}")
            return
        child.started_at = time.monotonic()
        child.starts += 1
        child.ready = False
        if child.starts > 1:
            child.restarts["frozen" if child.is_replaced else "ended"] += 1
            child.is_replaced = False
        self._on_start()
        if child.starts > 1:
            self._on_event(f"{program.name} restarted")

    def _note_end(self, child: _Child, code: int) -> None:
        program = child.program
        assert child.process is not None
        # What it has left behind would keep its port or its files.
        kill_group(child.process.pid)
        child.process = None
        if program.one_shot:
            child.ready = code == 0
            if code != 0:
                self._give_up(f"{program.name} failed:\n{self._last_output(child)}")
            return
        child.ready = False
        child.exits.append(code)
        now = time.monotonic()
        blameless = not self._can_start(child)
        # It gave up by itself, or something ended it.
        bound = FAILED_START_SECONDS if code > 0 else SHORT_RUN_SECONDS
        if blameless or now - child.started_at > bound:
            child.short_runs = 0
        else:
            child.short_runs += 1
        if child.short_runs >= SHORT_RUNS_ALLOWED:
            self._give_up(
                f"{program.name} failed {child.short_runs} times running soon after "
                f"its start:\n{self._last_output(child)}"
            )
            return
        self._on_event(f"{program.name} ended ({describe_exit(code)})")
        child.not_before = now + RESTART_PAUSES_SECONDS[child.short_runs]

    def _give_up(self, reason: str) -> None:
        self.failure = self.failure or reason
        self._stopping.set()

    def _last_output(self, child: _Child) -> str:
        try:
            with child.program.log.open("rb") as file:
                file.seek(child.output_from)
                text = file.read()[-8192:].decode(errors="replace")
        except OSError:
            text = ""
        lines = [line for line in text.splitlines() if line.strip()][-REASON_LINES:]
        return "\n".join(f"  {line}" for line in lines) or "  (it said nothing)"

    def _end(self, child: _Child) -> None:
        process = child.process
        if process is None:
            return
        deadline = time.monotonic() + child.program.stop_seconds
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(child.program.stop_signal)
        while process.poll() is None:
            if time.monotonic() > deadline or self._is_in_hurry:
                break
            time.sleep(0.02)
        kill_group(process.pid)
        process.wait()
        child.process = None
        child.ready = False

    def _bound_logs(self) -> None:
        """Cut logs that have grown too long; programs append, so they go on writing."""
        now = time.monotonic()
        if now - self._looked_at_logs < LOG_LOOK_SECONDS:
            return
        self._looked_at_logs = now
        for child in self._children.values():
            log = child.program.log
            if log.exists() and log.stat().st_size > LOG_LIMIT_BYTES:
                shutil.copyfile(log, log.with_name(log.name + ".1"))
                os.truncate(log, 0)
                child.output_from = 0


def start_process(program: Program) -> subprocess.Popen[bytes]:
    """Start a program that ends when the calling thread does."""
    account = program.account
    launcher = [sys.executable, "-I", "-S", str(LAUNCHER), str(os.getpid())]
    launcher.append(str(int(program.death_signal)))
    if account is None:
        launcher += ["-", "-", "0", "--"]
    else:
        launcher += [str(account.user), str(account.group)]
        launcher += ["1" if account.must_enter else "0", "--"]
    log = os.open(program.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        return subprocess.Popen(
            [*launcher, *program.command],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            cwd=program.folder,
            env=None if program.environment is None else dict(program.environment),
            start_new_session=True,
        )
    finally:
        os.close(log)


def kill_group(leader: int) -> None:
    """Kill a program and everything it has started that stayed in its group."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(leader, signal.SIGKILL)


def describe_exit(code: int) -> str:
    """Say how a program ended: `exit 1` or `killed by SIGKILL`."""
    if code >= 0:
        return f"exit {code}"
    try:
        return f"killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"killed by signal {-code}"
