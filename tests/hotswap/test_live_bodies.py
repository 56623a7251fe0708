"""Bodies that do not come, and answers that nobody takes, over real sockets."""

import secrets
import socket
from collections.abc import Iterator
from contextlib import ExitStack, suppress

import httpx
import pytest

from tests.deployments.live import LiveAdmin
from tests.live import LiveStack, running_stack
from tests.waiting import wait_until

pytestmark = pytest.mark.stack
# All threads of the embedded stack and some more.
STALLED = 40
SIZE = 8_000_000
JSON = {"Content-Type": "application/json"}
ANONYMOUS = "/api/v1/auth/refresh"
# A form that Django begins to read: it may hold what proves that it is no forged one.
FORM = {
    "Content-Type": "application/x-www-form-urlencoded",
    "Cookie": f"csrftoken={'a' * 32}",
}


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveStack]:
    """A stack that waits for bodies as long as by default, for readers less."""
    with running_stack(
        tmp_path_factory.mktemp("bodies") / "data",
        environment={"HOTSWAP_DOWNLOAD_STALL_SECONDS": "5"},
    ) as stack:
        yield stack


def stall(stack: LiveStack, path: str, **headers: str) -> socket.socket:
    """Announce a body, and send one byte of it."""
    connection = socket.create_connection(("127.0.0.1", stack.port), timeout=60)
    lines = [
        f"POST {path} HTTP/1.1",
        f"Host: 127.0.0.1:{stack.port}",
        "Content-Length: 60000",
        *(f"{name}: {value}" for name, value in (JSON | headers).items()),
    ]
    connection.sendall("\r\n".join([*lines, "", "{"]).encode())
    return connection


def status_of(connection: socket.socket) -> int:
    """Wait for the answer; 0 if the server hangs up."""
    answer = b""
    while b"\r\n" not in answer and (piece := connection.recv(4096)):
        answer += piece
    return int(answer.split()[1]) if answer else 0


@pytest.mark.parametrize(
    ("path", "headers"), [(ANONYMOUS, JSON), ("/admin/login/", FORM)]
)
def test_stalled_bodies_of_strangers_keep_nobody_waiting(
    stack: LiveStack, path: str, headers: dict[str, str]
) -> None:
    admin = LiveAdmin(stack)
    with ExitStack() as opened:
        stalled = [
            opened.enter_context(stall(stack, path, **headers)) for _ in range(STALLED)
        ]
        with httpx.Client(base_url=stack.url, timeout=60) as client:
            alive = [client.get("/health").status_code for _ in range(5)]
        # A body of somebody who is known, too.
        model = admin.post("/device-models", {"name": f"m{len(path)}"})

        statuses = {status_of(connection) for connection in stalled}

    assert alive == [200] * 5
    assert model["name"] == f"m{len(path)}"
    assert statuses <= {408, 503}


def test_stalled_bodies_of_people_leave_room_for_health(stack: LiveStack) -> None:
    admin = LiveAdmin(stack)
    token = str(admin.client.headers["Authorization"])
    with ExitStack() as opened:
        stalled = [
            opened.enter_context(
                stall(stack, "/api/v1/device-models", Authorization=token)
            )
            for _ in range(STALLED)
        ]
        with httpx.Client(base_url=stack.url, timeout=60) as client:
            alive = [client.get("/health").status_code for _ in range(5)]

        statuses = {status_of(connection) for connection in stalled}

    assert alive == [200] * 5
    assert statuses == {408, 503}


def test_answers_that_a_device_does_not_take_keep_nobody_waiting(
    stack: LiveStack,
) -> None:
    admin = LiveAdmin(stack)
    admin.post("/device-models", {"name": "slow"})
    old = admin.upload("slow", "1.0.0", b"old")
    new = admin.upload("slow", "2.0.0", secrets.token_bytes(SIZE))
    (device,) = admin.register("slow", 1, old)
    device.beat()
    admin.post(
        "/deployments",
        {"firmwareId": new["id"], "strategy": "Direct", "targetDevices": [device.name]},
    )
    device.wait_for_order()
    request = "\r\n".join(
        [
            f"GET /api/v1/firmware/{new['id']}/download HTTP/1.1",
            f"Host: 127.0.0.1:{stack.port}",
            f"Authorization: {device.client.headers['Authorization']}",
            *("", ""),
        ]
    ).encode()
    with ExitStack() as opened:
        readers = []
        for _ in range(STALLED):
            reader = opened.enter_context(socket.socket())
            reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16 * 1024)
            reader.settimeout(60)
            reader.connect(("127.0.0.1", stack.port))
            reader.sendall(request)
            readers.append(reader)
        with httpx.Client(base_url=stack.url, timeout=60) as client:
            alive = [client.get("/health").status_code for _ in range(5)]
        beginnings = [reader.recv(12) for reader in readers]
        served = [
            reader
            for reader, beginning in zip(readers, beginnings, strict=True)
            if beginning == b"HTTP/1.1 200"
        ]

        # They are broken off, so that others have their places.
        again = device.client.build_request("GET", f"/firmware/{new['id']}/download")
        wait_until(
            lambda: device.client.send(again).status_code == 200,
            seconds=60,
            what="a place is free",
        )
        received = [taken_from(reader) for reader in served]

    assert alive == [200] * 5
    assert len(served) == 2
    assert set(beginnings) == {b"HTTP/1.1 200", b"HTTP/1.1 429"}
    assert all(size < SIZE for size in received)


def taken_from(reader: socket.socket) -> int:
    """Read what there is; return how much it was."""
    received = 0
    with suppress(ConnectionError):
        while piece := reader.recv(65536):
            received += len(piece)
    return received
