"""The garbage collection of Python in processes that live for long."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def collection_paused() -> Iterator[None]:
    """Look for no garbage while code is loaded.

    Most of what loading makes stays, and to go through it again and again takes a fifth
    of the start.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def freeze_loaded_objects() -> None:
    """Look for garbage in what comes from now on alone.

    All code is loaded by then and stays. To go through it, too, takes a tenth of a
    second now and then, in which the process does nothing else.
    """
    gc.collect()
    gc.freeze()
