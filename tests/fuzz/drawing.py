"""Cases, from the program that draws them."""

import os
import pickle
import subprocess
import sys
from collections.abc import Iterator

from django.conf import settings

from tests.fuzz.requests import Drawn, Order


def drawn(order: Order) -> Iterator[Drawn]:
    """Give the cases of an order: the same for the same order."""
    with subprocess.Popen(
        [sys.executable, "-m", "tests.fuzz.cases"],
        cwd=settings.BASE_DIR,
        env={**os.environ, "PYTHONHASHSEED": "0"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as program:
        assert program.stdin is not None
        assert program.stdout is not None
        pickle.dump(order, program.stdin)
        program.stdin.close()
        while True:
            try:
                yield pickle.load(program.stdout)
            except EOFError:
                break
    assert program.returncode == 0
