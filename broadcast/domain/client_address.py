"""Which client an address on the network belongs to, for whoever counts or limits by address."""

import re
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address

_WITH_PORT = re.compile(r"\[([^\]]*)\](?::\d+)?|([^:]*):\d+")  # as some proxies write X-Forwarded-For
_NAT64 = IPv6Network("64:ff9b::/96")  # RFC 6052: the last 32 bits are an IPv4 address
_PREFIX_BITS = 64  # what one household or one machine is given (RFC 6177): it has 2^64 addresses to come from


@lru_cache(4096)
def client_of(address: str) -> str:
    """One name for all addresses that one client may use: an IPv4 address, or the /64 of an IPv6 address.

    An IPv4 address that is written as IPv6 (mapped, or by NAT64) is that IPv4 address. What is no address, such as the name
    of a unix socket, stands for itself.
    """
    found = _WITH_PORT.fullmatch(address.strip())
    text = (found[1] if found[1] is not None else found[2]) if found else address.strip()
    try:
        parsed = ip_address(text.partition("%")[0])  # a link-local address names its interface
    except ValueError:
        return address
    if isinstance(parsed, IPv6Address):
        parsed = parsed.ipv4_mapped or (IPv4Address(int(parsed) & 0xFFFFFFFF) if parsed in _NAT64 else parsed)
    if isinstance(parsed, IPv4Address):
        return str(parsed)
    return str(IPv6Network((parsed, _PREFIX_BITS), strict=False))
