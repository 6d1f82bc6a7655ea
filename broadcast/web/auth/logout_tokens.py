"""Validates the claims of a logout token (OpenID Connect Back-Channel Logout 1.0, sections 2.4 and 2.6)."""

from datetime import UTC, datetime, timedelta
from typing import Any

from broadcast.config.settings import Settings
from broadcast.domain import clock
from broadcast.domain.external_identity import ProviderLogout

_LOGOUT_EVENT = "http://schemas.openid.net/event/backchannel-logout"
_MAX_AGE = timedelta(minutes=10)  # older tokens are rejected, whatever their `exp`
_LEEWAY = timedelta(seconds=30)
_MAX_NAME_CHARACTERS = 255  # of a subject or session id


def validate(claims: dict[str, Any], *, settings: Settings, issuer: str) -> ProviderLogout:
    """Raises ValueError, with the end of a sentence, for an id_token, another party's token, or one that is too old."""
    now, issued_at = clock.now(), _read_time(claims, "iat")
    audience = claims.get("aud")
    if claims.get("iss") != issuer:
        raise ValueError("it has another issuer")
    if settings.oidc_client_id not in (audience if isinstance(audience, list) else [audience]):
        raise ValueError("its audience is another client")
    if issued_at is None or not now - _MAX_AGE <= issued_at <= now + _LEEWAY:
        raise ValueError("its iat is not recent")
    if "exp" in claims and ((expires_at := _read_time(claims, "exp")) is None or expires_at < now - _LEEWAY):
        raise ValueError("it has expired")
    if not isinstance(claims.get("events"), dict) or not isinstance(claims["events"].get(_LOGOUT_EVENT), dict):
        raise ValueError("it has no back-channel logout event")
    if "nonce" in claims:
        raise ValueError("it has a nonce")
    subject, session, token_id = (_read_name(claims, name) for name in ("sub", "sid", "jti"))
    if token_id is None or (subject is None and session is None):
        raise ValueError("it has no jti, or neither sub nor sid")
    return ProviderLogout(settings.oidc_issuer, token_id, subject, session, issued_at)


def _read_time(claims: dict[str, Any], name: str) -> datetime | None:
    value = claims.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 2**35:
        return None
    return datetime.fromtimestamp(value, UTC)


def _read_name(claims: dict[str, Any], name: str) -> str | None:
    """Raises ValueError for a value that no provider could have issued."""
    value = claims.get(name)
    if value is not None and not (
        isinstance(value, str) and 0 < len(value) <= _MAX_NAME_CHARACTERS and value.isprintable()
    ):
        raise ValueError(f"its {name} is not a valid name")
    return value
