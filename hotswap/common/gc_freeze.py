"""The garbage collection of Python in processes that live for long."""

import gc


def freeze_loaded_objects() -> None:
    """Look for garbage in what comes from now on alone.

    All code is loaded by then and stays. To go through it, too, takes a tenth of a
    second now and then, in which the process does nothing else.
    """
    gc.collect()
    gc.freeze()
