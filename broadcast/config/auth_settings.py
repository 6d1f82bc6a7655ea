"""Sign-in settings: password, OpenID provider, reverse proxy. Part of `config.settings.Settings`."""

from collections.abc import Iterator
from importlib.util import find_spec
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from broadcast.config.validation import MISSING_PACKAGES_HINT, CommaSeparated, check_networks, split_list

_HEADER_PATTERN = r"^[A-Za-z][A-Za-z0-9]*(-[A-Za-z0-9]+)*$"  # without _, which servers confuse with -


def _split_pairs(text: Any) -> Any:
    """`theirs=ours, theirs=ours` as a dictionary."""
    if not isinstance(text, str):
        return text
    pairs = (part.partition("=") for part in split_list(text))
    return {theirs.strip(): ours.strip() for theirs, _, ours in pairs}


class SignInSettings(BaseModel):
    """Fields, and checks of their combinations."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    password_sign_in: Literal["everybody", "administrators"] = "everybody"
    """Who may sign in with a password of this system. `administrators`: only they may, and the form is one click away."""
    oidc_issuer: str | None = None
    """Issuer URL of the OpenID provider that people sign in at; empty: none."""
    oidc_client_id: str | None = None
    """Client ID of this system at the provider."""
    oidc_client_secret: str | None = Field(None, repr=False)
    """Client secret of this system at the provider; without it, PKCE alone."""
    oidc_scopes: str = "openid profile email"
    """Scopes to request from the provider."""
    oidc_username_claim: str = "preferred_username"
    """Claim with the username, which people must not be able to choose there; `a.b` is b inside a."""
    oidc_roles_claim: str | None = None
    """Claim with the roles, for instance `groups`; empty: roles are assigned in the console."""
    oidc_role_map: Annotated[dict[str, str], BeforeValidator(_split_pairs)] = {}
    """`theirs=ours`, comma-separated; roles that are not listed are ignored. Empty: used unchanged."""
    oidc_create_users: bool = False
    """1 creates an account for unknown people who sign in there."""
    oidc_link_users: Literal["without-password", "everybody"] = "without-password"
    """Which existing accounts a first sign-in is linked to by username; later ones use the provider's permanent ID."""
    oidc_addresses_are_verified: bool = False
    """1 trusts the e-mail address that is the username, though the provider sends no `email_verified` (Entra ID does not)."""
    oidc_session_hours: float = Field(24, gt=0, le=24 * 365)
    """A session that began at the provider ends after this long; signing in again asks the provider."""
    oidc_label: str = Field("Sign in with your organisation", min_length=1, max_length=60)
    """Label of the sign-in button."""
    proxy_sign_in_header: str | None = Field(None, pattern=_HEADER_PATTERN)
    """Header in which a reverse proxy sends the username; empty: none."""
    proxy_sign_in_from: CommaSeparated = []
    """Addresses or networks of the proxies that are trusted with it, comma-separated."""
    proxy_roles_header: str | None = Field(None, pattern=_HEADER_PATTERN)
    """Header with the roles, comma-separated; empty: roles are assigned in the console."""
    proxy_create_users: bool = False
    """1 creates an account for unknown usernames from a proxy."""
    proxy_sign_out_url: str | None = Field(None, pattern=r"^(https?:/)?/[^/\\\s]\S*$")
    """Where to sign out at the proxy: an address, or a path."""

    def check_sign_in(self, *, is_production: bool, proxy_hops: int) -> Iterator[str]:
        """One sentence per combination that cannot work or lets anyone in. `proxy_hops` is TRUSTED_PROXY_HOPS."""
        yield from self._check_oidc(is_production)
        if self.proxy_sign_in_header and not proxy_hops:
            yield "PROXY_SIGN_IN_HEADER: needs TRUSTED_PROXY_HOPS of at least 1; without a proxy anybody could send it."
        if self.proxy_sign_in_header and not self.proxy_sign_in_from:
            yield "PROXY_SIGN_IN_FROM: name the addresses of the proxies that may send PROXY_SIGN_IN_HEADER."
        yield from check_networks("PROXY_SIGN_IN_FROM", self.proxy_sign_in_from)

    def _check_oidc(self, is_production: bool) -> Iterator[str]:
        if self.oidc_issuer is None:
            if self.password_sign_in == "administrators" and self.proxy_sign_in_header is None:
                yield "PASSWORD_SIGN_IN: only administrators could sign in; set OIDC_ISSUER or PROXY_SIGN_IN_HEADER too."
            return
        url = urlsplit(self.oidc_issuer)
        is_loopback = url.hostname in ("localhost", "127.0.0.1") and not is_production
        if not url.hostname or url.scheme not in (("https", "http") if is_loopback else ("https",)):
            yield "OIDC_ISSUER: must begin with https://, so that nobody on the way can answer for the provider."
        if not self.oidc_client_id:
            yield "OIDC_CLIENT_ID: register this system at the provider to get one."
        if "openid" not in self.oidc_scopes.split():
            yield "OIDC_SCOPES: `openid` must be among them."
        if not all(theirs and ours for theirs, ours in self.oidc_role_map.items()):
            yield "OIDC_ROLE_MAP: write theirs=ours, theirs=ours."
        if find_spec("authlib") is None:
            yield f"OIDC_ISSUER: {MISSING_PACKAGES_HINT.format('oidc')}"
