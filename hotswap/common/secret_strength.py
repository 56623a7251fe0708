"""Whether a secret can be guessed. Settings read this: it imports nothing of ours."""

from collections.abc import Iterable
from ipaddress import ip_address
from typing import Final

SHORTEST_SECRET: Final = 50
# Of a program at another server, as the database.
SHORTEST_PASSWORD: Final = 16
FEWEST_CHARACTERS: Final = 5
WELL_KNOWN: Final = (
    *("changeme", "change-me", "secret", "password", "insecure", "example", "test"),
    *("default", "django", "hotswap", "postgres", "redis", "valkey", "minio"),
    *("admin", "letmein", "qwerty"),
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


def weakness_of_login(
    password: str, hosts: Iterable[str], *, has_certificate: bool = False
) -> str:
    """Say what is wrong with how HotSwap logs in to a server; "" if nothing is.

    Without a password a server may be on this machine alone, where its socket or its
    own rules tell who calls.

    Args:
        hosts: names, addresses or folders of sockets of the server, "" for the usual
            socket.
        has_certificate: HotSwap shows one, or takes the password from elsewhere.
    """
    if password:
        weakness = weakness_of(password, shortest=SHORTEST_PASSWORD)
        return f"has a password that {weakness}" if weakness else ""
    if has_certificate or all(map(_is_this_machine, hosts)):
        return ""
    return "has no password, for a server on another machine"


def _is_this_machine(host: str) -> bool:
    if not host or host.startswith(("/", "@")) or host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
