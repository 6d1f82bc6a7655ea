"""The peer of the connection, and not the client it forwards for, which a client may forge."""

from collections.abc import Sequence
from ipaddress import IPv4Network, IPv6Network, ip_address

from flask import Request

_FORWARDING_HEADERS = ("FORWARDED", "VIA", "X-REAL-IP")


def get_peer_address(request: Request) -> str:
    """The peer's address; empty for a socket without addresses."""
    environ = request.environ.get("werkzeug.proxy_fix.orig", request.environ)
    return environ.get("REMOTE_ADDR") or ""


def is_address_in(peer_address: str, networks: Sequence[IPv4Network | IPv6Network]) -> bool:
    try:
        address = ip_address(peer_address)
    except ValueError:
        return False
    address = getattr(address, "ipv4_mapped", None) or address
    return any(address in network for network in networks)


def is_forwarded(request: Request) -> bool:
    """Whether the request has a proxy's headers. A proxy that sends none looks like a local client."""
    names = [name.upper() for name, _ in request.headers]
    return any(name in _FORWARDING_HEADERS or name.startswith("X-FORWARDED-") for name in names)
