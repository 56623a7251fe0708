"""`Idempotency-Key`: the same request again gets the same answer, and acts once.

A secret that an answer shows once (the key of a device, the secret of a webhook) is not
remembered: the repeated answer has null in its place. Else whoever gets hold of a
person's token could read for a day what only the first answer should show. A client
that has lost the answer makes a new secret, which is audited.
"""

import hashlib
from collections.abc import Callable
from functools import wraps
from typing import Any, Protocol, cast
from uuid import UUID

from django.db import transaction
from rest_framework.exceptions import ValidationError
from rest_framework.renderers import JSONRenderer
from rest_framework.request import Request
from rest_framework.response import Response

from hotswap.common.api.parsers import parse_json
from hotswap.common.errors import HotSwapError, ImpossibleError
from hotswap.common.idempotency_answers import opened, sealed
from hotswap.common.models import RememberedAnswer
from hotswap.common.signatures import FIELD as SIGNATURE

HEADER = "Idempotency-Key"
MAX_KEY_LENGTH = 255
KEPT_HEADERS = ("Location", "ETag", "Cache-Control")

Method = Callable[..., Response]


class Caller(Protocol):
    """A person or a device."""

    @property
    def pseudonym(self) -> UUID: ...


def idempotent(method: Method) -> Method:
    """Make a POST method honour `Idempotency-Key`.

    The key is stored in the transaction of the deed: of two at once the second waits
    for the first and repeats its answer; a failure stores nothing.

    Raises:
        ImpossibleError: the key was used with another body (422).
    """
    return _idempotent(method, frozenset())


def idempotent_without(*secrets: str) -> Callable[[Method], Method]:
    """Make a POST method honour `Idempotency-Key`, all but its secrets.

    Args:
        secrets: names of fields of the answer that are null when it is repeated.
    """
    return lambda method: _idempotent(method, frozenset(secrets))


def _idempotent(method: Method, secrets: frozenset[str]) -> Method:

    @wraps(method)
    def wrapper(view: Any, request: Request, *args: Any, **kwargs: Any) -> Response:
        key = request.headers.get(HEADER)
        if key is None:
            return method(view, request, *args, **kwargs)
        if not (0 < len(key) <= MAX_KEY_LENGTH) or not key.isprintable():
            raise ValidationError(
                {HEADER: [f"must have 1 to {MAX_KEY_LENGTH} printable characters"]},
                code="invalid",
            )
        # A view that reads its body itself says what it read.
        digest = getattr(view, "body_digest", None)
        if digest is None:
            digest = _digest_of(request.data)
        route = f"{request.method} {request.path}"[:255]
        refusal: HotSwapError | None = None
        with transaction.atomic():
            remembered, is_new = RememberedAnswer.objects.get_or_create(
                principal=str(cast(Caller, request.user).pseudonym),
                key=key,
                route=route,
                defaults={"request_digest": digest},
            )
            if not is_new:
                return _replay(remembered, digest)
            try:
                response = method(view, request, *args, **kwargs)
            except HotSwapError as error:
                if not error.keeps_findings:
                    raise
                # Leave without an error, so that the findings are committed.
                refusal = error
                remembered.delete()
            else:
                _remember(remembered, response, secrets)
        if refusal is not None:
            raise refusal
        return response

    wrapper.is_idempotent = True  # type: ignore[attr-defined]
    return wrapper


def _digest_of(data: Any) -> str:
    """Return the digest of a body, but for its signature.

    A digest of a password would be there to be guessed at, and the code of a second
    factor is another one when the request is sent again.
    """
    # A document that is kept to the byte need not be text.
    if isinstance(data, bytes):
        return hashlib.sha256(data).hexdigest()
    if isinstance(data, dict):
        data = {name: value for name, value in data.items() if name != SIGNATURE}
    return hashlib.sha256(JSONRenderer().render(data) or b"").hexdigest()


def _remember(
    remembered: RememberedAnswer, response: Response, secrets: frozenset[str]
) -> None:
    data = response.data
    if secrets:
        data = {**data, **dict.fromkeys(secrets)}
    remembered.status = response.status_code
    remembered.headers = {
        name: response[name] for name in KEPT_HEADERS if name in response
    }
    remembered.body = sealed(JSONRenderer().render(data))
    remembered.save()


def _replay(remembered: RememberedAnswer, digest: str) -> Response:
    if remembered.request_digest != digest:
        raise ImpossibleError(
            "this Idempotency-Key was used with another body",
            code="idempotency_key_reused",
        )
    data = parse_json(opened(remembered))
    return Response(data, status=remembered.status, headers=remembered.headers)
