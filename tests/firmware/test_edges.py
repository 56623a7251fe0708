"""Addresses in front of a bucket, and settings of storage that cannot be right."""

import base64
import hashlib
import hmac
import json
import secrets
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from django.core.exceptions import ImproperlyConfigured

from firmware.links import edge_link
from firmware.models import Firmware
from firmware.reachability import FAILED_SECONDS, SEEN_SECONDS, Reachability
from firmware.services.delivery import download_link
from firmware.storage_locations import check_settings, download_bases, location_names
from tests.firmware.factories import FirmwareFactory
from tests.live import PROJECT_DIR, clean_environment
from tests.s3 import S3Server, use_bucket

SECRET = "0123456789abcdef0123456789abcdef"
CONTENT = secrets.token_bytes(5000)


class Edge:
    """A stranger in front of a bucket: checks expiry and token, gives the file."""

    def __init__(self, folder: Path) -> None:
        handler = type("BoundHandler", (_Handler,), {"folder": folder})
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.base = f"http://127.0.0.1:{self._http.server_port}/fw"
        self._thread = threading.Thread(
            target=self._http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True
        )
        self._thread.start()

    def close(self) -> None:
        self._http.shutdown()
        self._http.server_close()
        self._thread.join(5)


class _Handler(BaseHTTPRequestHandler):
    folder: Path

    def log_message(self, *_arguments: object) -> None:
        pass

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        expires = query.get("expires", "")
        digest = hmac.digest(
            SECRET.encode(), f"{parts.path}\n{expires}".encode(), "sha256"
        )
        token = base64.urlsafe_b64encode(digest).decode().rstrip("=")
        is_good = hmac.compare_digest(token, query.get("token", ""))
        if not is_good or int(expires) < time.time():
            self.send_error(403)
            return
        content = (self.folder / Path(parts.path).name).read_bytes()
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


@pytest.fixture
def bucket(rclone_s3: S3Server, settings: Any, tmp_path: Path, db: None) -> Path:
    """A bucket that encrypts by itself; its folder."""
    name = rclone_s3.make_bucket(f"edge-{secrets.token_hex(4)}")
    settings.FIRMWARE_DIR = tmp_path
    use_bucket(settings, rclone_s3, name)
    settings.S3_ENCRYPTION = "AES256"
    settings.DOWNLOAD_SECRET = SECRET
    return rclone_s3.folder / name


@pytest.fixture
def edges(bucket: Path, settings: Any) -> Iterator[tuple[Edge, Edge]]:
    """One in front for the region EU, one for everybody."""
    pair = Edge(bucket), Edge(bucket)
    settings.DOWNLOAD_BASES = {"EU": [pair[0].base], "*": [pair[1].base + "/"]}
    yield pair
    for edge in pair:
        edge.close()


def link_for(firmware: Firmware, region: str) -> str:
    link = download_link(firmware, region=region)
    assert link is not None
    return link


def test_a_region_is_led_to_its_own_edge(edges: tuple[Edge, Edge]) -> None:
    firmware = FirmwareFactory.create(content=CONTENT)

    own = link_for(firmware, "EU")
    other = link_for(firmware, "APAC")

    assert own.startswith(edges[0].base + "/")
    assert other.startswith(edges[1].base + "/")
    assert httpx.get(own).content == httpx.get(other).content == CONTENT


def test_an_edge_that_is_down_is_followed_by_the_next_and_then_by_the_bucket(
    edges: tuple[Edge, Edge], settings: Any
) -> None:
    firmware = FirmwareFactory.create(content=CONTENT)

    edges[0].close()
    second = link_for(firmware, "EU")
    settings.DOWNLOAD_BASES = {"EU": [edges[0].base]}
    third = link_for(firmware, "EU")

    assert second.startswith(edges[1].base)
    assert third.startswith(settings.S3_ENDPOINT)
    assert httpx.get(third).content == CONTENT


def test_the_token_of_an_edge_opens_one_image_until_its_end(
    edges: tuple[Edge, Edge],
) -> None:
    firmware, other = FirmwareFactory.create(), FirmwareFactory.create()
    link = link_for(firmware, "EU")
    expires = parse_qs(urlsplit(link).query)["expires"][0]

    later = link.replace(expires, str(int(expires) + 3600))
    foreign = link.replace(firmware.storage_name, other.storage_name)

    assert int(expires) <= time.time() + 60
    assert httpx.get(link).status_code == 200
    assert httpx.get(later).status_code == 403
    assert httpx.get(foreign).status_code == 403


def test_the_token_is_the_documented_hmac() -> None:
    # openssl dgst -sha256 -hmac SECRET -binary | basenc --base64url | tr -d =
    message = b"/fw/0f.bin\n1700000000"
    expected = base64.urlsafe_b64encode(
        hmac.new(SECRET.encode(), message, hashlib.sha256).digest()
    )
    link = edge_link(
        "https://cdn.example/fw", "0f.bin", secret=SECRET, expires=1_700_000_000
    )

    token = expected.decode().rstrip("=")
    assert link == f"https://cdn.example/fw/0f.bin?expires=1700000000&token={token}"


# Settings

MAIN = {"S3_BUCKET": "images"}
PLAIN = {**MAIN, "S3_ENCRYPTION": "AES256"}
BASES = {"*": ["https://cdn.example"]}


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"S3_BUCKETS": {"eu": {"bucket": "x"}}}, "HOTSWAP_S3_BUCKET,"),
        ({**MAIN, "S3_BUCKETS": {"EU!": {"bucket": "x"}}}, "HOTSWAP_S3_BUCKETS"),
        ({**MAIN, "S3_BUCKETS": {"main": {"bucket": "x"}}}, "HOTSWAP_S3_BUCKETS"),
        ({**MAIN, "S3_BUCKETS": {"eu": ["x"]}}, "must be an object"),
        ({**MAIN, "S3_BUCKETS": {"eu": {}}}, "'bucket' is missing"),
        ({**MAIN, "S3_BUCKETS": {"eu": {"buckett": "x"}}}, "no 'buckett'"),
        ({**MAIN, "S3_BUCKETS": {"eu": {"bucket": 7}}}, "'bucket' must be a text"),
        ({**MAIN, "S3_BUCKETS": {"eu": {"bucket": "x", "serves": "EU"}}}, "'serves'"),
        ({**MAIN, "S3_BUCKETS": {"eu": {"bucket": "x", "serves": ["MARS"]}}}, "MARS"),
        ({"S3_ENCRYPTION": "AES256"}, "HOTSWAP_S3_ENCRYPTION"),
        ({**MAIN, "S3_ENCRYPTION": "rot13"}, "HOTSWAP_S3_ENCRYPTION"),
        ({**PLAIN, "S3_KMS_KEY": "key-1"}, "HOTSWAP_S3_KMS_KEY"),
        ({**PLAIN, "S3_LINK_SECONDS": 61}, "HOTSWAP_S3_LINK_SECONDS"),
        ({**PLAIN, "S3_LINK_SECONDS": 0}, "HOTSWAP_S3_LINK_SECONDS"),
        ({**PLAIN, "DOWNLOAD_BASES": BASES}, "HOTSWAP_DOWNLOAD_SECRET"),
        (
            {**MAIN, "DOWNLOAD_BASES": BASES, "DOWNLOAD_SECRET": SECRET},
            "HOTSWAP_S3_ENCRYPTION",
        ),
        (
            {**PLAIN, "DOWNLOAD_BASES": {"MARS": []}, "DOWNLOAD_SECRET": SECRET},
            "MARS",
        ),
        (
            {**PLAIN, "DOWNLOAD_BASES": {"EU": "x"}, "DOWNLOAD_SECRET": SECRET},
            "HOTSWAP_DOWNLOAD_BASES",
        ),
        (
            {
                **PLAIN,
                "DOWNLOAD_BASES": {"EU": ["ftp://cdn.example"]},
                "DOWNLOAD_SECRET": SECRET,
            },
            "HOTSWAP_DOWNLOAD_BASES",
        ),
        (
            {
                **PLAIN,
                "DOWNLOAD_BASES": {"EU": ["https://cdn.example/?a=b"]},
                "DOWNLOAD_SECRET": SECRET,
            },
            "HOTSWAP_DOWNLOAD_BASES",
        ),
    ],
)
def test_a_wrong_setting_is_named(
    settings: Any, changes: dict[str, Any], named: str
) -> None:
    for name, value in changes.items():
        setattr(settings, name, value)

    with pytest.raises(ImproperlyConfigured) as refused:
        check_settings()

    assert named in str(refused.value)


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("HOTSWAP_S3_BUCKETS", "{not json"),
        ("HOTSWAP_S3_BUCKETS", "[]"),
        ("HOTSWAP_S3_ENCRYPTION", "rot13"),
    ],
)
def test_a_server_with_a_wrong_setting_says_which_before_it_starts(
    variable: str, value: str
) -> None:
    run = subprocess.run(
        [sys.executable, "manage.py", "prepare"],
        cwd=PROJECT_DIR,
        env={
            **clean_environment(),
            "DJANGO_SETTINGS_MODULE": "hotswap.settings.local",
            "HOTSWAP_S3_BUCKET": "images",
            variable: value,
        },
        capture_output=True,
        text=True,
        check=False,
    )

    assert run.returncode != 0
    assert variable in run.stderr


def test_the_order_of_places_is_region_then_main_then_as_written(settings: Any) -> None:
    settings.S3_BUCKET = "images"
    settings.S3_BUCKETS = json.loads(
        """{"us": {"bucket": "u", "serves": ["US-EAST", "US-WEST"]},
            "eu": {"bucket": "e", "serves": ["EU"]},
            "spare": {"bucket": "s"}}"""
    )
    check_settings()

    assert location_names() == ["main", "us", "eu", "spare"]
    assert location_names("EU") == ["eu", "main", "us", "spare"]
    assert location_names("APAC") == ["main", "us", "eu", "spare"]


def test_the_bases_of_a_region_come_before_those_of_all(settings: Any) -> None:
    settings.S3_BUCKET = "images"
    settings.S3_ENCRYPTION = "AES256"
    settings.DOWNLOAD_SECRET = SECRET
    settings.DOWNLOAD_BASES = {
        "EU": ["https://eu.example/"],
        "*": ["https://a.example"],
    }

    assert download_bases("EU") == ["https://eu.example", "https://a.example"]
    assert download_bases("APAC") == ["https://a.example"]


def test_a_failure_is_remembered_for_a_short_time() -> None:
    now = [100.0]
    memory = Reachability(lambda: now[0])

    memory.note_failure("a")
    at_once = memory.has_failed("a"), memory.has_failed("b")
    now[0] += FAILED_SECONDS + 0.1

    assert at_once == (True, False)
    assert not memory.has_failed("a")


def test_an_answer_is_trusted_for_a_shorter_time() -> None:
    now = [100.0]
    memory = Reachability(lambda: now[0])

    memory.note_success("a")
    at_once = memory.was_seen("a")
    now[0] += SEEN_SECONDS + 0.1
    later = memory.was_seen("a")
    memory.note_success("a")
    memory.note_failure("a")

    assert (at_once, later) == (True, False)
    assert not memory.was_seen("a")
