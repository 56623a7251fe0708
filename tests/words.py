"""Words in texts that also hold identifiers drawn by chance."""

import re


def says(text: str, word: str) -> bool:
    """Tell whether a text has this word, and not only as a part of another.

    A UUID has `ada` in it once in 40 times, and `d-1` once in 130: a test that looks
    for such a word with `in` fails at times.
    """
    return bool(re.search(rf"(?<![\w-]){re.escape(word)}(?![\w-])", text))
