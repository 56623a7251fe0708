"""How many answers are being streamed at a time.

A thread of the server is busy with a streamed answer until its client has taken it; an
answer that is whole is taken over by the server, and holds none. Rules:

- A streamed answer of 512 KiB at most is made whole first: what is short never waits
  for its client.
- Of longer ones (large static files, exports) a few are under way at a time in each
  process; one more is told to come again (503). Downloads of images have slots of
  their own (`firmware/api/pace.py`).
- A client that takes too little of an answer is broken off (`slow_readers.py`).
"""

from collections.abc import Callable, Iterable, Iterator
from http import HTTPStatus
from itertools import chain
from typing import Any, cast

from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from django.http.response import HttpResponseBase

from hotswap.common.api.middleware import is_of_api, problem_response, try_again
from hotswap.common.slots import Slots, share_of_threads
from hotswap.common.slow_readers import slow_readers

WHOLE_BYTES = 512 * 1024
BUSY = "As many long answers are in progress as the server takes."


class CountedPieces:
    """The pieces of an answer, which ends with them, or when nobody has them."""

    def __init__(self, pieces: Iterator[bytes], end: Callable[[], None]) -> None:
        self._pieces = pieces
        self._end = end

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        try:
            return next(self._pieces)
        except BaseException:
            self._end()
            raise

    def __del__(self) -> None:
        # Also where the client has gone before the first of them.
        self._end()


class StreamMiddleware:
    """Makes short streamed answers whole, and counts the others.

    An answer that is counted elsewhere says so by `is_counted`.
    """

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponseBase]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        response = self.get_response(request)
        if not isinstance(response, StreamingHttpResponse) or hasattr(
            response, "is_counted"
        ):
            return response
        pieces = iter(cast(Iterable[bytes], response.streaming_content))
        begun: list[bytes] = []
        size = 0
        for piece in pieces:
            begun.append(piece)
            size += len(piece)
            if size > WHOLE_BYTES:
                break
        else:
            # It holds no thread, but memory.
            slow_readers.start()
            return _closing(response, _whole(response, b"".join(begun)))
        give_back = streams.take()
        if give_back is None:
            return _closing(response, _busy(request))
        slow_readers.start()
        response.streaming_content = CountedPieces(chain(begun, pieces), give_back)
        return response


def _whole(response: StreamingHttpResponse, body: bytes) -> HttpResponse:
    """Return an answer with all that a streamed one says, whose body is known."""
    whole = HttpResponse(body, status=response.status_code, headers=response.headers)
    whole.cookies = response.cookies
    return whole


def _closing(response: StreamingHttpResponse, instead: HttpResponse) -> HttpResponse:
    """Let the answer that is sent instead close what the other one has open.

    To close that one by itself would tell Django that the request is over.
    """
    closers: list[Any] = instead._resource_closers  # type: ignore[attr-defined]
    closers += response._resource_closers  # type: ignore[attr-defined]
    return instead


def _busy(request: HttpRequest) -> HttpResponse:
    if not is_of_api(request):
        return try_again(BUSY)
    status = HTTPStatus.SERVICE_UNAVAILABLE
    response = problem_response(request, status, "busy", detail=f"{BUSY} Try again.")
    response["Retry-After"] = "1"
    return response


streams = Slots(share_of_threads("streams"))
