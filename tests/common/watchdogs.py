"""A watchdog for tests that have no connections."""

from hotswap.common.slow_readers import SlowReaders


class Resting(SlowReaders):
    """Never looks by itself; knows whether it was asked to."""

    is_asked = False

    def start(self) -> None:
        self.is_asked = True
