"""The supervisor, with small programs in place of HotSwap's."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from hotswap.stack import processes
from hotswap.stack.errors import StackError
from hotswap.stack.processes import Program, Supervisor, describe_exit
from tests.live import alive
from tests.waiting import wait_until

SLEEPER = "import time; time.sleep(600)"


@pytest.fixture
def make_program(tmp_path: Path) -> Callable[..., Program]:
    """Build a program that runs a line of Python."""

    def make(name: str = "sleeper", code: str = SLEEPER, **more: object) -> Program:
        return Program(
            name=name,
            command=[sys.executable, "-S", "-c", code],
            log=tmp_path / f"{name}.log",
            **more,  # type: ignore[arg-type]
        )

    return make


@contextlib.contextmanager
def supervising(*programs: Program) -> Iterator[Supervisor]:
    supervisor = Supervisor(programs)
    supervisor.start()
    try:
        yield supervisor
    finally:
        supervisor.stop()


def test_a_killed_program_is_started_again(make_program):
    with supervising(make_program()) as supervisor:
        supervisor.wait_ready(60)
        first = supervisor.pid("sleeper")

        os.kill(first, signal.SIGKILL)
        wait_until(
            lambda: supervisor.pid("sleeper") not in (None, first), what="a new one"
        )

        assert supervisor.restarts("sleeper") == 1


def test_no_restart_waits_two_seconds():
    pauses = processes.RESTART_PAUSES_SECONDS

    assert len(pauses) == processes.SHORT_RUNS_ALLOWED
    assert max(pauses) + processes.LOOK_EVERY_SECONDS < 2


def test_a_program_that_takes_long_to_refuse_its_settings_fails_too(
    make_program, monkeypatch
):
    monkeypatch.setattr(processes, "SHORT_RUN_SECONDS", 0.0)
    failing = make_program("failing", "raise SystemExit('no such setting')")

    with supervising(failing) as supervisor:
        assert supervisor.wait(180)

        assert "no such setting" in supervisor.failure


def test_a_program_that_keeps_failing_stops_all_with_the_reason(make_program):
    failing = make_program("failing", "raise SystemExit('no such thing')")

    with supervising(make_program(), failing) as supervisor:
        assert supervisor.wait(180)

        assert "failing failed 5 times running" in supervisor.failure
        assert "no such thing" in supervisor.failure
        assert supervisor.pids() == {}


def test_failing_one_time_less_than_allowed_is_forgiven(make_program, tmp_path):
    count = tmp_path / "count"
    code = (
        f"import pathlib, sys, time; p = pathlib.Path({str(count)!r});"
        "n = len(p.read_text()) if p.exists() else 0; p.write_text('x' * (n + 1));"
        "n < 4 and sys.exit(3); time.sleep(600)"
    )

    with supervising(make_program(code=code)) as supervisor:
        wait_until(lambda: count.exists() and len(count.read_text()) == 5)
        time.sleep(0.3)

        assert supervisor.failure is None
        assert supervisor.restarts("sleeper") == 4


def test_a_program_waits_for_what_it_needs(make_program, tmp_path):
    mark = tmp_path / "mark"
    server = make_program("server", is_ready=mark.exists)
    client = make_program("client", needs=("server",))

    with supervising(server, client) as supervisor:
        wait_until(lambda: supervisor.pid("server"))
        time.sleep(0.3)
        assert supervisor.pid("client") is None

        mark.touch()
        supervisor.wait_ready(60)
        assert supervisor.pid("client") is not None


def test_the_wait_ends_only_when_nothing_further_becomes_ready(
    make_program, monkeypatch
):
    clock = [0.0]
    monkeypatch.setattr(
        processes,
        "time",
        SimpleNamespace(monotonic=lambda: clock[0], sleep=time.sleep),
    )

    def ready_40_seconds_later() -> bool:
        clock[0] += 40
        return True

    slow = [
        make_program(name, is_ready=ready_40_seconds_later, needs=needs)
        for name, needs in (("first", ()), ("second", ("first",)))
    ]
    never = make_program("never", is_ready=lambda: False, needs=("second",))

    with supervising(*slow) as supervisor:
        supervisor.wait_ready(60)
    with supervising(*slow, never) as supervisor:
        wait_until(lambda: supervisor.is_ready("first", "second"))
        threading.Timer(0.3, lambda: clock.__setitem__(0, clock[0] + 61)).start()
        with pytest.raises(StackError, match="not ready after 60 s: never"):
            supervisor.wait_ready(60)


def test_ending_while_a_needed_program_is_away_is_no_failure(make_program, tmp_path):
    mark = tmp_path / "mark"
    mark.touch()
    server = make_program("server", is_ready=mark.exists)
    client = make_program("client", needs=("server",))

    with supervising(server, client) as supervisor:
        for _ in range(6):
            supervisor.wait_ready(60)
            pids = supervisor.pids()
            for pid in pids.values():
                os.kill(pid, signal.SIGKILL)
            wait_until(
                lambda pids=pids: (
                    not set(supervisor.pids().values()) & set(pids.values())
                )
            )
            # The server lives long enough to count as well; only the client is asked.
            supervisor._children["server"].short_runs = 0

        assert supervisor.failure is None


def test_a_step_that_fails_stops_all_at_once(make_program):
    step = make_program("step", "raise SystemExit('broken')", one_shot=True)

    with supervising(step, make_program(needs=("step",))) as supervisor:
        assert supervisor.wait(60)

        assert supervisor.failure == "step failed:\n  broken"
        assert supervisor.restarts("step") == 0


def test_a_program_that_cannot_start_stops_all(make_program):
    def refuse() -> None:
        raise StackError("the folder is not ours")

    with supervising(make_program(before_start=refuse)) as supervisor:
        assert supervisor.wait(60)

        assert supervisor.failure == "sleeper cannot start: the folder is not ours"


def test_stopping_ends_programs_in_reverse_order(make_program, tmp_path):
    record = tmp_path / "record"
    code = (
        "import signal, sys, time\n"
        "def end(*_):\n"
        f"    open({str(record)!r}, 'a').write(sys.argv[1] + ' '); sys.exit()\n"
        "signal.signal(signal.SIGTERM, end)\n"
        f"open({str(record)!r} + sys.argv[1], 'w').close()\n"
        "time.sleep(600)"
    )
    programs = [
        Program(
            name=name,
            command=[sys.executable, "-S", "-c", code, name],
            log=tmp_path / "log",
            is_ready=Path(f"{record}{name}").exists,
        )
        for name in ("first", "second", "third")
    ]
    supervisor = Supervisor(programs)
    supervisor.start()
    supervisor.wait_ready(60)

    supervisor.stop()

    assert record.read_text().split() == ["third", "second", "first"]


def test_a_program_that_ignores_the_signal_is_killed(make_program):
    deaf = make_program(
        code=(
            "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
            "print('deaf', flush=True); time.sleep(600)"
        ),
        stop_seconds=0.5,
    )
    supervisor = Supervisor([deaf])
    supervisor.start()
    wait_until(lambda: deaf.log.exists() and "deaf" in deaf.log.read_text())
    pid = supervisor.pid("sleeper")

    supervisor.stop()

    assert not alive({pid})


def test_what_a_dead_program_started_is_killed_with_it(make_program):
    parent = make_program(
        code=(
            "import subprocess, sys, time;"
            "p = subprocess.Popen([sys.executable, '-S', '-c', "
            "'import time; time.sleep(600)']);"
            "print(p.pid, flush=True); time.sleep(600)"
        )
    )

    with supervising(parent) as supervisor:
        grandchild = int(
            wait_until(lambda: parent.log.exists() and parent.log.read_text()).split()[
                0
            ]
        )
        os.kill(supervisor.pid("sleeper"), signal.SIGKILL)

        wait_until(lambda: not alive({grandchild}), what="the grandchild is gone")


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's help is Linux's")
def test_programs_end_with_a_killed_supervisor(tmp_path):
    code = f"""
import sys, time
from pathlib import Path
from hotswap.stack.processes import Program, Supervisor
sleeper = Program(name="s", command=[sys.executable, "-S", "-c", {SLEEPER!r}],
                  log=Path({str(tmp_path / "log")!r}))
supervisor = Supervisor([sleeper])
supervisor.start()
supervisor.wait_ready(60)
print(supervisor.pid("s"), flush=True)
time.sleep(600)
"""
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True
    )
    child = int(process.stdout.readline())
    assert alive({child})

    process.kill()
    process.wait()

    wait_until(lambda: not alive({child}), what="the program is gone")
    process.stdout.close()


def test_the_log_is_cut_when_it_grows_too_long(make_program, monkeypatch):
    monkeypatch.setattr("hotswap.stack.processes.LOG_LIMIT_BYTES", 1000)
    monkeypatch.setattr("hotswap.stack.processes.LOG_LOOK_SECONDS", 0.1)
    chatty = make_program(
        code="import time\nwhile True: print('x' * 99, flush=True); time.sleep(0.005)"
    )

    with supervising(chatty):
        wait_until(chatty.log.with_name("sleeper.log.1").exists, what="a second log")
        wait_until(lambda: chatty.log.stat().st_size < 1000)


def test_the_output_of_a_program_is_its_owners_alone(make_program):
    program = make_program()

    with supervising(program) as supervisor:
        supervisor.wait_ready(60)

        assert program.log.stat().st_mode & 0o077 == 0


def test_waiting_says_what_is_not_ready(make_program):
    with (
        supervising(make_program("slow", is_ready=lambda: False)) as supervisor,
        pytest.raises(StackError, match=r"not ready after 0 s: slow; see .*slow\.log"),
    ):
        supervisor.wait_ready(0.2)


@pytest.mark.parametrize(
    ("code", "text"),
    [
        (0, "exit 0"),
        (3, "exit 3"),
        (-9, "killed by SIGKILL"),
        (-99, "killed by signal 99"),
    ],
)
def test_exits_are_described(code, text):
    assert describe_exit(code) == text
