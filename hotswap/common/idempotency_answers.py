"""The answers that are kept for `Idempotency-Key`: sealed, as some hold a secret."""

from hotswap.common.keyring import seal, unseal
from hotswap.common.models import ANSWER_PURPOSE, RememberedAnswer


def sealed(body: bytes) -> bytes:
    """Return the JSON of an answer as it is kept."""
    return seal(body, purpose=ANSWER_PURPOSE)


def opened(remembered: RememberedAnswer) -> bytes:
    """Return the JSON of a remembered answer.

    Raises:
        cryptography.exceptions.InvalidTag: it was written under another master key.
    """
    assert remembered.body is not None
    return unseal(bytes(remembered.body), purpose=ANSWER_PURPOSE)
