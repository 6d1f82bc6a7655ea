"""Names of sources compared as what they mean, not as how they are written (RFC 3986, 6.2), and whose an event is.

`https://GRID.example.com:443/./a` is `https://grid.example.com/a`: without this, a rule for one would say nothing of the other.
"""

import re
import unicodedata
from dataclasses import dataclass
from fnmatch import fnmatchcase

_PARTS = re.compile(r"(?:([A-Za-z][A-Za-z0-9+.-]*):)?(?://([^/?#]*))?([^?#]*)(\?[^#]*)?(#.*)?", re.DOTALL)
_ENCODED = re.compile(r"%([0-9A-Fa-f]{2})")
_UNRESERVED = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
_OWN_PORTS = {"http": "80", "ws": "80", "https": "443", "wss": "443", "ftp": "21", "amqp": "5672", "amqps": "5671"}
_URI = re.compile(r"[a-z][a-z0-9+.-]*:[\x21-\x7e]+")


@dataclass(frozen=True, slots=True)
class Owner:
    """Who sent an event: an account by its token, or whoever may write to a topic. Ids and recalls are the owner's alone.

    `key` is stored and never changes; `name` is what rules and people call it: `account:grid-bot`, `topic:grid.events`.
    """

    key: str
    name: str

    @classmethod
    def account(cls, user_id: int, username: str) -> "Owner":
        return cls(f"account:{user_id}", f"account:{username}")

    @classmethod
    def topic(cls, topic: str) -> "Owner":
        return cls(f"topic:{topic}", f"topic:{topic}")


def canonical(source: str) -> str:
    """The one way to write a source, out of all that RFC 3986 calls equivalent. Patterns with `*` and `[]` are kept as such."""
    scheme, authority, path, query, fragment = _PARTS.fullmatch(unicodedata.normalize("NFC", source)).groups()
    scheme = scheme and scheme.lower()
    path = _encoding(path)
    if authority is not None:
        authority = _authority(_encoding(authority), scheme)
        path = _without_dots(path) or "/"
        if path == "/" and authority.endswith("*") and not (query or fragment):
            path = ""  # a pattern of hosts, whatever follows
    elif scheme and path.startswith("/"):
        path = _without_dots(path)
    elif scheme == "urn":
        space, colon, rest = path.partition(":")
        path = space.lower() + colon + rest
    return (
        (f"{scheme}:" if scheme else "")
        + (f"//{authority}" if authority is not None else "")
        + path
        + _encoding(query or "")
        + _encoding(fragment or "")
    )


def fits(pattern: str, source: str) -> bool:
    """Whether a canonical source is one of those that a canonical pattern, as of a shell, means.

    What stands for a host never reaches beyond it: `https://*.example.com/*` is not `https://elsewhere/.example.com/`.
    """
    if "://" not in pattern:
        return fnmatchcase(source, pattern)
    wanted, given = _PARTS.fullmatch(pattern), _PARTS.fullmatch(source)
    scheme, rest = pattern.split("://", 1)
    host, slash, path = rest.partition("/")
    if given[2] is None or not fnmatchcase(given[1] or "", scheme):
        return False
    if "@" in given[2] and "@" not in host:  # https://grid.example.com@elsewhere is elsewhere
        return False
    is_any_path = not slash and host.endswith("*")
    tail = source.split("://", 1)[1][len(given[2]) :]
    return fnmatchcase(given[2], host) and (is_any_path or fnmatchcase(tail, slash + path)) and wanted is not None


def is_uri(source: str) -> bool:
    """Whether a canonical source is so plainly an address that nobody takes it for a person's name."""
    return bool(_URI.fullmatch(source))


def shown(source: str) -> str:
    """A source as the sender of a message: never like a person, whatever it calls itself."""
    if is_uri(source):
        return source
    name = "".join(c for c in unicodedata.normalize("NFKC", source) if unicodedata.category(c) != "Cf")
    return f"Source “{' '.join(name.split())}”"[:200]


def _encoding(text: str) -> str:
    def decoded(found: re.Match) -> str:
        character = chr(int(found[1], 16))
        return character if character in _UNRESERVED else found[0].upper()

    return _ENCODED.sub(decoded, text)


def _authority(authority: str, scheme: str | None) -> str:
    user, at, place = authority.rpartition("@")
    host, port = place, ""
    if not place.endswith("]"):
        head, colon, tail = place.rpartition(":")
        if colon and (tail.isdigit() or not tail):
            host, port = head, tail.lstrip("0")
    host = _host(host)
    if port == _OWN_PORTS.get(scheme or ""):
        port = ""
    return f"{user}{at}{host}{':' + port if port else ''}"


def _host(host: str) -> str:
    """In lower case and without the root's dot; a name in any script as DNS has it."""
    if not host.isascii():
        try:
            host = host.encode("idna").decode()
        except UnicodeError:
            host = unicodedata.normalize("NFKC", host)
    return host.lower().rstrip(".")


def _without_dots(path: str) -> str:
    """RFC 3986, 5.2.4."""
    out: list[str] = []
    parts = path.split("/")
    for n, part in enumerate(parts):
        is_last = n == len(parts) - 1
        if part == "..":
            if len(out) > 1:
                out.pop()
        elif part != ".":
            out.append(part)
            continue
        if is_last:
            out.append("")
    return "/".join(out)
