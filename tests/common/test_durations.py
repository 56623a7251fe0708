"""Durations as people write them, and as pages show them."""

from datetime import timedelta

import pytest

from hotswap.common.durations import duration_in_words, duration_of_words


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90", 90),
        ("90 s", 90),
        ("10m", 600),
        ("10 minutes", 600),
        ("1h", 3600),
        (" 1 H 30 min ", 5400),
        ("1h30m", 5400),
        ("2 days", 172_800),
        ("1 d 1 s", 86_401),
        ("0", 0),
    ],
)
def test_durations_are_read_as_people_write_them(text: str, seconds: int) -> None:
    assert duration_of_words(text) == timedelta(seconds=seconds)


@pytest.mark.parametrize(
    "text", ["", "PT30M", "soon", "-5 s", "1.5 h", "30 min 1 h", "1 month", "9" * 10]
)
def test_what_is_no_duration_in_words_is_left_to_others(text: str) -> None:
    assert duration_of_words(text) is None


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "0 s"),
        (0.5, "0.5 s"),
        (90, "1 min 30 s"),
        (3600, "1 h"),
        (5400, "1 h 30 min"),
        (86_400, "1 d"),
        (90_061, "1 d 1 h 1 min 1 s"),
    ],
)
def test_a_duration_is_shown_in_full(seconds: float, words: str) -> None:
    assert duration_in_words(timedelta(seconds=seconds)) == words
    if seconds == int(seconds):
        assert duration_of_words(words) == timedelta(seconds=seconds)
