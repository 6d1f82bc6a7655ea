"""URLs that users give this system to send requests to: how they are written. Where they lead is checked at each request."""

from string import punctuation
from typing import NamedTuple
from urllib.parse import quote, urlsplit

MAX_URL_CHARACTERS = 2000
DEFAULT_PORTS = {"https": 443, "http": 80}
_MIN_FREE_PORT = 1024  # below are mail, SSH and the like, which no HTTP server uses


class AddressRefused(Exception):
    """Nothing is sent to this URL, and never will be. The message is a sentence for users."""


class Target(NamedTuple):
    """A URL in the form in which it is requested. `host` is in ASCII, `path` has the query."""

    scheme: str
    host: str
    port: int
    path: str


def parse_url(url: str, *, may_be_private: bool = False) -> Target:
    """What to request for a URL; `may_be_private` allows plain HTTP. Its host is not resolved. Raises AddressRefused."""
    if len(url) > MAX_URL_CHARACTERS:
        raise AddressRefused(f"The address is longer than {MAX_URL_CHARACTERS:,} characters.")
    if not url.isprintable() or " " in url or "\\" in url:
        raise AddressRefused("The address has a space or another character that no address has.")
    try:
        parts = urlsplit(url)
        host = (parts.hostname or "").rstrip(".").encode("idna").decode()
        port = DEFAULT_PORTS.get(parts.scheme, 0) if parts.port is None else parts.port
    except ValueError:
        raise AddressRefused("This is not an address, as its host or its port is not valid.") from None
    if parts.scheme != "https" and not (may_be_private and parts.scheme == "http"):
        raise AddressRefused("The address must begin with https://.")
    if not host:
        raise AddressRefused("The address has no host.")
    if "@" in parts.netloc:
        raise AddressRefused("The address must not contain a user name or a password.")
    if port != DEFAULT_PORTS[parts.scheme] and port < _MIN_FREE_PORT:
        raise AddressRefused(
            f"Port {port} is not one of {parts.scheme}. Leave it out, or use one from {_MIN_FREE_PORT}."
        )
    path = quote(parts.path or "/", safe=punctuation) + (parts.query and f"?{quote(parts.query, safe=punctuation)}")
    return Target(parts.scheme, host, port, path)
