"""Find the nginx of this machine; as root, install one where there is none.

python -m tests.nginx
"""

import os
import shutil
import sys

from tests.debian import provide

# The folder of administrators is not on everyone's PATH.
PLACES = os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"))


def find_nginx() -> str | None:
    """Return the program, or None."""
    return os.environ.get("HOTSWAP_TEST_NGINX") or shutil.which("nginx", path=PLACES)


if __name__ == "__main__":
    sys.exit(
        provide(
            "nginx-light",
            find_nginx,
            "The tests need an nginx: install the package `nginx-light` or `nginx` of "
            "your system, or name one with HOTSWAP_TEST_NGINX=/path/to/it",
        )
    )
