"""Compares event sources by meaning rather than spelling (RFC 3986, 6.2), and names the owner of an event.

`https://GRID.example.com:443/./a` equals `https://grid.example.com/a`; otherwise a rule for one would miss the other.
"""

import re
import unicodedata
from dataclasses import dataclass
from fnmatch import fnmatchcase

_URI_PARTS = re.compile(r"(?:([A-Za-z][A-Za-z0-9+.-]*):)?(?://([^/?#]*))?([^?#]*)(\?[^#]*)?(#.*)?", re.DOTALL)
_PERCENT_ENCODED = re.compile(r"%([0-9A-Fa-f]{2})")
_UNRESERVED = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
_DEFAULT_PORTS = {"http": "80", "ws": "80", "https": "443", "wss": "443", "ftp": "21", "amqp": "5672", "amqps": "5671"}
_ABSOLUTE_URI = re.compile(r"[a-z][a-z0-9+.-]*:[\x21-\x7e]+")  # cannot be mistaken for a person's name


@dataclass(frozen=True, slots=True)
class EventOwner:
    """Who sent an event: an account, or whoever may write to a topic. Event ids and recalls are per owner.

    `key` is stored and never changes; `name` is used in rules and on pages: `account:grid-bot`, `topic:grid.events`.
    """

    key: str
    name: str

    @classmethod
    def for_account(cls, user_id: int, username: str) -> "EventOwner":
        return cls(f"account:{user_id}", f"account:{username}")

    @classmethod
    def for_topic(cls, topic: str) -> "EventOwner":
        return cls(f"topic:{topic}", f"topic:{topic}")


def canonicalize_source(source: str) -> str:
    """The canonical form of a source among all that RFC 3986 calls equivalent. Keeps `*` and `[]` of patterns."""
    scheme, authority, path, query, fragment = _URI_PARTS.fullmatch(unicodedata.normalize("NFC", source)).groups()
    scheme = scheme and scheme.lower()
    path = _normalize_percent_encoding(path)
    if authority is not None:
        authority = _normalize_authority(_normalize_percent_encoding(authority), scheme)
        path = _remove_dot_segments(path) or "/"
        if path == "/" and authority.endswith("*") and not (query or fragment):
            path = ""  # a host pattern that matches any path
    elif scheme and path.startswith("/"):
        path = _remove_dot_segments(path)
    elif scheme == "urn":
        namespace, colon, specific_part = path.partition(":")
        path = namespace.lower() + colon + specific_part
    prefix = (f"{scheme}:" if scheme else "") + (f"//{authority}" if authority is not None else "")
    return prefix + path + _normalize_percent_encoding((query or "") + (fragment or ""))


def matches_pattern(pattern: str, source: str) -> bool:
    """Whether a canonical source matches a canonical shell-style pattern, whose host part ends where the host ends."""
    if "://" not in pattern:
        return fnmatchcase(source, pattern)
    source_parts = _URI_PARTS.fullmatch(source)
    scheme, host_and_path = pattern.split("://", 1)
    host, slash, path = host_and_path.partition("/")
    if source_parts[2] is None or not fnmatchcase(source_parts[1] or "", scheme):
        return False
    if "@" in source_parts[2] and "@" not in host:  # https://grid.example.com@elsewhere is elsewhere
        return False
    is_any_path = not slash and host.endswith("*")
    source_path = source.split("://", 1)[1][len(source_parts[2]) :]
    return fnmatchcase(source_parts[2], host) and (is_any_path or fnmatchcase(source_path, slash + path))


def to_sender_name(source: str) -> str:
    """A source as the sender of a message; never looks like a person, whatever the source is called."""
    if _ABSOLUTE_URI.fullmatch(source):
        return source
    name = "".join(c for c in unicodedata.normalize("NFKC", source) if unicodedata.category(c) != "Cf")
    return f"Source “{' '.join(name.split())}”"[:200]


def _normalize_percent_encoding(text: str) -> str:
    def decode(match: re.Match) -> str:
        character = chr(int(match[1], 16))
        return character if character in _UNRESERVED else match[0].upper()

    return _PERCENT_ENCODED.sub(decode, text)


def _normalize_authority(authority: str, scheme: str | None) -> str:
    user, at, host_and_port = authority.rpartition("@")
    host, port = host_and_port, ""
    if not host_and_port.endswith("]"):
        host_text, colon, port_text = host_and_port.rpartition(":")
        if colon and (port_text.isdigit() or not port_text):
            host, port = host_text, port_text.lstrip("0")
    host = _normalize_host(host)
    if port == _DEFAULT_PORTS.get(scheme or ""):
        port = ""
    return f"{user}{at}{host}{':' + port if port else ''}"


def _normalize_host(host: str) -> str:
    """Lower case, without the root dot; a non-ASCII name in its DNS form (IDNA)."""
    if not host.isascii():
        try:
            host = host.encode("idna").decode()
        except UnicodeError:
            host = unicodedata.normalize("NFKC", host)
    return host.lower().rstrip(".")


def _remove_dot_segments(path: str) -> str:
    """RFC 3986, 5.2.4."""
    segments, kept_segments = path.split("/"), []
    for segment in segments:
        if segment not in (".", ".."):
            kept_segments.append(segment)
        elif segment == ".." and len(kept_segments) > 1:
            kept_segments.pop()
    if segments[-1] in (".", ".."):
        kept_segments.append("")
    return "/".join(kept_segments)
