"""No answer of any host ends the agent, stops the application or wedges the device."""

import gzip
import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from devices.agent.protocol import (
    ProtocolError,
    number,
    parse_order,
    seconds_of,
)
from devices.agent.transport import (
    HttpTransport,
    InsecureAddressError,
    TransportError,
    UnavailableError,
)
from tests.devices.agent.device_process import DeviceProcess, program, sha256
from tests.devices.agent.protocol_server import API_KEY, ProtocolServer
from tests.devices.agent.test_process import WAY, order_and_wait
from tests.waiting import wait_until

DIGITS = "9" * 5000
HUGE = "9" * 400
LATER = "Mon, 01 Jan 2035 00:00:00 +99999999999999999999"
NESTED = "[" * 900_000


def raw(status: str, headers: dict[str, str], body: str | bytes = "") -> bytes:
    """Give an answer as it goes over the wire; it ends where its connection does."""
    content = body if isinstance(body, bytes) else body.encode()
    lines = [f"HTTP/1.1 {status}", *(f"{k}: {v}" for k, v in headers.items()), "", ""]
    return "\r\n".join(lines).encode("latin-1") + content


def answer(text: str, **headers: str) -> bytes:
    length = {"Content-Length": str(len(text))}
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return raw("200 OK", {"Content-Type": "application/json", **length, **named}, text)


UNREADABLE_IMAGES = {
    "length in superscript": raw("200 OK", {"Content-Length": "\xb2"}, "xx"),
    "length of many digits": raw("200 OK", {"Content-Length": DIGITS}, "xx"),
    "first byte in superscript": raw(
        "206 Part", {"Content-Range": "bytes \xb2-4/20000"}, "xx"
    ),
    "first byte of many digits": raw(
        "206 Part", {"Content-Range": f"bytes {DIGITS}-4/20000"}, "xx"
    ),
    "total in superscript": raw("206 Part", {"Content-Range": "bytes 0-4/\xb3"}, "xx"),
    "total of many digits": raw(
        "206 Part", {"Content-Range": f"bytes 0-4/{DIGITS}"}, "xx"
    ),
    "range without a range": raw("206 Part", {}, "xx"),
    "wait until a date of a far zone": raw(
        "503 Busy", {"Retry-After": LATER, "Date": LATER}
    ),
    "refusal nested deeply": raw("500 Fault", {}, NESTED),
    "redirect to a port that is none": raw(
        "302 Found", {"Location": "http://127.0.0.1:99999999/image"}
    ),
    "redirect to half an address": raw("302 Found", {"Location": "http://[::1/image"}),
    "redirect to another scheme": raw("302 Found", {"Location": "gopher://a/image"}),
    "redirect to a file": raw("302 Found", {"Location": "file:///etc/passwd"}),
    "redirect to itself": raw("302 Found", {"Location": "/image"}),
    "redirect to a long address": raw("302 Found", {"Location": "/" + "a" * 60_000}),
    "header of a long line": raw("200 OK", {"X": "a" * 70_000}, "xx"),
    "interim answer of another kind": raw("103 Early Hints", {"Link": "</a>"}),
    "more headers than are read": raw(
        "200 OK", {f"X-{each}": "x" for each in range(200)}
    ),
    "status that is none": raw("\xb2\xb2\xb2 OK", {}),
    "chunk of a size that is none": raw(
        "200 OK", {"Transfer-Encoding": "chunked"}, b"\xb2\r\nxx\r\n"
    ),
    "chunk of a size below zero": raw(
        "200 OK", {"Transfer-Encoding": "chunked"}, b"-5\r\nxx\r\n"
    ),
}

UNREADABLE_LOGINS = {
    "expiry of many digits": answer(f'{{"access": "a", "expiresIn": {HUGE}}}'),
    "expiry that is no number": answer('{"access": "a", "expiresIn": NaN}'),
    "token that is no header": answer('{"access": "a\\r\\nX: b", "expiresIn": 9}'),
    "token beyond ASCII": answer('{"access": "\\u20ac", "expiresIn": 9}'),
    "nested deeply": answer(NESTED),
    "numbers of many digits": answer(f'{{"expiresIn": {DIGITS}}}'),
    "compressed": raw(
        "200 OK", {"Content-Encoding": "gzip"}, gzip.compress(bytes(10_000_000))
    ),
    "longer than any answer": answer('{"access": "' + "a" * 2_000_000 + '"}'),
}
CHUNKED = raw("200 OK", {"Transfer-Encoding": "chunked"})
# How an answer begins, and what follows again and again.
ENDLESS = {
    "status line": (b"HTTP/1.1 200 ", b"O"),
    "header": (b"HTTP/1.1 200 OK\r\nX: ", b"a"),
    "interim answers": (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    "headers of an interim answer": (b"HTTP/1.1 100 Continue\r\n", b"X: y\r\n"),
    "size of a chunk": (CHUNKED, b"0"),
    "extension of a chunk": (CHUNKED + b"2;", b"a"),
    "trailers": (CHUNKED + b"2\r\nxx\r\n0\r\n", b"X: y\r\n"),
}


class RawServer:
    """Answers every request with the same bytes, then goes on with `drips` for ever."""

    def __init__(self, content: bytes, *, drips: bytes = b"") -> None:
        self._content = content
        self._drips = drips
        self._receiver = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._receiver.getsockname()[1]}"
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._is_over.set()
        with socket.create_connection(self._receiver.getsockname()):
            pass
        self._thread.join(10)
        self._receiver.close()

    def _serve(self) -> None:
        while not self._is_over.is_set():
            connection, _ = self._receiver.accept()
            with connection:
                self._answer(connection)

    def _answer(self, connection: socket.socket) -> None:
        try:
            connection.recv(65536)
            connection.sendall(self._content)
            while self._drips and not self._is_over.wait(0.01):
                connection.sendall(self._drips)
        except OSError:
            return


@contextmanager
def answering(content: bytes, *, drips: bytes = b"") -> Iterator[HttpTransport]:
    """Give the transport of a device to whose every call this is the answer."""
    server = RawServer(content, drips=drips)
    try:
        transport = HttpTransport(
            server.url, "device-1", "key", read_timeout_seconds=1.0
        )
        # Logged in already, so that the first answer is the one to the call.
        transport._token, transport._token_expires_at = "token", float("inf")
        yield transport
    finally:
        server.close()


@pytest.mark.parametrize("name", UNREADABLE_IMAGES)
def test_unreadable_answer_to_a_download_is_none(name: str) -> None:
    with (
        answering(UNREADABLE_IMAGES[name]) as transport,
        pytest.raises(TransportError),
        transport.download("/image", first=0, last=4, etag="") as body,
    ):
        list(body.blocks)


@pytest.mark.parametrize("name", UNREADABLE_LOGINS)
def test_unreadable_answer_to_a_login_is_none(name: str) -> None:
    with answering(UNREADABLE_LOGINS[name]) as transport:
        with pytest.raises(UnavailableError):
            transport.log_in()

        assert transport._token == "token"


def test_end_of_a_key_in_a_date_of_a_far_zone_is_not_known() -> None:
    content = answer(
        '{"access": "a", "expiresIn": 9, "keyExpiresAt": "2035-01-01T00:00:00Z"}',
        Date=LATER,
    )
    with answering(content) as transport:
        transport.log_in()

        assert transport._token == "a"


@pytest.mark.parametrize("seconds", [HUGE, "NaN", "-1", "1e999", '"60"', "true"])
def test_odd_heartbeat_interval_is_not_taken(seconds: str) -> None:
    with answering(answer(f'{{"nextHeartbeatSeconds": {seconds}}}')) as transport:
        found = transport.send_heartbeat({})

    assert found.next_heartbeat_seconds is None


@pytest.mark.parametrize("interval", ["\xb2", DIGITS, "nan", "1e999", LATER])
def test_odd_poll_interval_is_not_taken(interval: str) -> None:
    with answering(answer("{}", Poll_Interval=interval)) as transport:
        assert transport.poll().poll_interval_seconds is None


@pytest.mark.parametrize("key", ['"\\ud800"', '"a b"', '"\\u00e9"', '""', "7", "[]"])
def test_key_that_no_file_or_header_takes_is_none(key: str) -> None:
    with (
        answering(answer(f'{{"apiKey": {key}}}')) as transport,
        pytest.raises(UnavailableError),
    ):
        transport.ask_for_key()


@pytest.mark.parametrize(
    "head",
    [
        raw("302 Found", {"Location": "http://[::1/image"}),
        raw("500 Fault", {}),
        raw("200 OK", {}),
    ],
)
def test_answer_that_never_ends_is_left(head: bytes) -> None:
    with answering(head, drips=b" ") as transport, pytest.raises(UnavailableError):
        transport.poll()


@pytest.mark.parametrize("part", ENDLESS)
def test_answer_of_which_a_part_never_ends_is_left(part: str) -> None:
    begins, goes_on = ENDLESS[part]

    with (
        answering(begins, drips=goes_on) as transport,
        pytest.raises(UnavailableError),
        transport.download("/image", first=0, last=4, etag="") as body,
    ):
        list(body.blocks)


def test_refusal_that_never_ends_still_says_its_status() -> None:
    with (
        answering(raw("503 Busy", {"Retry-After": "7"}), drips=b" ") as transport,
        pytest.raises(UnavailableError) as raised,
    ):
        transport.poll()

    assert (raised.value.status, raised.value.retry_after_seconds) == (503, 7.0)


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:99999999/image",
        "http://127.0.0.1:0/image",
        "http://127.0.0.1:\xb2/image",
        "http://[::1/image",
        "http://127.0.0.1/im age",
        "http://127.0.0.1/\u00e9",
        "http://127.0.0.1/\r\nX: y",
        "https:///image",
        "x" * 10_000,
    ],
)
def test_download_address_that_is_none_is_refused(url: str) -> None:
    transport = HttpTransport("http://127.0.0.1:1", "device-1", "key")

    with (
        pytest.raises(InsecureAddressError),
        transport.download(url, first=0, last=4, etag=""),
    ):
        pass


@pytest.mark.parametrize("text", ["", "-1", "+1", " 1", "1_0", "\xb2", "\u0664", "1e3"])
def test_number_is_of_ascii_digits_alone(text: str) -> None:
    assert number(text) is None


def test_number_has_a_bounded_length() -> None:
    assert number("9" * 15) == 10**15 - 1
    assert number("9" * 16) is None
    assert number("007") == 7


def test_seconds_are_finite_and_not_negative() -> None:
    assert seconds_of(1.5) == 1.5
    assert seconds_of(0) == 0.0
    for each in (-1, True, "1", None, float("nan"), float("inf"), 10**400):
        assert seconds_of(each) is None


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("source", []),
        ("source", {}),
        ("action", "x" * 100_000),
        ("firmware", []),
        ("manifest", None),
    ],
)
def test_odd_order_is_not_understood(key: str, value: object) -> None:
    instruction = {"updateId": "1", "action": "install", "firmware": {}, "manifest": ""}

    with pytest.raises(ProtocolError):
        parse_order({**instruction, key: value})


@pytest.mark.parametrize("update_id", ["", "\u00e9", "a/b", "a b", "\u0661", "x" * 65])
def test_id_of_an_order_is_of_few_characters(update_id: str) -> None:
    with pytest.raises(ProtocolError, match=r"^updateId:"):
        parse_order({"updateId": update_id, "action": "install", "firmware": {}})


@pytest.mark.parametrize("etag", ['"a"\r\n\tX: b', '"\xb2"', '"a" "b"', 'W/"a"', "a"])
def test_validator_that_no_header_takes_is_not_kept(etag: str) -> None:
    content = raw("200 OK", {"Content-Length": "2", "ETag": etag}, "xx")
    with (
        answering(content) as transport,
        transport.download("/image", first=0, last=1, etag="") as body,
    ):
        assert body.etag == ""


def test_validator_that_no_header_takes_is_not_sent(
    device: DeviceProcess, server: ProtocolServer
) -> None:
    transport = HttpTransport(server.url, "device-1", API_KEY)
    server.images["ab"] = b"image"
    path = "/api/v1/firmware/ab/download"

    for etag in ('"a"\r\n\tX: b', '"good"'):
        with transport.download(path, first=1, last=2, etag=etag):
            pass

    sent = [each.headers.get("If-Range") for each in server.downloads()]
    assert sent == [None, '"good"']


# The whole agent


def poisoned_order() -> dict[str, object]:
    """Give an order whose id goes into no address and that would be refused."""
    return {
        "updateId": "\u00e9",
        "action": "install",
        "firmware": {
            "version": "9.0.0",
            "model": "sensor-v1",
            "size": 1,
            "checksum": "0" * 64,
            "signature": "",
            "signatureAlgorithm": "",
            "keyId": "",
            "downloadUrl": "/",
        },
        "manifest": "",
        "manifestSignature": "",
        "rebootRequired": False,
    }


def test_update_gets_through_all_unreadable_answers(
    device: DeviceProcess, server: ProtocolServer
) -> None:
    image = program("2.0.0")
    polls = [
        NESTED,
        f'{{"updateId": {DIGITS}}}',
        '{"updateId": "1", "action": "install", "firmware": {}, "source": []}',
        json.dumps(poisoned_order()),
        "\ud800".encode("utf-8", "surrogatepass").decode("latin-1"),
    ]
    # Five refusals in a row end a download: of the redirects three are enough.
    redirects = [name for name in UNREADABLE_IMAGES if name.startswith("redirect")]
    images = [
        each for name, each in UNREADABLE_IMAGES.items() if name not in redirects[3:]
    ]
    server.faults.raw_answers = {
        "/device-token": list(UNREADABLE_LOGINS.values()),
        "/health": [
            answer(f'{{"nextHeartbeatSeconds": {HUGE}}}'),
            answer(NESTED),
            raw("500 Fault", {"Retry-After": LATER, "Date": LATER}),
        ],
        "/update": [answer(each) for each in polls],
        "/reports": [raw("500 Fault", {}, NESTED), answer(NESTED)],
        "/download": images,
    }
    device.start()

    claim = order_and_wait(device, image, "2.0.0")

    assert server.statuses(claim["updateId"])[-3:] == WAY[-3:]
    assert not any(server.faults.raw_answers.values())
    # Each program was started once: nothing of this has touched it.
    assert device.executed() == [sha256(device.factory), sha256(image)]


def test_download_address_that_is_none_fails_the_order_alone(
    device: DeviceProcess, server: ProtocolServer
) -> None:
    device.start()

    report = order_and_wait(
        device,
        program("2.0.0"),
        "2.0.0",
        firmware_changes={"downloadUrl": "http://127.0.0.1:99999999/image"},
    )

    assert report["errorCode"] == "download_failed"
    claim = order_and_wait(device, program("3.0.0"), "3.0.0")
    assert claim["status"] == "confirming"


def test_saved_order_that_can_never_be_reported_is_set_aside(
    device: DeviceProcess, server: ProtocolServer
) -> None:
    device.start()
    claimed = program("2.0.0")
    order_and_wait(device, claimed, "2.0.0")
    wait_until(lambda: device.state_phase() == "idle", what="the end of the order")
    device.stop()
    # As an agent of old has saved it.
    state = device.state()
    state.update(phase="failing", order=poisoned_order(), pending_sequence=1)
    state["failure"] = {"code": "manifest_refused", "message": ""}
    (device.data / "state.json").write_text(json.dumps(state))

    device.start()

    claim = order_and_wait(device, program("3.0.0"), "3.0.0")
    assert claim["status"] == "confirming"


@pytest.fixture
def blocked(device: DeviceProcess) -> Path:
    """Something that the agent does not expect: a file where it keeps its downloads."""
    device.data.mkdir()
    place = device.data / "downloads"
    place.write_text("in the way")
    return place


def test_fault_of_the_agent_keeps_the_application_running(
    device: DeviceProcess, server: ProtocolServer, blocked: Path
) -> None:
    device.limits["retry_first_seconds"] = 0.5
    device.limits["retry_ceiling_seconds"] = 0.5
    device.provision()
    device.start()
    image = program("2.0.0")
    update_id = server.order(device.device_id, image, "2.0.0")
    wait_until(lambda: "fault of the agent" in device.log(), what="a fault")
    beats = len(server.heartbeats)
    wait_until(lambda: len(server.heartbeats) > beats, what="a heartbeat after it")

    blocked.unlink()

    server.wait_for(update_id, "confirming")
    assert device.executed() == [sha256(device.factory), sha256(image)]


def test_order_at_which_the_agent_fails_is_given_up(
    device: DeviceProcess, server: ProtocolServer, blocked: Path
) -> None:
    device.start()

    report = order_and_wait(device, program("2.0.0"), "2.0.0")

    assert report["errorCode"] == "install_failed"
    assert "The agent itself failed" in report["message"]
    assert device.executed() == [sha256(device.factory)]
