"""Let tests kill the agent at an exact point.

Rules:
- A point is a name that the code passes just after a write, fsync or rename.
- Without `HOTSWAP_AGENT_CRASH_AT` in the environment nothing here does anything.
- `point` means its first passage, `point#3` its third. What is left to pass is kept in
  the environment, so that it counts on over a reboot by `exec`.
- A crash is SIGKILL to the own process: no handler, no `finally`, no flush.
"""

import os
import signal

VARIABLE = "HOTSWAP_AGENT_CRASH_AT"

_PHASES = (
    "downloading",
    "verifying",
    "announcing",
    "installing",
    "switching",
    "trying",
    "claiming",
    "reverting",
    "failing",
    "idle",
)

WRITE_STEPS = ("created", "written", "flushed", "renamed", "synced")
"""What `write_atomically` does, each step with its point after the prefix."""


def _writes(*prefixes: str) -> tuple[str, ...]:
    return tuple(f"{prefix}.{step}" for prefix in prefixes for step in WRITE_STEPS)


POINTS: tuple[str, ...] = (
    *_writes(*(f"store.{phase}" for phase in _PHASES)),
    # A download and its check
    "download.emptied",
    "download.emptied_synced",
    "download.folder_synced",
    *_writes("download.etag"),
    "download.started",
    "download.block_written",
    "download.chunk_synced",
    "download.complete",
    "verify.checked",
    "announce.acknowledged",
    # Slots
    "install.record_removed",
    "install.slot_invalidated",
    "install.image_created",
    "install.image_written",
    "install.image_flushed",
    "install.image_renamed",
    "install.image_synced",
    *_writes("install.record"),
    "switch.reported",
    "switch.link_written",
    "switch.link_renamed",
    "switch.synced",
    "try.application_started",
    "try.passed",
    "claim.acknowledged",
    "fall_back.link_written",
    "fall_back.link_renamed",
    "fall_back.synced",
    "failure.acknowledged",
    "provision.image_installed",
    "provision.activated",
    # Hooks
    "hooks.image_created",
    "hooks.image_written",
    "hooks.image_flushed",
    "hooks.image_renamed",
    "hooks.image_synced",
    "hooks.pre_install_done",
    *_writes("hooks.kept"),
    "hooks.image_checked",
    "hooks.install_done",
    *_writes("hooks.installed"),
    "hooks.image_removed",
    "hooks.folder_synced",
    "hooks.activate_done",
    "hooks.reboot_asked",
    "hooks.health_check_done",
    "hooks.confirm_done",
    "hooks.revert_done",
    # The key
    "rotate.room_made",
    "rotate.answered",
    *_writes("rotate.key"),
    "rotate.tried",
    "rotate.taken_into_use",
    "rotate.dropped",
    "rotate.settled",
    *_writes("enrol.secret"),
    "enrol.answered",
    *_writes("enrol.key"),
    "enrol.secret_removed",
    "enrol.settled",
)
"""Every point by name; a test walks this table."""


def reach(point: str) -> None:
    """Kill this process if the environment names this passage of this point."""
    wanted = os.environ.get(VARIABLE)
    if not wanted or not point:
        return
    name, _, passage = wanted.partition("#")
    if name != point:
        return
    left = int(passage or 1)
    if left <= 1:
        os.kill(os.getpid(), signal.SIGKILL)
    os.environ[VARIABLE] = f"{name}#{left - 1}"
