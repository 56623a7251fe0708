"""Find the HAProxy of this machine; as root, install one where there is none.

python -m tests.haproxy
"""

import os
import shutil
import sys

from tests.debian import provide
from tests.nginx import PLACES


def find_haproxy() -> str | None:
    """Return the program, or None."""
    named = os.environ.get("HOTSWAP_TEST_HAPROXY")
    return named or shutil.which("haproxy", path=PLACES)


if __name__ == "__main__":
    sys.exit(
        provide(
            "haproxy",
            find_haproxy,
            "The tests need a HAProxy: install the package `haproxy` of your system, "
            "or name one with HOTSWAP_TEST_HAPROXY=/path/to/it",
        )
    )
