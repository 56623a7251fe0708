"""Find the Prometheus of this machine; as root, install one where there is none.

python tests/prometheus.py
"""

import os
import shutil
import subprocess
import sys

INSTALL = ("apt-get", "install", "-y", "--no-install-recommends", "prometheus")


def find_program(name: str) -> str | None:
    """Return `prometheus` or `promtool`, or None."""
    given = os.environ.get("HOTSWAP_TEST_PROMETHEUS")
    return shutil.which(name, path=given) if given else shutil.which(name)


def is_there() -> bool:
    return all(map(find_program, ("prometheus", "promtool")))


def main() -> int:
    if is_there():
        return 0
    if os.geteuid() == 0 and shutil.which("apt-get"):
        sys.stdout.write("No Prometheus found; installing prometheus ...\n")
        sys.stdout.flush()
        environment = {
            **os.environ,
            "DEBIAN_FRONTEND": "noninteractive",
            # The tests start their own; no service is wanted.
            "RUNLEVEL": "1",
        }
        for command in (("apt-get", "update"), INSTALL):
            done = subprocess.run(
                command, env=environment, capture_output=True, text=True, check=False
            )
            if done.returncode != 0:
                sys.stderr.write(done.stdout + done.stderr)
                break
        if is_there():
            return 0
    sys.stderr.write(
        "The tests need Prometheus: install the package `prometheus` of your system, "
        "or name a folder with `prometheus` and `promtool` with "
        "HOTSWAP_TEST_PROMETHEUS=/path/to/it\n"
    )
    return 1


if __name__ == "__main__":
    sys.exit(main())
