"""Find the Prometheus of this machine; as root, install one where there is none.

python -m tests.prometheus
"""

import os
import shutil
import sys

from tests.debian import provide


def find_program(name: str) -> str | None:
    """Return `prometheus` or `promtool`, or None."""
    given = os.environ.get("HOTSWAP_TEST_PROMETHEUS")
    return shutil.which(name, path=given) if given else shutil.which(name)


def is_there() -> bool:
    return all(map(find_program, ("prometheus", "promtool")))


if __name__ == "__main__":
    sys.exit(
        provide(
            "prometheus",
            is_there,
            "The tests need Prometheus: install the package `prometheus` of your "
            "system, or name a folder with `prometheus` and `promtool` with "
            "HOTSWAP_TEST_PROMETHEUS=/path/to/it",
        )
    )
