"""Images at rest: what was written comes back, or an error does."""

import io

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from firmware.encrypted_format import (
    FRAME_BYTES,
    HEADER,
    TAG_BYTES,
    DamagedImageError,
    FrameKey,
    FrameWriter,
    key_in_header,
    read_frames,
    wrapping_key_name,
)

KEY = FrameKey("0123456789abcdef", bytes(range(32)))
SEALED_FRAME = FRAME_BYTES + TAG_BYTES


def sealed(content: bytes, *, step: int = 100_000, key: FrameKey = KEY) -> bytes:
    """Write content in steps; return the stored file."""
    file = io.BytesIO()
    writer = FrameWriter(file, key)
    for start in range(0, len(content), step):
        writer.write(content[start : start + step])
    writer.finish()
    return file.getvalue()


def opened(stored: bytes, *, size: int, start: int = 0, end: int | None = None):
    file = io.BytesIO(stored)
    header = file.read(HEADER.size)
    assert wrapping_key_name(header) == KEY.name
    return b"".join(
        read_frames(
            file,
            header,
            key_in_header(header, KEY),
            size=size,
            start=start,
            end=size if end is None else end,
        )
    )


def pattern(size: int) -> bytes:
    return (bytes(range(251)) * (size // 251 + 1))[:size]


edges = st.sampled_from(
    [1, 2, FRAME_BYTES - 1, FRAME_BYTES, FRAME_BYTES + 1, 3 * FRAME_BYTES]
)
sizes = edges | st.integers(1, 4 * FRAME_BYTES)


@settings(max_examples=60, deadline=None, derandomize=True, database=None)
@given(data=st.data(), size=sizes, step=edges | st.integers(1000, 300_000))
def test_any_range_of_any_size_comes_back(data, size: int, step: int) -> None:
    content = pattern(size)
    start = data.draw(st.integers(0, size - 1))
    end = data.draw(st.integers(start + 1, size))

    stored = sealed(content, step=max(step, 100))

    assert opened(stored, size=size, start=start, end=end) == content[start:end]
    assert content[: min(32, size)] not in stored or size < 8


@settings(max_examples=150, deadline=None, derandomize=True, database=None)
@given(data=st.data(), size=st.sampled_from([1, 1000, FRAME_BYTES, FRAME_BYTES + 9]))
def test_any_flipped_bit_is_noticed(data, size: int) -> None:
    stored = bytearray(sealed(pattern(size)))
    place = data.draw(st.integers(0, HEADER.size - 1) | st.integers(0, len(stored) - 1))
    stored[place] ^= 1 << data.draw(st.integers(0, 7))

    with pytest.raises((DamagedImageError, AssertionError)) as found:
        opened(bytes(stored), size=size)

    # Only another name of the key is not for this module to notice.
    if isinstance(found.value, AssertionError):
        assert 8 <= place < 24


@pytest.mark.parametrize("place", range(4, 8))
def test_another_frame_size_in_the_header_is_noticed(place: int) -> None:
    stored = bytearray(sealed(b"content"))
    stored[4:8] = b"\0\0\0\0"
    stored[place] ^= 3

    with pytest.raises(DamagedImageError):
        opened(bytes(stored), size=7)


@pytest.mark.parametrize(
    "lost",
    [1, TAG_BYTES, TAG_BYTES + 1, 100, SEALED_FRAME, SEALED_FRAME + 1],
)
def test_a_file_cut_short_is_noticed(lost: int) -> None:
    size = 2 * FRAME_BYTES + 50
    stored = sealed(pattern(size))

    with pytest.raises(DamagedImageError):
        opened(stored[:-lost], size=size)


@pytest.mark.parametrize("kept", [0, 1, HEADER.size - 1])
def test_a_file_without_its_header_is_noticed(kept: int) -> None:
    with pytest.raises(DamagedImageError):
        wrapping_key_name(sealed(b"content")[:kept])


def test_a_file_cut_at_a_frame_is_noticed_even_with_the_shorter_size() -> None:
    stored = sealed(pattern(2 * FRAME_BYTES))

    with pytest.raises(DamagedImageError):
        opened(stored[: HEADER.size + SEALED_FRAME], size=FRAME_BYTES)


def test_swapped_frames_are_noticed() -> None:
    size = 3 * FRAME_BYTES
    stored = sealed(pattern(size))
    head, body = stored[: HEADER.size], stored[HEADER.size :]
    first, second, rest = (
        body[:SEALED_FRAME],
        body[SEALED_FRAME : 2 * SEALED_FRAME],
        body[2 * SEALED_FRAME :],
    )

    with pytest.raises(DamagedImageError):
        opened(head + second + first + rest, size=size)


def test_frames_of_another_file_of_the_same_key_are_noticed() -> None:
    size = 2 * FRAME_BYTES
    one, other = sealed(pattern(size)), sealed(pattern(size))
    cut = HEADER.size + SEALED_FRAME

    with pytest.raises(DamagedImageError):
        opened(one[:cut] + other[cut:], size=size)
    with pytest.raises(DamagedImageError):
        opened(other[: HEADER.size] + one[HEADER.size :], size=size)


def test_another_wrapping_key_does_not_open_it() -> None:
    stored = sealed(b"content", key=FrameKey(KEY.name, bytes(32)))

    with pytest.raises(DamagedImageError):
        opened(stored, size=7)


def test_the_same_image_is_never_stored_the_same_way_twice() -> None:
    assert sealed(b"content")[HEADER.size :] != sealed(b"content")[HEADER.size :]


def test_the_frames_before_a_damaged_one_are_given_and_none_after() -> None:
    size = 3 * FRAME_BYTES
    stored = bytearray(sealed(pattern(size)))
    stored[HEADER.size + SEALED_FRAME + 7] ^= 1
    file = io.BytesIO(bytes(stored))
    header = file.read(HEADER.size)
    pieces = read_frames(
        file, header, key_in_header(header, KEY), size=size, start=0, end=size
    )

    assert next(pieces) == pattern(size)[:FRAME_BYTES]
    with pytest.raises(DamagedImageError, match="frame 1"):
        next(pieces)
