"""What the proxy in front says of a request; believed from that proxy alone.

Rules:
- A request comes from the proxy if it carries the secret that only the proxy knows
  (`HOTSWAP_PROXY_SECRET`), or if its connection comes from a configured address
  (`HOTSWAP_PROXY_ADDRESSES`). Without either setting, no request does.
- What a client writes into the proxy's headers is worthless: the proxy overwrites them,
  and without the proxy nobody reads them.
"""

import ipaddress
import secrets

from django.conf import settings
from django.http import HttpRequest
from rest_framework.request import Request

SECRET_HEADER = "X-HotSwap-Proxy-Secret"  # noqa: S105
ADDRESS_HEADER = "X-Real-IP"


def is_from_proxy(request: HttpRequest | Request) -> bool:
    """Tell whether the headers that the proxy sets can be believed."""
    secret = settings.PROXY_SECRET
    given = request.headers.get(SECRET_HEADER, "")
    if secret and secrets.compare_digest(given.encode(), secret.encode()):
        return True
    if not settings.PROXY_ADDRESSES:
        return False
    try:
        peer = ipaddress.ip_address(request.META.get("REMOTE_ADDR", ""))
    except ValueError:
        return False
    return any(peer in network for network in settings.PROXY_ADDRESSES)


def client_address(request: HttpRequest | Request) -> str | None:
    """Return the address of the client, or None where there is none (Unix socket)."""
    given = [request.META.get("REMOTE_ADDR", "")]
    if is_from_proxy(request):
        given.insert(0, request.headers.get(ADDRESS_HEADER, ""))
    for text in given:
        try:
            return str(ipaddress.ip_address(text.strip()))
        except ValueError:
            continue
    return None


def public_url(request: HttpRequest | Request) -> str:
    """Return the scheme and host by which the server is reached, without a slash."""
    configured: str = settings.PUBLIC_URL
    return (configured or request.build_absolute_uri("/")).rstrip("/")
