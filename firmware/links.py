"""Short-lived addresses at which a device fetches a plain image from a store.

Rules:
- Whoever holds such an address may read that one image for at most a minute; who may
  have one is decided before.
- The host is part of what S3 signs, so links are signed for the address that devices
  use and not for the one that the server uses.
- An address in front of a bucket (a CDN) cannot be signed by S3's keys: it carries the
  time of its end and an HMAC that the edge recomputes.
- A place that does not answer the server is passed over.
"""

import base64
import hashlib
import hmac
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Protocol
from urllib.parse import quote, urlsplit

import boto3
import httpx
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from django.conf import settings

from firmware import storage_locations
from firmware.reachability import reachability
from firmware.storage_locations import Bucket

logger = logging.getLogger(__name__)
# A device waits for these: short, and asked once in some seconds only.
PROBE_CONNECT_SECONDS = 2.0
PROBE_READ_SECONDS = 3.0


class NoPlaceAnswersError(Exception):
    """No place that holds the image can be reached by the server."""


class NoPlaceHasItError(Exception):
    """Every place answers, and none has the image any more."""


def edge_token(secret: str, path: str, expires: int) -> str:
    """Give the token of a path until a time: base64url of HMAC-SHA-256, no padding.

    Args:
        path: the path of the address as it is requested, with its leading slash.
        expires: the last second at which it is good, Unix time.
    """
    message = f"{path}\n{expires}".encode()
    digest = hmac.new(secret.encode(), message, hashlib.sha256).digest()
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()


def edge_link(base: str, name: str, *, secret: str, expires: int) -> str:
    """Give the address of an image behind a base address, good until a time."""
    address = f"{base}/{quote(name)}"
    token = edge_token(secret, urlsplit(address).path, expires)
    return f"{address}?expires={expires}&token={token}"


def signed_link(bucket: Bucket, name: str, *, seconds: int) -> str:
    """Give the address of an image in a bucket, signed for so many seconds."""
    link: str = _client(bucket, bucket.public_endpoint).generate_presigned_url(
        "get_object",
        Params={"Bucket": bucket.bucket, "Key": name},
        ExpiresIn=seconds,
    )
    return link


def link_to(
    name: str,
    *,
    held_by: Sequence[str],
    region: str,
    on_missing: Callable[[str], None],
) -> str:
    """Give the first address from which a device of a region can have an image.

    The addresses in front come first, then the buckets that hold it, each in the
    region's order. A place that failed a short while ago is asked last.

    Args:
        held_by: the places that hold it, in the region's order.
        on_missing: told each place that turns out not to hold it.

    Raises:
        NoPlaceAnswersError: none of them answers.
        NoPlaceHasItError: all of them answer that it is gone.
    """
    failure: Exception | None = None
    ways: list[_Way] = [
        *(_Edge(base) for base in storage_locations.download_bases(region) if held_by),
        *(_Store(storage_locations.bucket_named(place)) for place in held_by),
    ]
    for way in sorted(ways, key=lambda way: reachability.has_failed(way.address)):
        if reachability.was_seen(way.address):
            return way.link(name)
        try:
            way.ask(name)
        except (BotoCoreError, ClientError, httpx.HTTPError) as error:
            if isinstance(way, _Store) and _is_missing(error):
                on_missing(way.bucket.name)
                continue
            failure = error
            reachability.note_failure(way.address)
            logger.warning(
                "Place of images is passed over",
                extra={"place": way.address, "reason": type(error).__name__},
            )
        else:
            reachability.note_success(way.address)
            return way.link(name)
    if failure is None:
        raise NoPlaceHasItError
    raise NoPlaceAnswersError from failure


class _Way(Protocol):
    """One way to an image: whether it is open, and its address."""

    @property
    def address(self) -> str: ...

    def ask(self, name: str) -> None: ...

    def link(self, name: str) -> str: ...


@dataclass(frozen=True, slots=True)
class _Store:
    """A bucket itself."""

    bucket: Bucket

    @property
    def address(self) -> str:
        return self.bucket.address

    def ask(self, name: str) -> None:
        client = _client(self.bucket, self.bucket.endpoint)
        client.head_object(Bucket=self.bucket.bucket, Key=name)

    def link(self, name: str) -> str:
        return signed_link(self.bucket, name, seconds=settings.S3_LINK_SECONDS)


@dataclass(frozen=True, slots=True)
class _Edge:
    """An address in front of a bucket."""

    base: str

    @property
    def address(self) -> str:
        return self.base

    def ask(self, name: str) -> None:
        timeout = httpx.Timeout(PROBE_READ_SECONDS, connect=PROBE_CONNECT_SECONDS)
        # One byte: an edge that does not know the image yet fetches it by this.
        with httpx.stream(
            "GET", self.link(name), headers={"Range": "bytes=0-0"}, timeout=timeout
        ) as response:
            response.raise_for_status()

    def link(self, name: str) -> str:
        expires = int(time.time()) + settings.S3_LINK_SECONDS
        secret = settings.DOWNLOAD_SECRET
        return edge_link(self.base, name, secret=secret, expires=expires)


def _is_missing(error: Exception) -> bool:
    if not isinstance(error, ClientError):
        return False
    code: int = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    return code == 404


@lru_cache(maxsize=32)
def _client(bucket: Bucket, endpoint: str) -> Any:
    """Make a client that signs for one address; safe to share between threads."""
    return boto3.session.Session(
        aws_access_key_id=bucket.access_key or None,
        aws_secret_access_key=bucket.secret_key or None,
        region_name=bucket.region or None,
    ).client(
        "s3",
        endpoint_url=endpoint or None,
        config=Config(
            signature_version="s3v4",
            # Otherwise a link carries headers that a plain GET does not send.
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
            connect_timeout=PROBE_CONNECT_SECONDS,
            read_timeout=PROBE_READ_SECONDS,
            retries={"total_max_attempts": 1},
            s3={"addressing_style": "path"},
        ),
    )
