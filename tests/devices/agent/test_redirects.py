"""Downloads that the server leads to another host: what goes along, and resuming."""

import re
import threading
from collections.abc import Iterator
from http.client import HTTPMessage
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from urllib.request import Request

import pytest

from devices.agent.transport import (
    InsecureAddressError,
    RefusedError,
    _RedirectHandler,
)
from tests.devices.agent.device_process import DeviceProcess, program, sha256
from tests.devices.agent.test_process import order_and_wait


class ObjectHost:
    """A store that hands out what a link names; it has ETags of its own.

    Attributes:
        refusals: statuses of the next answers, used up in order.
        cut_at: the answers that hold this byte end before it, once.
        part_status: the status over a part of the image.
        etags: the ETag of each answer, the last one for ever; another copy has
            another.
    """

    def __init__(self, image: bytes) -> None:
        self.image = image
        self.refusals: list[int] = []
        self.cut_at: int | None = None
        self.etags = ['"0f0f-2"']
        self.seen: list[tuple[str, dict[str, str]]] = []
        handler = type("BoundHandler", (_Handler,), {"host": self})
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        # "localhost" is another host than 127.0.0.1 as far as credentials go.
        self.url = f"http://localhost:{self._http.server_port}"
        self._thread = threading.Thread(
            target=self._http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True
        )
        self._thread.start()

        self.part_status = 206

    def close(self) -> None:
        self._http.shutdown()
        self._http.server_close()
        self._thread.join(5)

    def ranges(self) -> list[str]:
        return [headers.get("Range", "") for _, headers in self.seen]


class _Handler(BaseHTTPRequestHandler):
    host: ObjectHost
    protocol_version = "HTTP/1.1"

    def log_message(self, *_arguments: object) -> None:
        pass

    def do_GET(self) -> None:
        host = self.host
        host.seen.append((self.path, dict(self.headers.items())))
        if host.refusals:
            self.send_response(host.refusals.pop(0))
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        etag = host.etags.pop(0) if len(host.etags) > 1 else host.etags[0]
        span = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        first, last, status = 0, len(host.image) - 1, 200
        if span and self.headers.get("If-Range", etag) == etag:
            first, last, status = int(span[1]), int(span[2]), 206
        content = host.image[first : last + 1]
        self.send_response(host.part_status if status == 206 else status)
        self.send_header("ETag", etag)
        self.send_header("Content-Length", str(len(content)))
        if status == 206:
            self.send_header("Content-Range", f"bytes {first}-{last}/{len(host.image)}")
        self.end_headers()
        if host.cut_at is not None and first <= host.cut_at <= last:
            content = content[: host.cut_at - first]
            host.cut_at = None
            self.close_connection = True
        self.wfile.write(content)


@pytest.fixture
def image() -> bytes:
    return program("2.0.0", size_bytes=60_000)


@pytest.fixture
def elsewhere(device: DeviceProcess, image: bytes) -> Iterator[ObjectHost]:
    """Another host that the server leads all downloads to."""
    host = ObjectHost(image)
    device.limits["chunk_bytes"] = 100_000
    device.provision()
    device.server.faults.redirect_downloads_to = host.url
    yield host
    host.close()


@pytest.mark.parametrize("status", [302, 307])
def test_no_credentials_go_to_the_host_of_a_redirect(
    device: DeviceProcess, elsewhere: ObjectHost, image: bytes, status: int
) -> None:
    device.server.faults.redirect_status = status
    device.start()

    claim = order_and_wait(device, image, "2.0.0")

    assert claim["status"] == "confirming"
    assert elsewhere.seen
    for _, headers in elsewhere.seen:
        assert {"authorization", "cookie"}.isdisjoint(map(str.lower, headers))
    assert all("Authorization" in each.headers for each in device.server.downloads())


def test_cut_download_resumes_from_another_copy_with_another_etag(
    device: DeviceProcess, elsewhere: ObjectHost, image: bytes
) -> None:
    elsewhere.cut_at = 30_000
    elsewhere.etags = ['"of-the-first-copy"', '"of-the-second-copy"']
    device.start()

    claim = order_and_wait(device, image, "2.0.0")

    assert claim["status"] == "confirming"
    assert elsewhere.ranges() == ["bytes=0-59999", "bytes=30000-59999"]
    assert all("If-Range" not in headers for _, headers in elsewhere.seen)
    assert device.current_sha256() == sha256(image)


def test_part_under_the_status_of_a_whole_is_taken_for_a_part(
    device: DeviceProcess, elsewhere: ObjectHost, image: bytes
) -> None:
    device.limits["chunk_bytes"] = 25_000
    device.provision()
    elsewhere.part_status = 200
    device.start()

    claim = order_and_wait(device, image, "2.0.0")

    assert claim["status"] == "confirming"
    assert elsewhere.ranges()[1:] == ["bytes=25000-49999", "bytes=50000-59999"]


def test_download_goes_on_when_the_server_gives_the_bytes_itself_again(
    device: DeviceProcess, elsewhere: ObjectHost, image: bytes
) -> None:
    elsewhere.cut_at = 30_000
    # The server leads there once; the second answer of that host never comes.
    device.server.faults.redirects_left = 1
    device.start()

    claim = order_and_wait(device, image, "2.0.0")

    assert claim["status"] == "confirming"
    assert len(elsewhere.seen) == 1
    last = device.server.downloads()[-1]
    assert last.headers["Range"] == "bytes=30000-59999"


@pytest.mark.parametrize("status", [401, 403])
def test_link_that_has_expired_is_asked_of_the_server_anew(
    device: DeviceProcess, elsewhere: ObjectHost, image: bytes, status: int
) -> None:
    elsewhere.refusals = [status, status]
    device.start()

    claim = order_and_wait(device, image, "2.0.0")

    assert claim["status"] == "confirming"
    assert len(device.server.downloads()) == len(elsewhere.seen) == 3
    paths = [each.path for each in device.server.requests]
    last = max(n for n, path in enumerate(paths) if path.endswith("/download"))
    # The other host's 401 says nothing of the token.
    assert paths[:last].count("/api/v1/auth/device-token") == 1


def test_host_that_always_refuses_fails_the_update(
    device: DeviceProcess, elsewhere: ObjectHost, image: bytes
) -> None:
    elsewhere.refusals = [403] * 50
    device.start()

    report = order_and_wait(device, image, "2.0.0")

    assert report["errorCode"] == "path_unauthorized"
    assert "403" in report["message"]
    assert "localhost" in report["message"]


def redirect(source: str, target: str, method: str = "GET") -> Request | None:
    def check(address: str) -> None:
        if address.startswith("http://10."):
            raise InsecureAddressError(address, host="10.0.0.1")

    request = Request(source, headers={"If-Range": '"a"', "Range": "bytes=1-2"})
    request.method = method
    request.add_unredirected_header("Authorization", "Bearer secret")
    return _RedirectHandler(check).redirect_request(
        request, BytesIO(), 307, "", HTTPMessage(), target
    )


def test_redirect_from_https_to_http_is_not_followed() -> None:
    assert redirect("https://a.example/x", "http://a.example/x") is None


def test_redirect_to_an_address_that_is_not_allowed_is_refused() -> None:
    with pytest.raises(RefusedError, match="leads to another host"):
        redirect("http://127.0.0.1/x", "http://10.0.0.1/x")


def test_redirect_of_anything_but_a_download_is_not_followed() -> None:
    assert redirect("https://a.example/x", "https://b.example/x", "POST") is None


def test_range_goes_along_and_the_validator_only_on_the_same_host() -> None:
    same = redirect("https://a.example/x", "https://a.example/y")
    other = redirect("https://a.example/x", "https://b.example/y")

    assert same is not None
    assert other is not None
    assert same.get_header("If-range") == '"a"'
    assert other.get_header("If-range") is None
    assert other.get_header("Range") == "bytes=1-2"
    assert not other.has_header("Authorization")
