"""Give child processes an environment without what is the agent's own."""

import os

_OWN_PREFIXES = ("HOTSWAP_", "WATCHDOG_")
# A child that had it could speak to systemd in the agent's name.
_OWN_NAMES = frozenset({"NOTIFY_SOCKET"})


def child_environment() -> dict[str, str]:
    """Give the environment of this process without the agent's own variables."""
    return {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(_OWN_PREFIXES) and name not in _OWN_NAMES
    }
