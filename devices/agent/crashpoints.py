"""Let tests kill the agent at an exact point.

Rules:
- A point is a name that the code passes just after a write, fsync or rename.
- Without `HOTSWAP_AGENT_CRASH_AT` in the environment nothing here does anything.
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

POINTS: tuple[str, ...] = (
    *(
        f"store.{phase}.{step}"
        for phase in _PHASES
        for step in ("temporary_written", "renamed", "synced")
    ),
    "download.started",
    "download.block_written",
    "download.chunk_synced",
    "download.complete",
    "verify.checked",
    "announce.acknowledged",
    "install.slot_invalidated",
    "install.image_written",
    "install.image_renamed",
    "install.record_written",
    "install.record_renamed",
    "install.synced",
    "switch.link_written",
    "switch.link_renamed",
    "switch.synced",
    "switch.reported",
    "try.application_started",
    "try.passed",
    "claim.acknowledged",
    "fall_back.link_written",
    "fall_back.link_renamed",
    "fall_back.synced",
    "failure.acknowledged",
    "provision.image_installed",
    "provision.activated",
    "rotate.room_made",
    "rotate.answered",
    "rotate.key_written",
    "rotate.key_renamed",
    "rotate.key_synced",
    "rotate.tried",
    "rotate.taken_into_use",
    "rotate.dropped",
    "rotate.settled",
    "enrol.secret_written",
    "enrol.secret_renamed",
    "enrol.secret_synced",
    "enrol.answered",
    "enrol.key_written",
    "enrol.key_renamed",
    "enrol.key_synced",
    "enrol.secret_removed",
    "enrol.settled",
    "hooks.image_written",
    "hooks.image_renamed",
    "hooks.image_synced",
    "hooks.pre_install_done",
    *(
        f"hooks.{what}_{step}"
        for what in ("kept", "installed")
        for step in ("written", "renamed", "synced")
    ),
    "hooks.image_checked",
    "hooks.install_done",
    "hooks.image_removed",
    "hooks.folder_synced",
    "hooks.activate_done",
    "hooks.reboot_asked",
    "hooks.health_check_done",
    "hooks.confirm_done",
    "hooks.revert_done",
)
"""Every point by name; a test walks this table."""


def reach(point: str) -> None:
    """Kill this process if the environment names this point."""
    if point and os.environ.get(VARIABLE) == point:
        os.kill(os.getpid(), signal.SIGKILL)
