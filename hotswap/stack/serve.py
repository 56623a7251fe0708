"""`hotswap serve`: run the stack until somebody stops it.

Standard output says to whoever started it where HotSwap answers; standard error is the
log, in lines as those of all programs.
"""

import logging
import signal
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from types import FrameType

from hotswap.common.logs import formatter, log_everything
from hotswap.stack.errors import StackError
from hotswap.stack.stack import Stack

logger = logging.getLogger(__name__)
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def set_up_logging() -> None:
    """Write every record of this process to standard error, warnings included."""
    handler = logging.StreamHandler()
    handler.setFormatter(formatter())
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    log_everything()


def serve(
    *, data_dir: Path, port: int, environment: Mapping[str, str] | None = None
) -> int:
    """Run the stack in the foreground and return the process's exit code.

    0 after SIGINT, SIGTERM or SIGHUP; 1 when it could not start or gave up.
    """
    set_up_logging()
    stack = Stack(
        data_dir=data_dir, port=port, environment=environment, on_event=logger.warning
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
        logger.critical("%s", error)
        return 1
    finally:
        if has_started:
            stack.stop()
    if stack.failure is not None:
        logger.critical("%s", stack.failure)
        return 1
    return 0


def announce(stack: Stack) -> None:
    """Say where HotSwap answers as soon as it does."""
    try:
        stack.wait_ready()
    except StackError as error:
        # When a program has given up, the main thread tells why.
        if not stack.wait(0.5):
            logger.critical("%s", error)
        return
    if stack.made_admin_password:
        say(
            f"First administrator: {stack.admin_username} / {stack.made_admin_password}"
        )
        say("It is shown once; if it is lost, `hotswap set-password` makes another")
    say(f"HotSwap ready at {stack.url}")
