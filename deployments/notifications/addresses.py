"""Which addresses webhooks and gateways may be sent to.

Rules:
- What counts is the address that a name resolves to at the moment of sending, and the
  connection goes to that very address.
- Only public addresses, and only over TLS, unless a network is allowed by name.
- An address that carries another one inside (IPv4 in IPv6) is never public.
"""

import re
import socket
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)

import httpx

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

PORTS = {"http": 80, "https": 443}
# Mapped, compatible, NAT64 (RFC 6052, 8215), Teredo, 6to4, and the retired site-local.
NEVER_PUBLIC: tuple[Network, ...] = tuple(
    ip_network(text)
    for text in (
        "::/96",
        "::ffff:0:0/96",
        "::ffff:0:0:0/96",
        "64:ff9b::/96",
        "64:ff9b:1::/48",
        "2001::/32",
        "2002::/16",
        "fec0::/10",
        "192.88.99.0/24",
    )
)
# Network cards of a tunnel (ISATAP) carry an IPv4 address below one of these words.
ISATAP = (0x00005EFE, 0x02005EFE)


class TargetRefusedError(ValueError):
    """Nothing may be sent there; the text says why."""


@dataclass(frozen=True, slots=True)
class Target:
    """A checked URL: `host` is what was written, `addresses` where to connect."""

    url: httpx.URL
    host: str
    port: int
    addresses: tuple[str, ...]


def is_public(address: Address) -> bool:
    """Tell whether an address is one of the internet that wraps no other."""
    if not address.is_global or address.is_multicast or address.is_reserved:
        return False
    if isinstance(address, IPv6Address) and (int(address) >> 32) & 0xFFFFFFFF in ISATAP:
        return False
    return not _within(address, NEVER_PUBLIC)


def is_permitted(name: str, *, allowed: Iterable[Network], plain: bool = False) -> bool:
    """Tell whether an address may be connected to.

    Args:
        name: the address, as it was looked up.
        allowed: networks that are permitted whatever they are, also without TLS.
        plain: the connection is without TLS.
    """
    address = ip_address(name)
    return _within(address, allowed) or (not plain and is_public(address))


def _within(address: Address, networks: Iterable[Network]) -> bool:
    return any(
        address.version == network.version and address in network
        for network in networks
    )


def read_url(text: str) -> tuple[httpx.URL, int]:
    """Take a URL apart; return it with its port.

    Raises:
        TargetRefusedError: it is not one that a webhook can be sent to.
    """
    try:
        url = httpx.URL(text)
        # Each part is read when it is asked for, and only then refused.
        host, port = url.host, url.port or PORTS.get(url.scheme, 0)
    except (httpx.InvalidURL, ValueError, UnicodeError):
        raise TargetRefusedError("is not a URL") from None
    if url.scheme not in PORTS:
        raise TargetRefusedError("must begin with https://")
    if not host:
        raise TargetRefusedError("names no host")
    if url.userinfo or "@" in re.split(r"[/?#]", text.partition("://")[2])[0]:
        raise TargetRefusedError("must not carry a user name or password")
    if url.fragment:
        raise TargetRefusedError("must not have a fragment")
    if not 0 < port < 65536:
        raise TargetRefusedError("names no valid port")
    return url, port


def resolve(text: str, *, allowed: Sequence[Network]) -> Target:
    """Look up where a URL leads, and check every address found.

    Args:
        allowed: networks that are permitted whatever they are, also without TLS.

    Raises:
        TargetRefusedError: the URL is malformed, its name does not resolve, or leads
            to an address that is not permitted.
    """
    url, port = read_url(text)
    host = url.raw_host.decode("ascii")
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        raise TargetRefusedError(f"{host} does not resolve to an address") from None
    names = tuple(dict.fromkeys(str(entry[4][0]) for entry in found))
    for name in names:
        if not is_permitted(name, allowed=allowed):
            raise TargetRefusedError(f"{host} leads to {name}, which is not public")
        if url.scheme != "https" and not is_permitted(
            name, allowed=allowed, plain=True
        ):
            raise TargetRefusedError("must begin with https://")
    return Target(url, host, port, names)
