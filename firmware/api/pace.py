"""How many downloads run at a time.

A thread of the server is busy with a download until its client has taken it. A device
has two at once, all together a share of the threads of a process; one more is told to
come again. So the rest is left for everything else. A client that takes too little is
broken off (`hotswap/common/slow_readers.py`): the device goes on with a range where it
stopped.
"""

import threading
from collections import Counter
from collections.abc import Callable

from rest_framework.exceptions import APIException, Throttled

from hotswap.common.slots import Slots, share_of_threads
from hotswap.common.slow_readers import SlowReaders, slow_readers

PER_DEVICE = 2
COME_AGAIN_SECONDS = 5


class DownloadsBusy(APIException):
    status_code = 503
    default_detail = "as many downloads run as the server takes; come again"
    default_code = "downloads_busy"
    wait = COME_AGAIN_SECONDS


class Downloads:
    """Counts the downloads of this process."""

    def __init__(self, most: int, watchdog: SlowReaders) -> None:
        self._slots = Slots(most)
        self._watchdog = watchdog
        self._lock = threading.Lock()
        self._by_device: Counter[object] = Counter()

    def begin(self, device: object) -> Callable[[], None]:
        """Count one more; return what ends it, once, however often it is called.

        Raises:
            Throttled: the device has two (429).
            DownloadsBusy: all slots are taken, and none will soon be free (503).
        """
        with self._lock:
            if self._by_device[device] >= PER_DEVICE:
                raise Throttled(
                    wait=COME_AGAIN_SECONDS,
                    detail=f"{PER_DEVICE} downloads of this device are in progress.",
                )
            self._by_device[device] += 1
        give_back = self._slots.take()
        if give_back is None:
            self._forget(device)
            raise DownloadsBusy
        self._watchdog.start()
        has_ended = threading.Event()

        def end() -> None:
            with self._lock:
                if has_ended.is_set():
                    return
                has_ended.set()
            self._forget(device)
            give_back()

        return end

    def _forget(self, device: object) -> None:
        with self._lock:
            self._by_device[device] -= 1
            if not self._by_device[device]:
                del self._by_device[device]


downloads = Downloads(share_of_threads("downloads"), slow_readers)
