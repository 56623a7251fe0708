"""Bytes that are hardly HTTP, to a running server: no 5xx, and it serves on."""

import os
import random
import re
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import httpx

from tests.fuzz.findings import FINDINGS, SEED
from tests.fuzz.raw import raw_stream
from tests.live import LiveStack

PART = "raw"
STREAMS = int(os.environ.get("RAW_STREAMS") or 400)
AT_ONCE = 8
# A body that does not come is waited for 10 s; the machine may be slow.
MOST_SECONDS = 60
STATUS = re.compile(rb"^HTTP/1\.[01] (\d{3}) ", re.MULTILINE)


def exchange(port: int, sent: bytes) -> bytes | None:
    """Send all and end; return what is answered, None if it takes too long."""
    answer = bytearray()
    with socket.create_connection(("127.0.0.1", port), timeout=MOST_SECONDS) as client:
        try:
            client.sendall(sent)
            client.shutdown(socket.SHUT_WR)
        except TimeoutError:
            return None
        except OSError:
            # It hung up before it had read all; what it said may still be there.
            pass
        try:
            while piece := client.recv(65536):
                answer += piece
        except TimeoutError:
            return None
        except OSError:
            pass
    return bytes(answer)


def streams() -> Iterator[bytes]:
    chance = random.Random(SEED)
    for _ in range(STREAMS):
        yield raw_stream(chance)


def test_no_stream_of_bytes_makes_the_server_fail(live_stack: LiveStack) -> None:
    web = live_stack.pid("web")
    log = live_stack.data_dir / "logs" / "web.log"
    logged = log.stat().st_size
    sent = list(streams())

    with ThreadPoolExecutor(AT_ONCE) as pool:
        answers = list(pool.map(lambda data: exchange(live_stack.port, data), sent))

    for data, answer in zip(sent, answers, strict=True):
        if answer is None:
            FINDINGS.add(PART, f"held for more than {MOST_SECONDS} s", data[:300])
            continue
        statuses = [int(status) for status in STATUS.findall(answer)]
        # Closing without a word is an answer to what is no HTTP.
        FINDINGS.count(PART, statuses[0] if statuses else 0)
        for status in statuses:
            if status >= 500:
                FINDINGS.add(PART, f"answers {status}", data[:300])
    with httpx.Client(base_url=live_stack.url, timeout=60) as client:
        assert client.get("/health").status_code == 200
        assert client.get("/api/v1/devices").status_code == 401
    assert live_stack.pid("web") == web
    with log.open("rb") as file:
        file.seek(logged)
        written = file.read()
    with suppress(ValueError):
        FINDINGS.add(
            PART, "logs a traceback", written[written.index(b"Traceback") :][:800]
        )
    assert FINDINGS.sent(PART) > STREAMS * 0.9
    assert not FINDINGS.of(PART)
