"""Uploads over real sockets: memory, lies, and clients that go away."""

import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from tests.firmware.forms import BOUNDARY, CONTENT_TYPE, form, parts_of
from tests.live import LiveStack
from tests.waiting import wait_until

pytestmark = pytest.mark.stack
MIB = 1024 * 1024
CAP = 100 * MIB
# Of the embedded stack (`hotswap.stack`).
WEB_THREADS = 16
MODEL = "live-uploads"
PIECE = bytes(range(256)) * 256


@pytest.fixture(scope="module")
def http(live_stack: LiveStack) -> Iterator[httpx.Client]:
    """A client with the token of an Admin, and a model to upload for."""
    with httpx.Client(base_url=live_stack.url, timeout=120) as client:
        tokens = client.post(
            "/api/v1/auth/token",
            json={
                "username": live_stack.admin_username,
                "password": live_stack.admin_password,
            },
        ).json()
        client.headers["Authorization"] = f"Bearer {tokens['access']}"
        client.post("/api/v1/device-models", json={"name": MODEL})
        yield client


@pytest.fixture
def kept(live_stack: LiveStack, http: httpx.Client) -> Callable[[], tuple[int, int]]:
    """Count the rows of the model, and the files of the store and of the intake."""
    folder = live_stack.data_dir / "firmware"

    def count() -> tuple[int, int]:
        rows = http.get(f"/api/v1/firmware?model={MODEL}&count=true").json()["count"]
        files = [path for path in folder.rglob("*") if path.is_file()]
        return rows, len(files)

    return count


def large_body(size: int, version: str) -> Iterator[bytes]:
    """Give the body of an upload piece by piece."""
    head, tail = framing(version)
    yield head
    for _ in range(size // len(PIECE)):
        yield PIECE
    yield PIECE[: size % len(PIECE)]
    yield tail


def framing(version: str) -> tuple[bytes, bytes]:
    whole = form(parts_of(b"<>", {"model": MODEL, "version": version}))
    head, _, tail = whole.partition(b"<>")
    return head, tail


def send_large(http: httpx.Client, size: int, version: str) -> httpx.Response:
    length = size + sum(map(len, framing(version)))
    return http.post(
        "/api/v1/firmware",
        content=large_body(size, version),
        headers={"Content-Type": CONTENT_TYPE, "Content-Length": str(length)},
    )


class PeakMemory:
    """Watch the memory of the web processes while a block runs."""

    def __init__(self, pid: int) -> None:
        main = psutil.Process(pid)
        self.processes = [main, *main.children(recursive=True)]
        self.ended = threading.Event()
        self.before = self.peak = self.now()
        self.thread = threading.Thread(target=self.watch)

    def now(self) -> int:
        return sum(process.memory_info().rss for process in self.processes)

    def watch(self) -> None:
        while not self.ended.wait(0.01):
            self.peak = max(self.peak, self.now())

    def __enter__(self) -> "PeakMemory":
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.ended.set()
        self.thread.join()

    @property
    def extra_mib(self) -> float:
        return (self.peak - self.before) / MIB


def raw_request(
    stack: LiveStack, http: httpx.Client, length: int | str | None, **headers: str
) -> socket.socket:
    """Open a socket and send the head of an upload."""
    connection = socket.create_connection(("127.0.0.1", stack.port), timeout=60)
    lines = [
        "POST /api/v1/firmware HTTP/1.1",
        f"Host: 127.0.0.1:{stack.port}",
        f"Authorization: {http.headers['Authorization']}",
        f"Content-Type: {CONTENT_TYPE}",
        "Connection: close",
        *([] if length is None else [f"Content-Length: {length}"]),
        *(f"{name}: {value}" for name, value in headers.items()),
    ]
    connection.sendall("\r\n".join([*lines, "", ""]).encode())
    return connection


def answer_of(connection: socket.socket) -> bytes:
    """Read until the server closes; give the whole answer."""
    answer = b""
    while piece := connection.recv(65536):
        answer += piece
    return answer


def problem_on(connection: socket.socket) -> bytes:
    """Read a problem document, also where the server keeps the connection open."""
    answer = b""
    while not answer.endswith(b"}") and (piece := connection.recv(65536)):
        answer += piece
    return answer


def test_an_image_of_100_mib_is_taken_within_32_mib_of_memory(
    live_stack: LiveStack, http: httpx.Client
) -> None:
    send_large(http, MIB, "1.0.0")
    pid = live_stack.pid("web")
    assert pid is not None

    with PeakMemory(pid) as memory:
        response = send_large(http, CAP, "1.0.1")

    assert response.status_code == 201, response.text
    assert response.json()["size"] == CAP
    assert memory.extra_mib <= 32


def test_one_byte_more_is_413_though_the_client_sends_all_of_it(
    http: httpx.Client, kept: Callable[[], tuple[int, int]]
) -> None:
    before = kept()

    response = send_large(http, CAP + 1, "1.0.2")

    assert response.status_code == 413
    assert response.json()["code"] == "firmware_too_large"
    assert kept() == before


def test_a_refusal_arrives_though_the_client_goes_on_sending(
    live_stack: LiveStack, http: httpx.Client, kept: Callable[[], tuple[int, int]]
) -> None:
    before = kept()
    with httpx.Client(base_url=live_stack.url, timeout=60) as stranger:
        response = send_large(stranger, 20 * MIB, "1.0.3")

    assert response.status_code == 401
    assert response.json()["code"] == "not_authenticated"
    assert kept() == before


def test_a_large_json_body_is_answered_too(http: httpx.Client) -> None:
    response = http.post(
        "/api/v1/device-models",
        content=b'{"name": "' + b"x" * (20 * MIB) + b'"}',
        headers={"Content-Type": "application/json"},
    )

    assert response.status_code == 413
    assert response.json()["code"] == "too_large"


@pytest.mark.parametrize("sent", [0, 1000, 3 * MIB])
def test_a_client_that_goes_away_leaves_nothing(
    live_stack: LiveStack,
    http: httpx.Client,
    kept: Callable[[], tuple[int, int]],
    sent: int,
) -> None:
    before = kept()
    head, _ = framing("1.0.4")
    connection = raw_request(live_stack, http, 50 * MIB)
    connection.sendall(head + PIECE * (sent // len(PIECE) + 1))
    if sent:
        incoming = live_stack.data_dir / "firmware" / "incoming"
        wait_until(lambda: list(incoming.glob("*.part")), what="the upload has begun")

    connection.close()

    wait_until(lambda: kept() == before, what="nothing is left of it")


def test_as_many_stalled_uploads_as_threads_are_told_and_hold_none(
    live_stack: LiveStack, http: httpx.Client, kept: Callable[[], tuple[int, int]]
) -> None:
    before = kept()
    head, _ = framing("1.0.9")
    stalled = [raw_request(live_stack, http, MIB) for _ in range(WEB_THREADS)]
    for connection in stalled:
        connection.sendall(head + PIECE)

    answers = [problem_on(connection) for connection in stalled]

    told = [answer for answer in answers if answer.startswith(b"HTTP/1.1 408")]
    refused = [answer for answer in answers if answer.startswith(b"HTTP/1.1 503")]
    assert told
    assert len(told) + len(refused) == WEB_THREADS, answers
    assert all(b'"code":"upload_stalled"' in answer for answer in told)
    assert all(b'"code":"busy"' in answer for answer in refused)
    # They are still connected, and still say nothing.
    assert kept() == before
    for connection in stalled:
        connection.close()


def test_a_length_over_the_body_is_408_when_the_client_waits_for_an_answer(
    live_stack: LiveStack, http: httpx.Client, kept: Callable[[], tuple[int, int]]
) -> None:
    before = kept()
    body = form(parts_of(b"image", {"model": MODEL, "version": "1.0.10"}))
    connection = raw_request(live_stack, http, len(body) + 100)
    connection.sendall(body)

    answer = problem_on(connection)
    connection.close()

    assert answer.startswith(b"HTTP/1.1 408")
    assert kept() == before


def test_a_stalled_client_over_the_cap_is_still_told_so(
    live_stack: LiveStack, http: httpx.Client, kept: Callable[[], tuple[int, int]]
) -> None:
    before = kept()
    head, _ = framing("1.0.11")
    connection = raw_request(live_stack, http, CAP + 10 * MIB)
    connection.sendall(head)
    for _ in range(CAP // len(PIECE) + 2):
        connection.sendall(PIECE)

    answer = problem_on(connection)
    connection.close()

    assert answer.startswith(b"HTTP/1.1 413")
    assert kept() == before


@pytest.mark.parametrize(
    "broken",
    [
        b"--" + BOUNDARY.encode() + b"\r\nContent-Disposition: nothing\r\n\r\nx\r\n",
        b"no form at all" * 10_000,
        b"--" + BOUNDARY.encode() + b"\r\n" + b"X-Long: " + b"y" * 200_000,
    ],
    ids=["a part without a name", "no boundary", "an endless header"],
)
def test_a_broken_form_is_400_over_the_wire_too(
    http: httpx.Client, kept: Callable[[], tuple[int, int]], broken: bytes
) -> None:
    before = kept()

    response = http.post(
        "/api/v1/firmware", content=broken, headers={"Content-Type": CONTENT_TYPE}
    )

    assert response.status_code == 400
    assert response.json()["detail"]
    assert kept() == before


def test_a_length_over_the_body_is_400_when_the_client_stops_sending(
    live_stack: LiveStack, http: httpx.Client, kept: Callable[[], tuple[int, int]]
) -> None:
    before = kept()
    body = form(parts_of(b"image", {"model": MODEL, "version": "1.0.5"}))
    connection = raw_request(live_stack, http, len(body) + 100)
    connection.sendall(body)
    connection.shutdown(socket.SHUT_WR)

    answer = answer_of(connection)

    # Some servers hang up on half a request without a word.
    assert answer == b"" or answer.startswith(b"HTTP/1.1 400")
    wait_until(lambda: kept() == before, what="nothing is left of it")


def test_a_length_under_the_body_is_400_and_nothing_is_kept(
    live_stack: LiveStack, http: httpx.Client, kept: Callable[[], tuple[int, int]]
) -> None:
    before = kept()
    body = form(parts_of(b"image" * 100, {"model": MODEL, "version": "1.0.6"}))
    connection = raw_request(live_stack, http, len(body) - 20)
    connection.sendall(body)

    answer = answer_of(connection)

    assert answer.startswith(b"HTTP/1.1 400")
    assert b'"code":"incomplete"' in answer
    assert kept() == before


@pytest.mark.parametrize("length", ["-5", "five", "5, 6", "9" * 30])
def test_a_length_that_is_none_is_refused(
    live_stack: LiveStack,
    http: httpx.Client,
    kept: Callable[[], tuple[int, int]],
    length: str,
) -> None:
    before = kept()
    connection = raw_request(live_stack, http, length)

    answer = answer_of(connection)

    assert answer == b"" or answer.startswith((b"HTTP/1.1 400", b"HTTP/1.1 413"))
    assert kept() == before


def test_a_body_in_chunks_without_a_length_is_told_what_is_missing(
    http: httpx.Client, kept: Callable[[], tuple[int, int]]
) -> None:
    before = kept()

    # The server closes a connection whose body it has not read: none to share.
    with httpx.Client(
        base_url=http.base_url, headers=http.headers, timeout=60
    ) as apart:
        response = apart.post(
            "/api/v1/firmware",
            content=large_body(MIB, "1.0.7"),
            headers={"Content-Type": CONTENT_TYPE},
        )

    assert response.status_code == 411
    assert response.json()["code"] == "length_required"
    assert kept() == before


def test_an_empty_body_is_refused(live_stack: LiveStack, http: httpx.Client) -> None:
    response = http.post(
        "/api/v1/firmware", content=b"", headers={"Content-Type": CONTENT_TYPE}
    )

    assert response.status_code == 400


def test_two_uploads_of_one_version_at_once_are_one_firmware(
    http: httpx.Client, kept: Callable[[], tuple[int, int]]
) -> None:
    rows, files = kept()
    answers: list[Any] = []
    threads = [
        threading.Thread(
            target=lambda: answers.append(send_large(http, 2 * MIB, "1.0.8"))
        )
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(answer.status_code for answer in answers) == [200, 200, 200, 201]
    assert len({answer.json()["id"] for answer in answers}) == 1
    assert kept() == (rows + 1, files + 1)


def test_the_stored_files_belong_to_their_owner_alone(live_stack: LiveStack) -> None:
    images: Path = live_stack.data_dir / "firmware" / "images"

    assert all(path.stat().st_mode & 0o077 == 0 for path in images.iterdir())
