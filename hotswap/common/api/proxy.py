"""What the proxy in front says of a request; believed from that proxy alone.

Rules:
- A proxy with a secret (`HOTSWAP_PROXY_SECRET`) says all of it in one header, which it
  always sets:

      X-HotSwap-Proxy: SECRET;ADDRESS;VERDICT;CERTIFICATE

  Servers take `X_HotSwap_Proxy` for the same name, and the later of two for the value.
  A client that gets its own through so loses the secret with the rest.
- Doubled headers are joined by a comma: a value that has one is not the proxy's.
- A proxy without a secret is known by its address (`HOTSWAP_PROXY_ADDRESSES`), and is
  believed the client's address alone (`X-Real-IP`).
- Without either setting nothing is believed.
"""

import ipaddress
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from django.conf import settings
from django.http import HttpRequest
from rest_framework.request import Request

PROXY_VARIABLE = "HTTP_X_HOTSWAP_PROXY"
ADDRESS_VARIABLE = "HTTP_X_REAL_IP"


@dataclass(frozen=True, slots=True)
class Proxied:
    """What a proxy with the secret says of a request.

    Attributes:
        address: of the client.
        verdict: on its certificate; `SUCCESS` if that is verified.
        certificate: in the configured format, or "" where it showed none.
    """

    address: str
    verdict: str
    certificate: str


def proxied(variables: Mapping[str, Any]) -> Proxied | None:
    """Return what the proxy says; None unless it is the proxy that says it.

    Args:
        variables: those of the server, under CGI's names.
    """
    given = variables.get(PROXY_VARIABLE)
    if not given or not settings.PROXY_SECRET or "," in given:
        return None
    secret, *parts = given.split(";", 3)
    if len(parts) != 3 or not secrets.compare_digest(
        secret.encode(), settings.PROXY_SECRET.encode()
    ):
        return None
    return Proxied(*parts)


def comes_from_proxy(variables: Mapping[str, Any]) -> bool:
    """Tell whether a connection is that of a proxy, which has those of many clients."""
    return proxied(variables) is not None or _has_address_of_proxy(variables)


def _has_address_of_proxy(variables: Mapping[str, Any]) -> bool:
    if not settings.PROXY_ADDRESSES:
        return False
    try:
        peer = ipaddress.ip_address(variables.get("REMOTE_ADDR", ""))
    except ValueError:
        return False
    return any(peer in network for network in settings.PROXY_ADDRESSES)


def client_address(request: HttpRequest | Request) -> str | None:
    """Return the address of the client, or None where there is none (Unix socket)."""
    given = [request.META.get("REMOTE_ADDR", "")]
    proxy = proxied(request.META)
    if proxy is not None:
        given.insert(0, proxy.address)
    elif _has_address_of_proxy(request.META):
        given.insert(0, request.META.get(ADDRESS_VARIABLE, ""))
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
