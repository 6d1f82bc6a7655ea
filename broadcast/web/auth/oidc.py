"""The organisation's OpenID provider, spoken to by Authlib: authorization code with PKCE, state and nonce
(RFC 6749, RFC 7636, OpenID Connect Core 1.0).

Authlib is an optional package, and is imported only where a provider is configured. No request waits for the provider longer
than some seconds, and while one waits the worker's others go on.
"""

import time
from datetime import UTC, datetime
from typing import Any

import flask
import structlog
from flask import Flask, Response

from broadcast.base.app_parts import AppPart
from broadcast.base.errors import Invalid, ProviderAway, SignInRefused
from broadcast.config.settings import Settings
from broadcast.domain.external_identity import ProviderLogout, Vouched
from broadcast.web.auth import logout_tokens

_DEADLINE_SECONDS = 5.0  # for each of the questions asked of the provider
_LEEWAY_SECONDS = 30  # by which the provider's clock and ours may differ
_SIGNATURES = {"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"}
_MOST = 255  # characters of a subject, by the specification
_NAME = "oidc"
_KEYS_SECONDS = 10.0  # between two looks for a key that is not known
_log = structlog.get_logger(__name__)


class Provider:
    """One provider. Its description and keys are asked for at the first sign-in, and kept; a key that is not known then is
    asked for once more. `begin` and `finish` need the request, and wait; they raise ProviderAway.
    """

    def __init__(self, app: Flask, settings: Settings):
        # here, not above: who has no provider needs no Authlib
        from authlib.common.errors import AuthlibBaseError
        from authlib.integrations.flask_client import OAuth
        from joserfc.errors import JoseError
        from requests import RequestException

        self._settings = settings
        self._keys_again_at = 0.0
        self._refusals = (AuthlibBaseError, JoseError)
        # away, or answering what no provider answers: then Authlib stumbles over it in one of these ways
        self._failures = (RequestException, LookupError, TypeError, ValueError, AttributeError, RuntimeError)
        self._client = OAuth(app).register(
            _NAME,
            client_id=settings.oidc_client_id,
            client_secret=settings.oidc_client_secret,
            server_metadata_url=f"{settings.oidc_issuer.rstrip('/')}/.well-known/openid-configuration",
            client_kwargs={
                "scope": settings.oidc_scopes,
                "code_challenge_method": "S256",
                "default_timeout": _DEADLINE_SECONDS,
                "leeway": 0,  # an access token is used at once; with Authlib's 60 s, one of a minute would count as over
            },
        )

    def begin(self, back: str) -> Response:
        """Send the browser to the provider, which sends it on to `back`."""
        for key in [key for key in flask.session if key.startswith(f"_state_{_NAME}_")]:
            del flask.session[key]  # a cookie holds 4 kB, and of several attempts the last one counts
        try:
            self._load()
            return self._client.authorize_redirect(back)
        except (*self._refusals, *self._failures) as problem:
            raise self._away(problem) from problem

    def finish(self) -> Vouched:
        """Who came back: state, code, signature, issuer, audience, times and nonce are checked. Raises SignInRefused."""
        try:
            self._load()
            token = self._client.authorize_access_token(claims_options=self._wanted(), leeway=_LEEWAY_SECONDS)
            claims, signed = self._claims(token), token["userinfo"]
        except self._refusals as problem:
            _log.warning("oidc.refused", problem=f"{type(problem).__name__}: {problem}"[:300])
            raise SignInRefused("Your organisation did not confirm this sign-in. Please try again.") from problem
        except self._failures as problem:
            raise self._away(problem) from problem
        return self._read(claims, signed)

    def read_logout(self, text: str) -> ProviderLogout:
        """What a logout token says (OpenID Connect Back-Channel Logout 1.0, section 2.6). Raises Invalid, ProviderAway."""
        try:
            self._load()
            claims = self._decode(text)
        except self._refusals as problem:
            _log.warning("oidc.logout_refused", problem=f"{type(problem).__name__}: {problem}"[:300])
            raise Invalid({"logout_token": "The provider did not sign this."}) from problem
        except self._failures as problem:
            raise self._away(problem) from problem
        try:
            return logout_tokens.read(claims, settings=self._settings, issuer=self._client.server_metadata["issuer"])
        except ValueError as problem:
            _log.warning("oidc.logout_refused", problem=str(problem)[:300])
            raise Invalid({"logout_token": f"This is no logout token: {problem}."}) from None

    def _decode(self, text: str) -> dict[str, Any]:
        """The claims of what the provider signed, by a key that it has published."""
        from joserfc import jwt
        from joserfc.errors import DecodeError, InvalidKeyIdError
        from joserfc.jwk import KeySet
        from joserfc.jws import JWSRegistry

        algorithms = self._client.server_metadata["id_token_signing_alg_values_supported"]
        registry = JWSRegistry(algorithms=algorithms, strict_check_header=False)

        def decode(*, force: bool) -> dict[str, Any]:
            keys = KeySet.import_key_set(self._client.fetch_jwk_set(force=force))
            try:
                return jwt.decode(text, keys, registry=registry).claims
            except (ValueError, TypeError, UnicodeError) as problem:  # not of the three parts that a token has
                raise DecodeError(str(problem)) from None

        try:
            return decode(force=False)
        except InvalidKeyIdError:
            if time.monotonic() < self._keys_again_at:  # anybody may send a token; not everybody may make us ask
                raise
            self._keys_again_at = time.monotonic() + _KEYS_SECONDS
            return decode(force=True)

    def sign_out_url(self, back: str) -> str | None:
        """Where one signs out at the provider as well; None when it has no such place, or is away."""
        try:
            self._load()
            more = {"client_id": self._settings.oidc_client_id}
            return self._client.create_logout_url(post_logout_redirect_uri=back, **more)["url"]
        except (*self._refusals, *self._failures):
            return None

    def _load(self) -> None:
        """Ask for the provider's description once. Raises ValueError for one that is another's (OpenID Discovery 4.3)."""
        metadata = self._client.server_metadata
        if "_loaded_at" in metadata:
            return
        told = self._client.load_server_metadata()
        if told.get("issuer", "").rstrip("/") != self._settings.oidc_issuer.rstrip("/"):
            metadata.clear()
            raise ValueError("the provider calls itself by another name than OIDC_ISSUER")
        # a token signed with what both sides know (HS256), or with nothing, is no proof
        signatures = set(told.get("id_token_signing_alg_values_supported", ["RS256"])) & _SIGNATURES
        metadata["id_token_signing_alg_values_supported"] = sorted(signatures)
        ways = told.get("token_endpoint_auth_methods_supported", ["client_secret_basic"])
        if self._settings.oidc_client_secret and "client_secret_basic" not in ways:
            metadata["token_endpoint_auth_method"] = "client_secret_post"

    def _wanted(self) -> dict[str, Any]:
        """What an id_token must say; Authlib by itself checks the audience loosely."""
        audience = {"essential": True, "value": self._settings.oidc_client_id}
        return {"iss": {"essential": True, "value": self._client.server_metadata["issuer"]}, "aud": audience}

    def _claims(self, token: dict[str, Any]) -> dict[str, Any]:
        """What is said of the person: by the signed token, and where that is silent by the userinfo endpoint."""
        claims = token.get("userinfo")
        if claims is None:
            raise ValueError("the provider sent no id_token")
        asked = [self._settings.oidc_username_claim, self._settings.oidc_roles_claim]
        is_silent = any(name and _said(claims, name) is None for name in asked)
        is_silent |= "@" in str(_said(claims, asked[0])) and "email_verified" not in claims
        if is_silent and "userinfo_endpoint" in self._client.server_metadata:
            more = self._client.userinfo(token=token)
            if more.get("sub") != claims["sub"]:  # OpenID Connect Core 1.0, section 5.3.2
                raise ValueError("userinfo speaks of somebody else")
            claims = {**more, **claims}
        return claims

    def _read(self, claims: dict[str, Any], signed: dict[str, Any]) -> Vouched:
        """Who that is; `signed` is what stands in the id_token itself."""
        settings, subject = self._settings, claims["sub"]
        username, name = _said(claims, settings.oidc_username_claim), claims.get("name")
        is_whole = isinstance(subject, str) and 0 < len(subject) <= _MOST and subject.isprintable()
        if not is_whole or not isinstance(username, str) or not username:
            _log.warning("oidc.incomplete", claim=settings.oidc_username_claim)
            raise SignInRefused(
                "Your organisation does not say what your username is. Ask whoever looks after this system."
            )
        roles = self._roles(claims) if settings.oidc_roles_claim else None
        session = signed.get("sid")
        return Vouched(
            settings.oidc_issuer,
            subject,
            username,
            name if isinstance(name, str) else None,
            roles,
            session=session if isinstance(session, str) and 0 < len(session) <= _MOST else None,
            at=datetime.fromtimestamp(int(signed["iat"]), UTC),
            owns_name=self._owns(claims, username),
        )

    def _owns(self, claims: dict[str, Any], username: str) -> bool:
        """Whether the username is this person's for sure. An e-mail address is what somebody typed until it is verified."""
        verified, address = claims.get("email_verified"), claims.get("email")
        if "@" not in username and self._settings.oidc_username_claim != "email":
            return True
        if verified is not None or not self._settings.oidc_addresses_are_verified:
            is_that = address is None or str(address).casefold() == username.casefold()
            return is_that and (verified is True or verified == "true")
        return True

    def _roles(self, claims: dict[str, Any]) -> frozenset[str]:
        """Their roles by our names. Whatever is no list of names gives no role."""
        said, map = _said(claims, self._settings.oidc_roles_claim), self._settings.oidc_role_map
        said = said.split() if isinstance(said, str) else said if isinstance(said, list) else []
        names = {name for name in said if isinstance(name, str)}
        return frozenset(map[name] for name in names if name in map) if map else frozenset(names)

    def _away(self, problem: Exception) -> ProviderAway:
        _log.warning("oidc.away", problem=f"{type(problem).__name__}: {problem}"[:300])
        return ProviderAway()


def _said(claims: dict[str, Any], name: str) -> Any:
    """The claim of this name; where there is none, what lies inside: `a.b` is b inside a."""
    if name in claims:
        return claims[name]
    found: Any = claims
    for part in name.split("."):
        found = found.get(part) if isinstance(found, dict) else None
    return found


OIDC_PROVIDER = AppPart[Provider | None]("oidc")
