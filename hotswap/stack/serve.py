"""`hotswap serve`: run the stack until somebody stops it."""

import signal
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from types import FrameType

from hotswap.stack.errors import StackError
from hotswap.stack.stack import Stack

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def complain(text: str) -> None:
    sys.stderr.write(f"hotswap: {text}\n")
    sys.stderr.flush()


def serve(
    *, data_dir: Path, port: int, environment: Mapping[str, str] | None = None
) -> int:
    """Run the stack in the foreground and return the process's exit code.

    0 after SIGINT, SIGTERM or SIGHUP; 1 when it could not start or gave up.
    """
    stack = Stack(
        data_dir=data_dir, port=port, environment=environment, on_event=complain
    )
    is_asked = False
    has_started = False

    def on_signal(number: int, frame: FrameType | None) -> None:
        # No event: a signal that strikes where its lock is held would wait for itself.
        nonlocal is_asked
        if is_asked and has_started:
            stack.hurry()
        is_asked = True

    for number in STOP_SIGNALS:
        # A shell ignores SIGINT for what it starts in the background, where it is still
        # a fair way to ask; SIGHUP is ignored by those who want to outlive a terminal.
        if number == signal.SIGHUP and signal.getsignal(number) == signal.SIG_IGN:
            continue
        signal.signal(number, on_signal)

    try:
        stack.start()
        has_started = True
        for part in stack.embedded:
            say(f"{part} (embedded)")
        threading.Thread(target=announce, args=(stack,), daemon=True).start()
        while not is_asked and not stack.wait(0.1):
            pass
    except StackError as error:
        complain(str(error))
        return 1
    finally:
        if has_started:
            stack.stop()
    if stack.failure is not None:
        complain(stack.failure)
        return 1
    return 0


def announce(stack: Stack) -> None:
    """Say where HotSwap answers as soon as it does."""
    try:
        stack.wait_ready()
    except StackError as error:
        # When a program has given up, the main thread tells why.
        if not stack.wait(0.5):
            complain(str(error))
        return
    if stack.made_admin_password:
        say(
            f"First administrator: {stack.admin_username} / {stack.made_admin_password}"
        )
    say(f"HotSwap ready at {stack.url}")
