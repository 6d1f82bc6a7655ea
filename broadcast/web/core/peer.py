"""Who is at the other end of the connection: not whom it forwards for, which is what a client may write."""

from collections.abc import Sequence
from ipaddress import IPv4Network, IPv6Network, ip_address

from flask import Request

_FORWARDING_HEADERS = ("FORWARDED", "VIA", "X-REAL-IP")


def get_peer_address(request: Request) -> str:
    """The address of whoever connected; empty for a socket without addresses."""
    environ = request.environ.get("werkzeug.proxy_fix.orig", request.environ)
    return environ.get("REMOTE_ADDR") or ""


def is_peer_in(request: Request, networks: Sequence[IPv4Network | IPv6Network]) -> bool:
    try:
        address = ip_address(get_peer_address(request))
    except ValueError:
        return False
    address = getattr(address, "ipv4_mapped", None) or address
    return any(address in network for network in networks)


def is_forwarded(request: Request) -> bool:
    """Whether a proxy says that it asks for somebody else. One that says nothing looks like whoever runs on its machine."""
    names = [name.upper() for name, _ in request.headers]
    return any(name in _FORWARDING_HEADERS or name.startswith("X-FORWARDED-") for name in names)
