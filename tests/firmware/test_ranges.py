"""Range headers (RFC 9110, sections 13.1.5 and 14)."""

import pytest

from firmware.api.downloads import requested_range

SIZE = 1000
ETAG = '"abc"'
WHOLE = None
UNSATISFIABLE = False
TABLE = [
    (None, WHOLE),
    ("bytes=0-0", (0, 1)),
    ("bytes=0-499", (0, 500)),
    ("bytes=500-", (500, 1000)),
    ("bytes=-1", (999, 1000)),
    ("bytes=-500", (500, 1000)),
    ("bytes=999-", (999, 1000)),
    ("bytes=0-999", (0, 1000)),
    ("bytes=0-5000", (0, 1000)),
    ("bytes=-5000", (0, 1000)),
    ("bytes=00-09", (0, 10)),
    (" bytes=0-9 ", (0, 10)),
    # No byte of the image is in it.
    ("bytes=1000-", UNSATISFIABLE),
    ("bytes=1000-2000", UNSATISFIABLE),
    ("bytes=-0", UNSATISFIABLE),
    ("bytes=" + "9" * 30 + "-", UNSATISFIABLE),
    # A range that says nothing, or more than one, is passed over.
    ("bytes=5-4", WHOLE),
    ("bytes=1000-5", WHOLE),
    ("bytes=-", WHOLE),
    ("bytes=", WHOLE),
    ("bytes", WHOLE),
    ("bytes=0-1,5-6", WHOLE),
    ("bytes=a-b", WHOLE),
    ("bytes=0x0-1", WHOLE),
    ("bytes=٣-٤", WHOLE),
    ("bytes=1.5-2", WHOLE),
    ("bytes=--5", WHOLE),
    ("lines=0-5", WHOLE),
    ("", WHOLE),
    # Numbers longer than any file.
    ("bytes=0-" + "9" * 30, (0, 1000)),
    ("bytes=-" + "9" * 30, (0, 1000)),
    # The name of a unit knows no case.
    ("Bytes=0-9", (0, 10)),
]


@pytest.mark.parametrize(("header", "expected"), TABLE)
def test_each_header_gives_its_bytes(header: str | None, expected: object) -> None:
    assert requested_range(header, None, size=SIZE, etag=ETAG) == expected


@pytest.mark.parametrize(
    ("if_range", "expected"),
    [
        (ETAG, (0, 10)),
        (f" {ETAG} ", (0, 10)),
        ('"other"', WHOLE),
        (f"W/{ETAG}", WHOLE),
        ("abc", WHOLE),
        ("Wed, 21 Oct 2026 07:28:00 GMT", WHOLE),
        ("", WHOLE),
    ],
)
def test_if_range_of_another_image_asks_for_the_whole(
    if_range: str, expected: object
) -> None:
    assert requested_range("bytes=0-9", if_range, size=SIZE, etag=ETAG) == expected


def test_an_unsatisfiable_range_of_another_image_asks_for_the_whole() -> None:
    assert requested_range("bytes=5000-", '"x"', size=SIZE, etag=ETAG) is WHOLE
