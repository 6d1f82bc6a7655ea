"""A browser's push subscription, checked before it is stored.

The endpoint is an address that users give and that this system posts to, so only that of a known push service is
accepted.
"""

import base64
import binascii
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from broadcast.base.errors import Invalid

MAX_ENDPOINT_CHARACTERS = 1000
# of Chrome and most others, Firefox, Safari, Edge on Windows
KNOWN_SERVICES = ("fcm.googleapis.com", "push.services.mozilla.com", "push.apple.com", "notify.windows.com")
_UNPADDED_BASE64URL = re.compile(r"[A-Za-z0-9_-]+={0,2}")
_AUTH_BYTES = 16
# the curve P-256: y² = x³ - 3x + B
_P = 2**256 - 2**224 + 2**192 + 2**96 - 1
_B = 0x5AC635D8AA3A93E7B3EBBD55769886BC651D06B0CC53B0F63BCE3C3E27D2604B


@dataclass(frozen=True, slots=True)
class PushEndpoint:
    """`url` is the address at the push service; `p256dh` and `auth` are the keys, in base64url, that encrypt for this
    browser (RFC 8291).
    """

    url: str
    p256dh: str
    auth: str


def parse_subscription(raw: Any, *, more_services: Collection[str] = ()) -> PushEndpoint:
    """Parse what `PushSubscription.toJSON()` makes in a browser. `more_services` are hosts, with a port if it is not 443.

    Raises Invalid.
    """
    if not isinstance(raw, Mapping) or not isinstance(raw.get("keys"), Mapping):
        raise Invalid({"subscription": "Send the subscription as the browser gives it: an endpoint, and its keys."})
    endpoint, keys = raw.get("endpoint"), raw["keys"]
    problems = {}
    if not is_endpoint_allowed(endpoint, more_services=more_services):
        problems["endpoint"] = "This is not the address of a push service that is known here."
    point, auth = decode_key(keys.get("p256dh")), decode_key(keys.get("auth"))
    if not _is_point_of_p256(point):
        problems["p256dh"] = "This is not a key of a browser."
    if len(auth) != _AUTH_BYTES:
        problems["auth"] = f"This is not a secret of {_AUTH_BYTES} bytes."
    if problems:
        raise Invalid(problems)
    return PushEndpoint(endpoint, _encode_key(point), _encode_key(auth))


def is_endpoint_allowed(endpoint: Any, *, more_services: Collection[str] = ()) -> bool:
    """Whether it is an https address at a push service: one of KNOWN_SERVICES or a host below it, or one of
    `more_services` exactly.
    """
    is_text = isinstance(endpoint, str) and len(endpoint) <= MAX_ENDPOINT_CHARACTERS
    if not is_text or not endpoint.isascii() or not endpoint.isprintable() or " " in endpoint or "\\" in endpoint:
        return False
    try:
        url = urlsplit(endpoint)
        port = url.port or 443
    except ValueError:
        return False
    if url.scheme != "https" or not url.hostname or "@" in url.netloc or url.fragment:
        return False
    if port == 443 and url.hostname.endswith(tuple(f".{name}" for name in KNOWN_SERVICES)):
        return True
    service = url.hostname if port == 443 else f"{url.hostname}:{port}"
    return service in KNOWN_SERVICES or service in more_services


def decode_key(text: Any) -> bytes:
    """The bytes of a key in base64url; none for any other value."""
    if not isinstance(text, str) or not _UNPADDED_BASE64URL.fullmatch(text):
        return b""
    try:
        return base64.urlsafe_b64decode(text.rstrip("=") + "=" * (-len(text.rstrip("=")) % 4))
    except binascii.Error:
        return b""


def _encode_key(key: bytes) -> str:
    return base64.urlsafe_b64encode(key).rstrip(b"=").decode()


def _is_point_of_p256(point: bytes) -> bool:
    """Whether these bytes are a point of the curve, uncompressed: another one would fail at each message."""
    if len(point) != 65 or point[0] != 4:
        return False
    x, y = int.from_bytes(point[1:33], "big"), int.from_bytes(point[33:], "big")
    return x < _P and y < _P and (y * y - (x**3 - 3 * x + _B)) % _P == 0
