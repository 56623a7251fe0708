"""Programs that tests need and Debian has: found, or installed where root may."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable


def provide(package: str, is_there: Callable[[], object], otherwise: str) -> int:
    """Install a package unless its program is there; return the exit code.

    Args:
        package: the name in Debian.
        otherwise: what to do where it cannot be installed; printed.
    """
    if is_there():
        return 0
    if os.geteuid() == 0 and shutil.which("apt-get"):
        sys.stdout.write(f"Installing {package} ...\n")
        sys.stdout.flush()
        environment = {
            **os.environ,
            "DEBIAN_FRONTEND": "noninteractive",
            # The tests start their own; no service is wanted.
            "RUNLEVEL": "1",
        }
        for command in (
            ("apt-get", "update"),
            ("apt-get", "install", "-y", "--no-install-recommends", package),
        ):
            done = subprocess.run(
                command, env=environment, capture_output=True, text=True, check=False
            )
            if done.returncode != 0:
                sys.stderr.write(done.stdout + done.stderr)
                break
        if is_there():
            return 0
    sys.stderr.write(f"{otherwise}\n")
    return 1
