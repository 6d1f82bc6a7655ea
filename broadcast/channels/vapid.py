"""The key by which push services recognise this system (VAPID, RFC 8292), and what it signs.

A browser's subscription is bound to this key: with another one, its push service refuses every message.
"""

import base64
import os
import secrets
import time
from contextlib import suppress
from email.utils import parseaddr
from functools import cached_property
from pathlib import Path
from urllib.parse import urlsplit

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from py_vapid import Vapid

from broadcast.config.push_settings import VAPID_KEY_BYTES, decode_vapid_key
from broadcast.config.settings import Settings

_VALID_SECONDS = 12 * 3600  # of a signature; push services take at most a day
_RENEW_SECONDS = 6 * 3600


class VapidKey:
    """Read, or made, when it is first needed. Raises OSError or ValueError then if the file cannot be used."""

    def __init__(self, settings: Settings):
        self._configured = settings.vapid_private_key
        self._path = settings.data_dir / "vapid_key"
        self._contact = _choose_contact(settings)
        self._authorizations: dict[str, tuple[float, str]] = {}  # by origin: when it was signed, the header

    @cached_property
    def public_key(self) -> str:
        """In base64url, as browsers take it (`applicationServerKey`)."""
        point = self._vapid.public_key.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
        return encode_base64url(point)

    def authorize(self, endpoint: str) -> str:
        """The header Authorization for a message to this endpoint. It is signed once in some hours for each service."""
        url, now = urlsplit(endpoint), time.time()
        origin = f"{url.scheme}://{url.netloc}"
        signed_at, header = self._authorizations.get(origin, (0.0, ""))
        if not signed_at <= now < signed_at + _RENEW_SECONDS:
            claims = {"aud": origin, "sub": self._contact, "exp": int(now) + _VALID_SECONDS}
            header = self._vapid.sign(claims)["Authorization"]
            self._authorizations[origin] = now, header
        return header

    @cached_property
    def _vapid(self) -> Vapid:
        text = self._configured or _read_or_create(self._path)
        key = decode_vapid_key(text)
        if key is None:
            raise ValueError(f"{self._path} does not hold a key. Delete it; another is made, and browsers follow.")
        return Vapid(ec.derive_private_key(int.from_bytes(key, "big"), ec.SECP256R1()))


def encode_base64url(value: bytes) -> str:
    return base64.urlsafe_b64encode(value).rstrip(b"=").decode()


def _read_or_create(path: Path) -> str:
    """The text of the file (0600); of several workers that make it at once, all return that of the first."""
    if path.exists():
        return path.read_text()
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    key = ec.generate_private_key(ec.SECP256R1()).private_numbers().private_value
    temporary = path.with_name(f"{path.name}.{secrets.token_hex(8)}")
    try:
        with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(encode_base64url(key.to_bytes(VAPID_KEY_BYTES, "big")))
            file.flush()
            os.fsync(file.fileno())
        with suppress(FileExistsError):  # another worker was faster
            os.link(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return path.read_text()


def _choose_contact(settings: Settings) -> str:
    """Whom a push service may write to about this system: an address of mail, or of the system."""
    address = parseaddr(settings.email_from or "")[1]
    url = urlsplit(settings.public_url or "")
    if not address and url.scheme == "https":
        return f"https://{url.hostname}"
    return f"mailto:{address or 'broadcast@localhost'}"
