"""Downloads over the API: ranges, ETags, and images that are not whole."""

import contextlib
import secrets
from pathlib import Path
from typing import Any

import pytest
from django.utils import timezone

from devices.models import Device
from firmware.api.downloads import while_admitted
from firmware.encrypted_format import FRAME_BYTES, HEADER
from firmware.exceptions import DownloadEndedError
from firmware.models import Firmware
from firmware.storage import image_store
from tests.api import Caller, problem_of
from tests.deployments.world import World
from tests.devices.factories import device_token

CONTENT = secrets.token_bytes(2 * FRAME_BYTES + 500)
SIZE = len(CONTENT)


@pytest.fixture
def ordered(db: None) -> tuple[Caller, Firmware]:
    """A device that was ordered to install an image, and the image."""
    world = World()
    old, new = world.image("1.0.0"), world.image("2.0.0", content=CONTENT)
    (scripted,) = world.fleet(1, old)
    world.launch(new)
    assert scripted.poll() is not None
    device = Device.objects.get(pk=scripted.pk)
    return Caller(token=device_token(device)), new


def download(ordered: tuple[Caller, Firmware], **headers: str) -> Any:
    caller, firmware = ordered
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    return caller.get(f"/firmware/{firmware.pk}/download", headers=given)


def body_of(response: Any) -> bytes:
    return b"".join(response.streaming_content)


def test_the_whole_image_comes_with_its_length_and_etag(
    ordered: tuple[Caller, Firmware],
) -> None:
    response = download(ordered)

    assert response.status_code == 200
    assert body_of(response) == CONTENT
    assert response["Content-Length"] == str(SIZE)
    assert response["ETag"] == f'"{ordered[1].sha256}"'
    assert response["Accept-Ranges"] == "bytes"
    assert response["Content-Type"] == "application/octet-stream"
    assert "Content-Range" not in response


@pytest.mark.parametrize(
    ("asked", "start", "end"),
    [
        ("bytes=0-0", 0, 1),
        (f"bytes={FRAME_BYTES - 1}-{FRAME_BYTES}", FRAME_BYTES - 1, FRAME_BYTES + 1),
        ("bytes=-500", SIZE - 500, SIZE),
        (f"bytes={SIZE - 1}-", SIZE - 1, SIZE),
        ("bytes=100-99999999", 100, SIZE),
    ],
)
def test_a_range_comes_as_206(
    ordered: tuple[Caller, Firmware], asked: str, start: int, end: int
) -> None:
    response = download(ordered, Range=asked)

    assert response.status_code == 206
    assert body_of(response) == CONTENT[start:end]
    assert response["Content-Range"] == f"bytes {start}-{end - 1}/{SIZE}"
    assert response["Content-Length"] == str(end - start)


def test_a_range_behind_the_end_is_416_and_says_the_size(
    ordered: tuple[Caller, Firmware],
) -> None:
    response = download(ordered, Range=f"bytes={SIZE}-")

    problem_of(response, 416)
    assert response["Content-Range"] == f"bytes */{SIZE}"


def test_if_range_of_another_image_brings_the_whole(
    ordered: tuple[Caller, Firmware],
) -> None:
    same = download(ordered, Range="bytes=5-9", If_Range=f'"{ordered[1].sha256}"')
    other = download(ordered, Range="bytes=5-9", If_Range='"other"')

    assert (same.status_code, other.status_code) == (206, 200)


def test_any_accept_header_is_answered(ordered: tuple[Caller, Firmware]) -> None:
    assert download(ordered, Accept="application/octet-stream").status_code == 200


def stored_file(firmware: Firmware) -> Path:
    return Path(image_store().path(firmware.storage_name))


def flip(firmware: Firmware, place: int) -> None:
    path = stored_file(firmware)
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)


def test_damage_at_the_start_is_503_before_any_byte(
    ordered: tuple[Caller, Firmware],
) -> None:
    flip(ordered[1], HEADER.size + 5)

    problem_of(download(ordered), 503, "image_damaged")

    ordered[1].refresh_from_db()
    assert ordered[1].damaged_at is not None


def test_damage_further_in_breaks_the_body_off_before_the_damage(
    ordered: tuple[Caller, Firmware],
) -> None:
    flip(ordered[1], HEADER.size + FRAME_BYTES + 16 + 5)
    response = download(ordered)
    received = []

    with pytest.raises(Exception, match="damaged"):
        received.extend(response.streaming_content)

    assert b"".join(received) == CONTENT[:FRAME_BYTES]
    ordered[1].refresh_from_db()
    assert ordered[1].damaged_at is not None


def test_another_device_or_image_is_refused(ordered: tuple[Caller, Firmware]) -> None:
    caller, firmware = ordered
    other = Firmware.objects.exclude(pk=firmware.pk).get()
    stranger = World().fleet(1, other, prefix="x")[0]
    token = device_token(Device.objects.get(pk=stranger.pk))

    foreign_image = caller.get(f"/firmware/{other.pk}/download")
    foreign_device = Caller(token=token).get(f"/firmware/{firmware.pk}/download")

    problem_of(foreign_image, 403, "no_active_update")
    problem_of(foreign_device, 403, "no_active_update")


# --- A receiver that is shut out meanwhile ---------------------------------


def sent(answers: list[bool], times: list[float], count: int) -> list[bytes]:
    """Return what leaves of `count` pieces; the clock and the answers are given."""
    moments, admitted = iter(times), iter(answers)
    received: list[bytes] = []
    pieces = while_admitted(
        (bytes([number]) for number in range(count)),
        lambda: next(admitted),
        clock=lambda: next(moments),
    )
    with contextlib.suppress(DownloadEndedError):
        received.extend(pieces)
    return received


def test_the_receiver_is_asked_about_every_two_seconds() -> None:
    times = [0, 0.5, 1.9, 2.0, 2.0, 3.9, 4.1, 4.1]

    assert len(sent([True, True], times, 5)) == 5


def test_no_piece_leaves_after_the_answer_no() -> None:
    assert sent([False], [0, 0.5, 1.9, 2.1], 5) == [b"\x00", b"\x01"]


def test_a_receiver_that_stalled_gets_no_piece_when_it_comes_back() -> None:
    assert sent([False], [0, 0.1, 3600], 5) == [b"\x00"]


def test_a_download_breaks_off_once_its_device_is_revoked(
    ordered: tuple[Caller, Firmware], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("firmware.api.downloads.RECHECK_SECONDS", 0)
    response = download(ordered)
    pieces = iter(response.streaming_content)
    received = [next(pieces)]

    Device.objects.update(revoked_at=timezone.now())

    with pytest.raises(DownloadEndedError):
        received.extend(pieces)
    assert b"".join(received) == CONTENT[:FRAME_BYTES]


def test_a_device_has_two_downloads_at_once(ordered: tuple[Caller, Firmware]) -> None:
    first, second = download(ordered), download(ordered)

    refused = download(ordered)
    assert body_of(first) == CONTENT
    again = download(ordered, Range="bytes=0-9")

    problem_of(refused, 429, "throttled")
    assert refused["Retry-After"] == "5"
    assert (second.status_code, again.status_code) == (200, 206)
