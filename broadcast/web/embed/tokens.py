"""Tokens of embedded inboxes: signed, not stored, valid for some minutes. A token names a session, which can be ended.

The key is derived from SECRET_KEY for this purpose only, so that no cookie is valid as a token, and no token as a
cookie.
"""

import hashlib
from datetime import UTC, datetime, timedelta

from flask import current_app
from itsdangerous import BadData, URLSafeSerializer

PREFIX = "bme_"
LIFETIME = timedelta(minutes=15)
_MAX_CHARACTERS = 300


def sign(session_id: int, *, expires_at: datetime) -> str:
    """A token for this embedded session, valid until `expires_at` (whole seconds)."""
    return PREFIX + _make_signer().dumps([session_id, int(expires_at.timestamp())])


def read(token: str) -> tuple[int, datetime] | None:
    """The session id and expiry of a token, which may have passed; None without a valid signature."""
    if not token.startswith(PREFIX) or len(token) > _MAX_CHARACTERS:
        return None
    try:
        session_id, expires_at = _make_signer().loads(token.removeprefix(PREFIX))
    except BadData:
        return None
    return session_id, datetime.fromtimestamp(expires_at, UTC)


def _make_signer() -> URLSafeSerializer:
    keys = [*(current_app.config["SECRET_KEY_FALLBACKS"] or ()), current_app.secret_key]  # the last key signs
    signer_options = {"key_derivation": "hmac", "digest_method": hashlib.sha256}
    return URLSafeSerializer(keys, salt="broadcast embed", signer_kwargs=signer_options)
