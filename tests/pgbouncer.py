"""Find the PgBouncer of this machine; as root, install one where there is none.

python -m tests.pgbouncer
"""

import os
import shutil
import sys

from tests.debian import provide
from tests.nginx import PLACES


def find_pgbouncer() -> str | None:
    """Return the program, or None."""
    found = os.environ.get("HOTSWAP_TEST_PGBOUNCER")
    return found or shutil.which("pgbouncer", path=PLACES)


if __name__ == "__main__":
    sys.exit(
        provide(
            "pgbouncer",
            find_pgbouncer,
            "The tests need a PgBouncer: install the package `pgbouncer` of your "
            "system, or name one with HOTSWAP_TEST_PGBOUNCER=/path/to/it",
        )
    )
