"""The field `signature` of what people sign at the API."""

from typing import Any

from rest_framework import serializers
from rest_framework.request import Request

from hotswap.common.api.base import acting_person
from hotswap.common.api.serializers import (
    CamelSerializer,
    StrictCharField,
    StrictChoiceField,
)
from hotswap.common.errors import FieldError, InvalidInputError
from hotswap.common.models import PersonalToken
from hotswap.common.signatures import FIELD, Meaning, Signature
from hotswap.common.signing_people import SignatureByTokenError, sign


class SignatureInput(CamelSerializer):
    """Signs what is asked for: again the password, or a code of the second factor."""

    password = StrictCharField(max_length=1024, trim_whitespace=False, required=False)
    code = StrictCharField(
        max_length=32,
        required=False,
        help_text="of an authenticator app, or a recovery code; instead of `password`",
    )
    meaning = StrictChoiceField(
        choices=[meaning.value for meaning in Meaning],
        help_text="what the signature says; it must be that of the route",
    )

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        given = attrs.keys() & {"password", "code"}
        if len(given) != 1:
            raise serializers.ValidationError(
                {
                    name: ["give either password or code"]
                    for name in sorted(given) or ["password"]
                },
                code="conflict" if given else "required",
            )
        return attrs


class ErasureInput(CamelSerializer):
    """A body that says nothing but, if it has to be, who signs."""

    signature = SignatureInput(required=False)


def given_signature(
    request: Request, given: dict[str, Any], meaning: Meaning
) -> Signature | None:
    """Take the signature out of a validated body, and check it.

    Raises:
        InvalidInputError: it says something else than this route asks for.
        SignatureByTokenError: the caller is a program.
        SignatureWrongError, Throttled: as `sign` does.
    """
    found = given.pop(FIELD, None)
    if found is None:
        return None
    if found["meaning"] != meaning.value:
        detail = f"must be {meaning.value} here: {meaning.statement}"
        raise InvalidInputError(
            detail, errors=[FieldError(f"/{FIELD}/meaning", "invalid", detail)]
        )
    if isinstance(request.auth, PersonalToken):
        raise SignatureByTokenError(
            "a personal access token cannot sign: log in with the password"
        )
    return sign(
        request,
        acting_person(request),
        meaning,
        password=found.get("password"),
        code=found.get("code"),
    )
