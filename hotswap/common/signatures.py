"""Electronic signatures: what a person signs, and how the audit trail keeps it.

Rules:
- A signature is given for one deed and kept in its row of the audit trail, hence in the
  chain: who and when are those of the row; its details have the meaning, the record
  that was signed, the SHA-256 of that, and a digest of the signer's name.
- The name itself is in no row. Its digest is salted by a value of the person's row that
  is destroyed when the person is erased; until then it proves who the pseudonym was.
- Whoever acts on the machine of the server is no person here, and signs nothing.

Source: 21 CFR 11.50, 11.70, 11.200.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

from django.conf import settings

from hotswap.common.errors import ForbiddenError
from hotswap.common.models import AuditEvent, User
from hotswap.common.trail.chain import name_digest, record_digest

FIELD = "signature"


class Meaning(StrEnum):
    """What a signature says, by the word that the API and the audit trail have."""

    APPROVAL = "approval"
    REJECTION = "rejection"
    WITHDRAWAL = "withdrawal"
    REINSTATEMENT = "reinstatement"
    STAGE_APPROVAL = "stage_approval"
    ROLLBACK = "rollback"
    REVOCATION = "revocation"
    ERASURE = "erasure"
    DEVICE_ERASURE = "device_erasure"

    @property
    def statement(self) -> str:
        """The sentence that is shown to the signer, and kept."""
        return STATEMENTS[self]


STATEMENTS = {
    Meaning.APPROVAL: "I approve that this image is installed on devices.",
    Meaning.REJECTION: "I reject this image: it is never to be installed.",
    Meaning.WITHDRAWAL: (
        "I withdraw the approval of this image: no new deployment may install it."
    ),
    Meaning.REINSTATEMENT: ("I approve that this image is installed on devices again."),
    Meaning.STAGE_APPROVAL: (
        "I approve that this image is installed on the devices of the next stage."
    ),
    Meaning.ROLLBACK: (
        "I order that devices go back to the firmware that they ran before."
    ),
    Meaning.REVOCATION: (
        "I revoke this key: nothing that it alone has signed is to be trusted."
    ),
    Meaning.ERASURE: "I order that the name of this person is destroyed.",
    Meaning.DEVICE_ERASURE: (
        "I order that this device and all that is held about it are erased."
    ),
}


class SignatureRequiredError(ForbiddenError):
    code = "signature_required"


@dataclass(frozen=True, slots=True)
class Signature:
    """What a person has signed by, for one deed.

    Attributes:
        factor: what has proved that it is the person: `password`, `totp` or
            `recovery_codes`.
        name_sha256: of the salt and the name of the person.
    """

    signer: UUID
    meaning: Meaning
    factor: str
    name_sha256: str


@dataclass(frozen=True, slots=True)
class ShownSignature:
    """A signature as it is shown: the name is there until the person is erased."""

    event_id: int
    at: datetime
    verb: str
    signer: UUID
    name: str | None
    name_salt: UUID | None
    meaning: str
    statement: str
    factor: str
    record_sha256: str


def check_signature(
    actor: User | None, meaning: Meaning, signature: Signature | None
) -> None:
    """Check that a deed is signed if it has to be; call it before the deed.

    Raises:
        SignatureRequiredError: it has to be, and is not.
    """
    if signature is not None:
        assert actor is not None
        assert (signature.signer, signature.meaning) == (actor.pseudonym, meaning)
    elif actor is not None and settings.REQUIRE_SIGNATURES:
        raise SignatureRequiredError(
            "this has to be signed: send `signature` with your password or the code "
            f"of your authenticator app, and the meaning `{meaning}`: "
            f"{meaning.statement}"
        )


def signed_details(
    signature: Signature | None, record: dict[str, Any]
) -> dict[str, Any]:
    """Return what the row of the deed says of its signature; nothing without one.

    Args:
        record: what was signed, as plain JSON without names of people.
    """
    if signature is None:
        return {}
    return {
        FIELD: {
            "meaning": signature.meaning.value,
            "statement": signature.meaning.statement,
            "factor": signature.factor,
            "nameSha256": signature.name_sha256,
            "record": record,
            "recordSha256": record_digest(record),
        }
    }


def name_sha256(user: User) -> str:
    """Return the digest that ties the name of a person to a signature."""
    return name_digest(str(user.name_salt), user.username)


def signatures_of(object_kind: str, object_ids: Iterable[str]) -> list[ShownSignature]:
    """Return the signatures about objects of one kind, the first one first."""
    rows = list(
        AuditEvent.objects.filter(
            object_kind=object_kind,
            object_id__in=list(object_ids),
            details__has_key=FIELD,
        ).order_by("id")
    )
    found = User.objects.filter(
        pseudonym__in={row.actor for row in rows}, erased_at__isnull=True
    )
    people = {person.pseudonym: person for person in found}
    shown = []
    for row in rows:
        assert row.actor is not None
        signed, person = row.details[FIELD], people.get(row.actor)
        shown.append(
            ShownSignature(
                event_id=row.pk,
                at=row.at,
                verb=row.verb,
                signer=row.actor,
                name=None if person is None else person.username,
                name_salt=None if person is None else person.name_salt,
                meaning=signed["meaning"],
                statement=signed["statement"],
                factor=signed["factor"],
                record_sha256=signed["recordSha256"],
            )
        )
    return shown
