"""The OpenID provider, through Authlib: authorization code with PKCE, state and nonce (RFC 6749, RFC 7636, OpenID
Connect Core 1.0).

Authlib is optional and imported only where a provider is configured. Every call to the provider has a timeout of some
seconds, and the worker's other requests go on meanwhile.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import flask
import structlog
from flask import Flask, Response

from broadcast.base.app_parts import AppPart
from broadcast.base.errors import BroadcastError, IdentityProviderUnavailable, Invalid, SignInRefused
from broadcast.config.settings import Settings
from broadcast.domain import clock
from broadcast.domain.external_identity import ExternalIdentity, ProviderLogout

_TIMEOUT_SECONDS = 5.0  # for each request to the provider
_LEEWAY = timedelta(seconds=30)  # allowed clock difference to the provider
_SIGNATURE_ALGORITHMS = {"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"}
_MAX_CHARACTERS = 255  # of a subject, by the specification, and of a session id
_LOGOUT_EVENT = "http://schemas.openid.net/event/backchannel-logout"
_MAX_LOGOUT_TOKEN_AGE = timedelta(minutes=10)  # older tokens are rejected, whatever their `exp`
_CLIENT_NAME = "oidc"
_MIN_KEY_REFRESH_SECONDS = 10.0  # between two key refreshes because of an unknown key id
_log = structlog.get_logger(__name__)


class OidcProvider:
    """One provider. Its metadata and keys are loaded at the first sign-in and cached; an unknown key triggers one
    refresh. `start_login` and `complete_login` need the request context. All that follows a call
    to the provider blocks and raises IdentityProviderUnavailable.
    """

    def __init__(self, app: Flask, settings: Settings):
        # imported here, so that Authlib is needed only with a provider
        from authlib.common.errors import AuthlibBaseError
        from authlib.integrations.flask_client import OAuth
        from joserfc.errors import JoseError
        from requests import RequestException

        self._settings = settings
        self._next_key_refresh_at = 0.0
        self._refusal_errors = (AuthlibBaseError, JoseError)
        # unreachable, or an invalid response: Authlib then fails with one of these
        self._unavailable_errors = (RequestException, LookupError, TypeError, ValueError, AttributeError, RuntimeError)
        self._client = OAuth(app).register(
            _CLIENT_NAME,
            client_id=settings.oidc_client_id,
            client_secret=settings.oidc_client_secret,
            server_metadata_url=f"{settings.oidc_issuer.rstrip('/')}/.well-known/openid-configuration",
            client_kwargs={
                "scope": settings.oidc_scopes,
                "code_challenge_method": "S256",
                "default_timeout": _TIMEOUT_SECONDS,
                "leeway": 0,  # used at once; Authlib's 60 s would count a one-minute access token as expired
            },
        )

    def start_login(self, redirect_uri: str) -> Response:
        """Redirect the browser to the provider, which redirects it to `redirect_uri`."""
        for key in [key for key in flask.session if key.startswith(f"_state_{_CLIENT_NAME}_")]:
            del flask.session[key]  # a cookie holds 4 kB, and only the last attempt counts
        with self._translate_errors("oidc.away", IdentityProviderUnavailable()):
            return self._client.authorize_redirect(redirect_uri)

    def complete_login(self) -> ExternalIdentity:
        """Who signed in. Checks state, code, signature, issuer, audience, times and nonce. Raises SignInRefused."""
        refused = SignInRefused("Your organisation did not confirm this sign-in. Please try again.")
        with self._translate_errors("oidc.refused", refused):
            claims_options = {  # Authlib's own audience check is too loose
                "iss": {"essential": True, "value": self._client.server_metadata["issuer"]},
                "aud": {"essential": True, "value": self._settings.oidc_client_id},
            }
            token = self._client.authorize_access_token(claims_options=claims_options, leeway=_LEEWAY.seconds)
            claims, id_token_claims = self._collect_claims(token), token["userinfo"]
        return self._to_external_identity(claims, id_token_claims)

    def parse_logout_token(self, logout_token: str) -> ProviderLogout:
        """Validate a logout token (OpenID Connect Back-Channel Logout 1.0, section 2.6). Raises Invalid."""
        unsigned = Invalid({"logout_token": "This was not signed by the provider."})
        with self._translate_errors("oidc.logout_refused", unsigned):
            claims = self._decode_signed(logout_token)
        issuer = self._client.server_metadata["issuer"]
        try:
            return _validate_logout_token(claims, settings=self._settings, issuer=issuer)
        except ValueError as problem:
            _log.warning("oidc.logout_refused", problem=str(problem)[:300])
            raise Invalid({"logout_token": f"This is not a valid logout token: {problem}."}) from None

    def _decode_signed(self, text: str) -> dict[str, Any]:
        """The claims of a token that the provider signed with one of its published keys."""
        from joserfc import jwt
        from joserfc.errors import DecodeError, InvalidKeyIdError
        from joserfc.jwk import KeySet
        from joserfc.jws import JWSRegistry

        algorithms = self._client.server_metadata["id_token_signing_alg_values_supported"]
        registry = JWSRegistry(algorithms=algorithms, strict_check_header=False)

        def decode_with_keys(*, force: bool) -> dict[str, Any]:
            keys = KeySet.import_key_set(self._client.fetch_jwk_set(force=force))
            try:
                return jwt.decode(text, keys, registry=registry).claims
            except (ValueError, TypeError, UnicodeError) as problem:  # not the three parts of a token
                raise DecodeError(str(problem)) from None

        try:
            return decode_with_keys(force=False)
        except InvalidKeyIdError:
            if time.monotonic() < self._next_key_refresh_at:  # a forged token must not cause a request
                raise
            self._next_key_refresh_at = time.monotonic() + _MIN_KEY_REFRESH_SECONDS
            return decode_with_keys(force=True)

    def build_sign_out_url(self, redirect_uri: str) -> str | None:
        """The provider's sign-out URL; None when it has none or is unavailable."""
        try:
            self._load_metadata()
            parameters = {"client_id": self._settings.oidc_client_id}
            return self._client.create_logout_url(post_logout_redirect_uri=redirect_uri, **parameters)["url"]
        except (*self._refusal_errors, *self._unavailable_errors):
            return None

    def _load_metadata(self) -> None:
        """Load the provider's metadata once. Raises ValueError for another issuer's metadata (OpenID Discovery 4.3)."""
        metadata = self._client.server_metadata
        if "_loaded_at" in metadata:
            return
        loaded = self._client.load_server_metadata()
        if loaded.get("issuer", "").rstrip("/") != self._settings.oidc_issuer.rstrip("/"):
            metadata.clear()
            raise ValueError("the provider's issuer is not OIDC_ISSUER")
        # A token with a shared secret (HS256) or without a signature proves nothing.
        algorithms = set(loaded.get("id_token_signing_alg_values_supported", ["RS256"])) & _SIGNATURE_ALGORITHMS
        metadata["id_token_signing_alg_values_supported"] = sorted(algorithms)
        auth_methods = loaded.get("token_endpoint_auth_methods_supported", ["client_secret_basic"])
        if self._settings.oidc_client_secret and "client_secret_basic" not in auth_methods:
            metadata["token_endpoint_auth_method"] = "client_secret_post"

    def _collect_claims(self, token: dict[str, Any]) -> dict[str, Any]:
        """The claims about the user: from the id_token, completed from the userinfo endpoint."""
        claims = token.get("userinfo")
        if claims is None:
            raise ValueError("the provider sent no id_token")
        claim_names = [self._settings.oidc_username_claim, self._settings.oidc_roles_claim]
        is_incomplete = any(name and _get_claim(claims, name) is None for name in claim_names)
        is_incomplete |= "@" in str(_get_claim(claims, claim_names[0])) and "email_verified" not in claims
        if is_incomplete and "userinfo_endpoint" in self._client.server_metadata:
            userinfo = self._client.userinfo(token=token)
            if userinfo.get("sub") != claims["sub"]:  # OpenID Connect Core 1.0, section 5.3.2
                raise ValueError("userinfo is about another subject")
            claims = {**userinfo, **claims}
        return claims

    def _to_external_identity(self, claims: dict[str, Any], id_token_claims: dict[str, Any]) -> ExternalIdentity:
        """Build the external identity; `id_token_claims` are the claims of the id_token itself."""
        settings, subject = self._settings, claims["sub"]
        username, name = _get_claim(claims, settings.oidc_username_claim), claims.get("name")
        if not _is_valid_name(subject) or not isinstance(username, str) or not username:
            _log.warning("oidc.incomplete", claim=settings.oidc_username_claim)
            raise SignInRefused("Your organisation did not send your username. Ask an administrator for help.")
        roles = self._map_roles(claims) if settings.oidc_roles_claim else None
        session = id_token_claims.get("sid")
        return ExternalIdentity(
            settings.oidc_issuer,
            subject,
            username,
            name if isinstance(name, str) else None,
            roles,
            provider_session=session if isinstance(session, str) and 0 < len(session) <= _MAX_CHARACTERS else None,
            asserted_at=datetime.fromtimestamp(int(id_token_claims["iat"]), UTC),
            is_username_verified=self._owns_username(claims, username),
            email=_get_verified_email(claims),
        )

    def _owns_username(self, claims: dict[str, Any], username: str) -> bool:
        """Whether the username is verified. An unverified e-mail address is only what somebody typed."""
        verified, address = claims.get("email_verified"), claims.get("email")
        if "@" not in username and self._settings.oidc_username_claim != "email":
            return True
        if verified is not None or not self._settings.oidc_addresses_are_verified:
            is_matching = address is None or str(address).casefold() == username.casefold()
            return is_matching and (verified is True or verified == "true")
        return True

    def _map_roles(self, claims: dict[str, Any]) -> frozenset[str]:
        """The roles under local names. A value that is not a list of names gives no role."""
        claimed, role_map = _get_claim(claims, self._settings.oidc_roles_claim), self._settings.oidc_role_map
        claimed = claimed.split() if isinstance(claimed, str) else claimed if isinstance(claimed, list) else []
        names = {name for name in claimed if isinstance(name, str)}
        return frozenset(role_map[name] for name in names if name in role_map) if role_map else frozenset(names)

    @contextmanager
    def _translate_errors(self, event: str, refusal: BroadcastError) -> Iterator[None]:
        """Load the metadata; log what the block raises, and raise `refusal` or IdentityProviderUnavailable instead."""
        try:
            self._load_metadata()
            yield
        except (*self._refusal_errors, *self._unavailable_errors) as problem:
            is_refusal = isinstance(problem, self._refusal_errors)
            _log.warning(event if is_refusal else "oidc.away", problem=f"{type(problem).__name__}: {problem}"[:300])
            raise (refusal if is_refusal else IdentityProviderUnavailable()) from problem


def _get_verified_email(claims: dict[str, Any]) -> str | None:
    """The user's address, if the provider says that it has verified it."""
    address = claims.get("email")
    return address if isinstance(address, str) and claims.get("email_verified") in (True, "true") else None


def _get_claim(claims: dict[str, Any], name: str) -> Any:
    """The claim called `name`; if there is none, the nested one: `a.b` is b inside a."""
    if name in claims:
        return claims[name]
    value: Any = claims
    for part in name.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return value


def _validate_logout_token(claims: dict[str, Any], *, settings: Settings, issuer: str) -> ProviderLogout:
    """Check the claims of a logout token (OpenID Connect Back-Channel Logout 1.0, sections 2.4 and 2.6).

    Raises ValueError, with the end of a sentence, for an id_token, another party's token, or one that is too old.
    """
    now, issued_at = clock.now(), _read_time(claims, "iat")
    audience = claims.get("aud")
    if claims.get("iss") != issuer:
        raise ValueError("it has another issuer")
    if settings.oidc_client_id not in (audience if isinstance(audience, list) else [audience]):
        raise ValueError("its audience is another client")
    if issued_at is None or not now - _MAX_LOGOUT_TOKEN_AGE <= issued_at <= now + _LEEWAY:
        raise ValueError("its iat is not recent")
    if "exp" in claims and ((expires_at := _read_time(claims, "exp")) is None or expires_at < now - _LEEWAY):
        raise ValueError("it has expired")
    if not isinstance(claims.get("events"), dict) or not isinstance(claims["events"].get(_LOGOUT_EVENT), dict):
        raise ValueError("it has no back-channel logout event")
    if "nonce" in claims:
        raise ValueError("it has a nonce")
    for name in ("sub", "sid", "jti"):
        if claims.get(name) is not None and not _is_valid_name(claims[name]):
            raise ValueError(f"its {name} is not a valid name")
    subject, session, token_id = claims.get("sub"), claims.get("sid"), claims.get("jti")
    if token_id is None or (subject is None and session is None):
        raise ValueError("it has no jti, or neither sub nor sid")
    return ProviderLogout(settings.oidc_issuer, token_id, subject, session, issued_at)


def _read_time(claims: dict[str, Any], name: str) -> datetime | None:
    value = claims.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 2**35:
        return None
    return datetime.fromtimestamp(value, UTC)


def _is_valid_name(value: Any) -> bool:
    """Whether a provider could have issued this subject or id."""
    return isinstance(value, str) and 0 < len(value) <= _MAX_CHARACTERS and value.isprintable()


OIDC_PROVIDER = AppPart[OidcProvider | None]("oidc")
