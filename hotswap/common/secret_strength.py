"""Whether a secret can be guessed. Settings read this, so it imports nothing."""

from typing import Final

SHORTEST_SECRET: Final = 50
FEWEST_CHARACTERS: Final = 5
WELL_KNOWN: Final = (
    *("changeme", "change-me", "secret", "password", "insecure", "example", "test"),
    *("default", "django", "hotswap"),
)
# A random text has more different characters than these; words in it are chance.
RANDOM_CHARACTERS: Final = 20


def weakness_of(secret: str, *, shortest: int = SHORTEST_SECRET) -> str:
    """Say what is wrong with a secret; "" if nothing is.

    Args:
        shortest: characters that it must have at least.
    """
    if len(secret) < shortest:
        return f"is shorter than {shortest} characters"
    if len(set(secret)) < FEWEST_CHARACTERS:
        return "repeats the same few characters"
    lower = secret.lower()
    is_random = len(set(secret)) >= RANDOM_CHARACTERS
    if lower.startswith("django-insecure-") or (
        not is_random and any(word in lower for word in WELL_KNOWN)
    ):
        return "is well known or contains a well-known word"
    return ""
