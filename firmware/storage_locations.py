"""Where images may lie and how they are given out, read from the settings.

Rules:
- Without a bucket there is one place: a folder of this machine.
- `HOTSWAP_S3_BUCKET` is the place `main`; each entry of `HOTSWAP_S3_BUCKETS` is one
  more, and takes from `main` what it does not say.
- A device is served by the places of its region first, then by `main`, then by the
  others as they are written.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured

MAIN = "main"
FOLDER = "folder"
FRAMES = "frames"
# What S3 calls its two ways of encrypting by itself.
SERVER_SIDE = ("AES256", "aws:kms")
EVERYWHERE = "*"
MAX_LINK_SECONDS = 60
MIN_SECRET_LENGTH = 32
NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,62}", re.ASCII)
PLACE_FIELDS = {
    "bucket",
    "endpoint",
    "publicEndpoint",
    "region",
    "accessKey",
    "secretKey",
    "serves",
}


@dataclass(frozen=True, slots=True)
class Bucket:
    """One bucket.

    Attributes:
        endpoint: address for the server, "" for Amazon's own.
        public_endpoint: address for devices, signed into their links.
        serves: regions of devices that come here first.
    """

    name: str
    bucket: str
    endpoint: str = ""
    public_endpoint: str = ""
    region: str = ""
    access_key: str = ""
    secret_key: str = field(default="", repr=False)
    serves: tuple[str, ...] = ()

    @property
    def address(self) -> str:
        """Where it is, whatever it is called."""
        return f"{self.endpoint}/{self.bucket}"


def buckets() -> tuple[Bucket, ...]:
    """Return the buckets of the settings, `main` first; none if there is a folder.

    Raises:
        ImproperlyConfigured: names the variable that is wrong.
    """
    if not settings.S3_BUCKET:
        if settings.S3_BUCKETS:
            raise ImproperlyConfigured(
                "HOTSWAP_S3_BUCKETS needs HOTSWAP_S3_BUCKET, which is the first of them"
            )
        return ()
    main = Bucket(
        name=MAIN,
        bucket=settings.S3_BUCKET,
        endpoint=settings.S3_ENDPOINT,
        public_endpoint=settings.S3_PUBLIC_ENDPOINT or settings.S3_ENDPOINT,
        region=settings.S3_REGION,
        access_key=settings.S3_ACCESS_KEY,
        secret_key=settings.S3_SECRET_KEY,
    )
    return (main, *_further_buckets(main, settings.S3_BUCKETS))


def _further_buckets(main: Bucket, written: Mapping[str, Any]) -> Iterator[Bucket]:
    for name, given in written.items():
        where = f"HOTSWAP_S3_BUCKETS, {name!r}"
        if NAME.fullmatch(name) is None or name in {MAIN, FOLDER}:
            raise ImproperlyConfigured(
                f"{where}: a name has lower case letters, digits and hyphens, "
                f"and is not {MAIN!r} or {FOLDER!r}"
            )
        if not isinstance(given, dict):
            raise ImproperlyConfigured(f"{where}: must be an object")
        for key, value in given.items():
            if key not in PLACE_FIELDS:
                known = ", ".join(sorted(PLACE_FIELDS))
                raise ImproperlyConfigured(f"{where}: no {key!r}; known are {known}")
            if key != "serves" and not isinstance(value, str):
                raise ImproperlyConfigured(f"{where}: {key!r} must be a text")
        if not given.get("bucket"):
            raise ImproperlyConfigured(f"{where}: 'bucket' is missing")
        endpoint = given.get("endpoint", main.endpoint)
        public = given.get("publicEndpoint") or (
            # Another server than main's has another address for devices, too.
            endpoint if "endpoint" in given else main.public_endpoint
        )
        yield Bucket(
            name=name,
            bucket=given["bucket"],
            endpoint=endpoint,
            public_endpoint=public,
            region=given.get("region", main.region),
            access_key=given.get("accessKey", main.access_key),
            secret_key=given.get("secretKey", main.secret_key),
            serves=_regions(given.get("serves", []), f"{where}: 'serves'"),
        )


def _regions(given: Any, where: str) -> tuple[str, ...]:
    if not isinstance(given, list) or not all(isinstance(each, str) for each in given):
        raise ImproperlyConfigured(f"{where} must be a list of regions")
    for region in given:
        if region not in settings.REGIONS:
            raise ImproperlyConfigured(
                f"{where}: {region!r} is not among HOTSWAP_REGIONS"
            )
    return tuple(given)


def location_names(region: str = "") -> list[str]:
    """Return the names of all places in the order in which a region asks them."""
    known = buckets()
    if not known:
        return [FOLDER]
    return [
        *(each.name for each in known if region and region in each.serves),
        *(each.name for each in known if not (region and region in each.serves)),
    ]


def bucket_named(name: str) -> Bucket:
    """Return a bucket of the settings by its name."""
    return next(each for each in buckets() if each.name == name)


def encrypts_by_store() -> bool:
    """Say whether new images are left to the store's encryption (and redirects)."""
    if settings.S3_ENCRYPTION == FRAMES:
        return False
    if settings.S3_ENCRYPTION not in SERVER_SIDE:
        known = ", ".join((FRAMES, *SERVER_SIDE))
        raise ImproperlyConfigured(f"HOTSWAP_S3_ENCRYPTION must be one of {known}")
    if not settings.S3_BUCKET:
        raise ImproperlyConfigured(
            "HOTSWAP_S3_ENCRYPTION needs HOTSWAP_S3_BUCKET: a folder holds frames only"
        )
    return True


def download_bases(region: str = "") -> list[str]:
    """Return the addresses in front of the buckets, a region's own first.

    Raises:
        ImproperlyConfigured: names the variable that is wrong.
    """
    written = settings.DOWNLOAD_BASES
    where = "HOTSWAP_DOWNLOAD_BASES"
    if not written:
        return []
    if len(settings.DOWNLOAD_SECRET) < MIN_SECRET_LENGTH:
        raise ImproperlyConfigured(
            f"{where} needs HOTSWAP_DOWNLOAD_SECRET, "
            f"{MIN_SECRET_LENGTH} characters or more"
        )
    if not encrypts_by_store():
        raise ImproperlyConfigured(
            f"{where} needs HOTSWAP_S3_ENCRYPTION AES256 or aws:kms: "
            "no device can read the frames"
        )
    for key, bases in written.items():
        if key != EVERYWHERE:
            _regions([key], where)
        if not isinstance(bases, list) or not all(map(_is_base, bases)):
            raise ImproperlyConfigured(
                f"{where}, {key!r}: must be a list of http(s) addresses "
                "without query or fragment"
            )
    own = written.get(region, []) if region else []
    return [base.rstrip("/") for base in (*own, *written.get(EVERYWHERE, []))]


def _is_base(text: Any) -> bool:
    try:
        parts = urlsplit(text)
        return (
            isinstance(text, str)
            and parts.scheme in {"http", "https"}
            and bool(parts.hostname)
            and not parts.query
            and not parts.fragment
        )
    except (ValueError, TypeError, AttributeError):
        return False


def check_settings() -> None:
    """Read all settings of storage and delivery once.

    Raises:
        ImproperlyConfigured: names the variable that is wrong.
    """
    buckets()
    encrypts_by_store()
    download_bases()
    if not 1 <= settings.S3_LINK_SECONDS <= MAX_LINK_SECONDS:
        raise ImproperlyConfigured(
            f"HOTSWAP_S3_LINK_SECONDS must be between 1 and {MAX_LINK_SECONDS}"
        )
    if settings.S3_KMS_KEY and settings.S3_ENCRYPTION != "aws:kms":
        raise ImproperlyConfigured(
            "HOTSWAP_S3_KMS_KEY needs HOTSWAP_S3_ENCRYPTION=aws:kms"
        )
