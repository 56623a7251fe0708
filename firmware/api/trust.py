"""What a device says about the signing keys it has pinned."""

import re

from django.http import HttpRequest
from drf_spectacular.utils import OpenApiParameter
from rest_framework.request import Request

from hotswap.common.errors import FieldError, InvalidInputError

TRUSTED_KEYS_HEADER = "Trusted-Keys"
MAX_KEYS = 64
TRUSTED_KEYS = OpenApiParameter(
    TRUSTED_KEYS_HEADER,
    location=OpenApiParameter.HEADER,
    description=(
        "Ids of the signing keys that the device has pinned, with commas between. "
        "The order is signed by one of them that may still sign, else by the active."
    ),
)
KEY_ID = re.compile(r"[0-9a-f]{16}")


def trusted_keys(request: Request | HttpRequest) -> frozenset[str] | None:
    """Return the names in `Trusted-Keys`, or None where the device does not say.

    Raises:
        InvalidInputError: the header is not a list of up to 64 key ids.
    """
    header = request.headers.get(TRUSTED_KEYS_HEADER)
    if header is None:
        return None
    names = [name.strip() for name in header.split(",")]
    if len(names) > MAX_KEYS or not all(KEY_ID.fullmatch(name) for name in names):
        detail = (
            f"{TRUSTED_KEYS_HEADER} must hold up to {MAX_KEYS} key ids of 16 hex "
            "digits, with commas between"
        )
        raise InvalidInputError(
            detail,
            errors=[FieldError(f"/headers/{TRUSTED_KEYS_HEADER}", "invalid", detail)],
        )
    return frozenset(names)
