"""Find the nginx of this machine; as root, install one where there is none.

python tests/nginx.py
"""

import os
import shutil
import subprocess
import sys

# The folder of administrators is not on everyone's PATH.
PLACES = os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"))
INSTALL = ("apt-get", "install", "-y", "--no-install-recommends", "nginx-light")


def find_nginx() -> str | None:
    """Return the program, or None."""
    return os.environ.get("HOTSWAP_TEST_NGINX") or shutil.which("nginx", path=PLACES)


def main() -> int:
    if find_nginx():
        return 0
    if os.geteuid() == 0 and shutil.which("apt-get"):
        sys.stdout.write("No nginx found; installing nginx-light ...\n")
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
        if find_nginx():
            return 0
    sys.stderr.write(
        "The tests need an nginx: install the package `nginx-light` or `nginx` of your "
        "system, or name one with HOTSWAP_TEST_NGINX=/path/to/it\n"
    )
    return 1


if __name__ == "__main__":
    sys.exit(main())
