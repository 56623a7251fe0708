"""The headers that name ETags: `If-Match` and `If-None-Match`."""

import re

from django.http import HttpRequest
from rest_framework.request import Request

from hotswap.common.errors import InvalidInputError

# RFC 9110, 8.8.3: an ETag holds no space and no control character.
ETAG = re.compile(r'(?:W/)?"[\x21\x23-\x7e\x80-\xff]*"')
ETAG_LIST = re.compile(rf"{ETAG.pattern}(?:[ \t]*,[ \t]*{ETAG.pattern})*")


def expected_etags(request: Request | HttpRequest) -> frozenset[str] | None:
    """Return the ETags that `If-Match` names, or None when anything will do.

    Raises:
        InvalidInputError: the header is not a list of ETags.
    """
    header = request.headers.get("If-Match")
    if header is None or header.strip() == "*":
        return None
    if ETAG_LIST.fullmatch(header.strip()) is None:
        raise InvalidInputError("If-Match must hold ETags in double quotes")
    return frozenset(ETAG.findall(header))


def knows(request: Request | HttpRequest, etag: str) -> bool:
    """Tell whether `If-None-Match` names the ETag: then 304 is the answer.

    Source: RFC 9110, section 13.1.2; a malformed header counts as none.
    """
    header = request.headers.get("If-None-Match", "").strip()
    known = {each.removeprefix("W/") for each in ETAG.findall(header)}
    return header == "*" or etag in known
