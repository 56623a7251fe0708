"""Run the owner's commands: the hooks.

Rules:
- A hook has a time-out; at its end the hook and all that it started are killed.
- Exit code 0 is success, 75 (EX_TEMPFAIL) means "try later", anything else failure.
- Two hooks that change something never run at the same time, not even when the agent
  was killed and started again: the hook and its children hold a lock that the kernel
  takes back when the last of them has ended.
- A hook gets nothing of the agent's own environment that begins with `HOTSWAP_` but
  what is documented.
"""

import contextlib
import fcntl
import logging
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from devices.agent.children import child_environment, reap
from devices.agent.installer import InstallError, InstallLaterError

logger = logging.getLogger(__name__)

HookName = Literal[
    "current",
    "pre_install",
    "install",
    "activate",
    "reboot",
    "health_check",
    "confirm",
    "revert",
]
CHANGING: frozenset[HookName] = frozenset(
    {"pre_install", "install", "activate", "confirm", "revert"}
)
TRY_LATER = 75
TICK_SECONDS = 0.5
LOCK_LOOK_SECONDS = 0.1
TERMINATE_SECONDS = 3.0
MAX_MESSAGE_CHARACTERS = 200


@dataclass(frozen=True, slots=True)
class Hook:
    """One command of the owner."""

    command: tuple[str, ...]
    timeout_seconds: float


@dataclass(slots=True)
class HookRunner:
    """Runs hooks, one after the other.

    Attributes:
        run_dir: holds the lock; hooks start in it.
        while_waiting: called about twice a second while a hook runs.
    """

    hooks: Mapping[HookName, Hook]
    run_dir: Path
    while_waiting: Callable[[], None] = field(default=lambda: None)

    def has(self, name: HookName) -> bool:
        """Say whether there is such a hook."""
        return name in self.hooks

    def run(self, name: HookName, variables: Mapping[str, str] | None = None) -> str:
        """Run a hook and give what it wrote to its standard output.

        Args:
            name: of a hook that there is.
            variables: added to its environment.

        Raises:
            InstallLaterError: it wants to be run again later.
            InstallError: it failed, took too long or could not be run.
        """
        hook = self.hooks[name]
        deadline = time.monotonic() + hook.timeout_seconds
        self.run_dir.mkdir(parents=True, exist_ok=True)
        with self._locked(name, deadline) as descriptors:
            try:
                process = subprocess.Popen(
                    hook.command,
                    cwd=self.run_dir,
                    env={
                        **child_environment(),
                        **(variables or {}),
                        "HOTSWAP_HOOK": name,
                    },
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    start_new_session=True,
                    pass_fds=descriptors,
                )
            except (OSError, ValueError, subprocess.SubprocessError) as error:
                raise InstallError(f"{name}: {error}.") from error
            try:
                output, errors = self._wait_for(process, name, deadline)
            except BaseException:
                _end_all_of(process)
                raise
        return _judge(name, process.returncode, output, errors)

    def _wait_for(
        self, process: subprocess.Popen[bytes], name: HookName, deadline: float
    ) -> tuple[bytes, bytes]:
        while True:
            remaining = deadline - time.monotonic()
            if remaining <= 0:
                seconds = self.hooks[name].timeout_seconds
                raise InstallError(f"{name}: not done within {seconds:g} s.")
            try:
                return process.communicate(timeout=min(TICK_SECONDS, remaining))
            except subprocess.TimeoutExpired:
                self.while_waiting()

    @contextmanager
    def _locked(self, name: HookName, deadline: float) -> Iterator[tuple[int, ...]]:
        """Hold the lock of hooks that change something, and give it to the child."""
        if name not in CHANGING:
            yield ()
            return
        descriptor = os.open(
            self.run_dir / "hook.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600
        )
        try:
            while True:
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() > deadline:
                        raise InstallError(
                            f"{name}: a hook from before is still at work."
                        ) from None
                    self.while_waiting()
                    time.sleep(LOCK_LOOK_SECONDS)
            yield (descriptor,)
        finally:
            # Not unlocked: a child that is still there keeps it.
            os.close(descriptor)


def _end_all_of(process: subprocess.Popen[bytes]) -> None:
    """End a hook with all that it has started and that is still there."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(TERMINATE_SECONDS)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    reap(process)
    for pipe in (process.stdout, process.stderr):
        if pipe is not None:
            pipe.close()


def _judge(name: HookName, code: int, output: bytes, errors: bytes) -> str:
    for line in errors.decode("utf-8", "replace").splitlines():
        logger.info("hook says", extra={"hook": name, "line": line})
    reason = _last_line(errors)
    match code:
        case 0:
            return output.decode("utf-8", "replace")
        case 75:
            raise InstallLaterError(f"{name}: try later. {reason}".strip())
        case _ if code < 0:
            raise InstallError(f"{name}: ended by signal {-code}. {reason}".strip())
        case _:
            raise InstallError(f"{name}: exit code {code}. {reason}".strip())


def _last_line(text: bytes) -> str:
    lines = text.decode("utf-8", "replace").strip().splitlines()
    return lines[-1][:MAX_MESSAGE_CHARACTERS] if lines else ""
