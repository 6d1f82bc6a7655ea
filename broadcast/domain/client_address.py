"""Maps network addresses to clients, for counting and limiting by address."""

import re
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address

_ADDRESS_WITH_PORT = re.compile(r"\[([^\]]*)\](?::\d+)?|([^:]*):\d+")  # as some proxies write X-Forwarded-For
_NAT64 = IPv6Network("64:ff9b::/96")  # RFC 6052: the last 32 bits are an IPv4 address
_CLIENT_PREFIX_BITS = 64  # what one household or machine is assigned (RFC 6177); it can use 2^64 addresses


@lru_cache(4096)
def get_client_key(address: str) -> str:
    """One key for all addresses that a client may use: an IPv4 address, or the /64 of an IPv6 address.

    An IPv4 address written as IPv6 (mapped, or NAT64) counts as that IPv4 address. Anything else, such as the name of a
    unix socket, is its own key.
    """
    match = _ADDRESS_WITH_PORT.fullmatch(address.strip())
    text = (match[1] if match[1] is not None else match[2]) if match else address.strip()
    try:
        ip = ip_address(text.partition("%")[0])  # a link-local address may carry its interface
    except ValueError:
        return address
    if isinstance(ip, IPv6Address):
        ip = ip.ipv4_mapped or (IPv4Address(int(ip) & 0xFFFFFFFF) if ip in _NAT64 else ip)
    if isinstance(ip, IPv4Address):
        return str(ip)
    return str(IPv6Network((ip, _CLIENT_PREFIX_BITS), strict=False))
