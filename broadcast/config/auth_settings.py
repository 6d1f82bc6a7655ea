"""Sign-in settings: password, OpenID provider, reverse proxy. Part of `config.settings.Settings`."""

from importlib.util import find_spec
from ipaddress import ip_network
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import Field, model_validator
from pydantic_settings import BaseSettings, NoDecode

MISSING_PACKAGES_HINT = "needs packages: `pip install --require-hashes -r requirements-{}.txt`."
_HEADER_PATTERN = r"^[A-Za-z][A-Za-z0-9]*(-[A-Za-z0-9]+)*$"  # without _, which servers confuse with -


def split_list(text: str) -> list[str]:
    """The non-empty items of a comma-separated list, stripped."""
    return [part.strip() for part in text.split(",") if part.strip()]


def check_networks(setting: str, networks: list[str]) -> list[str]:
    """One sentence for each item that is not a network."""
    hints = []
    for network in networks:
        try:
            ip_network(network)
        except ValueError:
            hints.append(f"{setting}: {network!r} is not an address or a network such as 10.0.0.0/24.")
    return hints


class SignInSettings(BaseSettings):
    """Fields, and checks of their combinations."""

    password_sign_in: Literal["everybody", "administrators"] = Field(
        "everybody",
        description="Who may sign in with a password of this system. `administrators`: only they may, and the form is one click away.",
    )
    oidc_issuer: str | None = Field(
        None, description="Issuer URL of the OpenID provider that people sign in at; empty: none."
    )
    oidc_client_id: str | None = Field(None, description="Client ID of this system at the provider.")
    oidc_client_secret: str | None = Field(
        None, repr=False, description="Client secret of this system at the provider; without it, PKCE alone."
    )
    oidc_scopes: str = Field("openid profile email", description="Scopes to request from the provider.")
    oidc_username_claim: str = Field(
        "preferred_username",
        description="Claim with the username, which people must not be able to choose there; `a.b` is b inside a.",
    )
    oidc_roles_claim: str | None = Field(
        None, description="Claim with the roles, for instance `groups`; empty: roles are assigned in the console."
    )
    oidc_role_map: Annotated[dict[str, str], NoDecode] = Field(
        {},
        description="`theirs=ours`, comma-separated; roles that are not listed are ignored. Empty: used unchanged.",
    )
    oidc_create_users: bool = Field(False, description="1 creates an account for unknown people who sign in there.")
    oidc_link_users: Literal["without-password", "everybody"] = Field(
        "without-password",
        description="Which existing accounts a first sign-in is linked to by username; later ones use the provider's permanent ID.",
    )
    oidc_addresses_are_verified: bool = Field(
        False,
        description="1 trusts the e-mail address that is the username, though the provider sends no `email_verified` (Entra ID does not).",
    )
    oidc_session_hours: float = Field(
        24,
        gt=0,
        le=24 * 365,
        description="A session that began at the provider ends after this long; signing in again asks the provider.",
    )
    oidc_label: str = Field(
        "Sign in with your organisation", min_length=1, max_length=60, description="Label of the sign-in button."
    )
    proxy_sign_in_header: str | None = Field(
        None,
        pattern=_HEADER_PATTERN,
        description="Header in which a reverse proxy sends the username; empty: none.",
    )
    proxy_sign_in_from: Annotated[list[str], NoDecode] = Field(
        [], description="Addresses or networks of the proxies that are trusted with it, comma-separated."
    )
    proxy_roles_header: str | None = Field(
        None,
        pattern=_HEADER_PATTERN,
        description="Header with the roles, comma-separated; empty: roles are assigned in the console.",
    )
    proxy_create_users: bool = Field(False, description="1 creates an account for unknown usernames from a proxy.")
    proxy_sign_out_url: str | None = Field(
        None,
        pattern=r"^(https?:/)?/[^/\\\s]\S*$",
        description="Where to sign out at the proxy: an address, or a path.",
    )

    @model_validator(mode="before")
    @classmethod
    def _split_sign_in(cls, values: dict) -> dict:
        if isinstance(values.get("proxy_sign_in_from"), str):
            values["proxy_sign_in_from"] = split_list(values["proxy_sign_in_from"])
        if isinstance(values.get("oidc_role_map"), str):
            pairs = (part.partition("=") for part in split_list(values["oidc_role_map"]))
            values["oidc_role_map"] = {theirs.strip(): ours.strip() for theirs, _, ours in pairs}
        return values

    def check_sign_in(self, *, is_production: bool, proxy_hops: int) -> list[str]:
        """One sentence per combination that cannot work or lets anyone in. `proxy_hops` is TRUSTED_PROXY_HOPS."""
        return [*self._check_oidc(is_production), *self._check_proxy(proxy_hops)]

    def _check_oidc(self, is_production: bool) -> list[str]:
        if self.oidc_issuer is None:
            if self.password_sign_in == "administrators" and self.proxy_sign_in_header is None:
                return [
                    "PASSWORD_SIGN_IN: only administrators could sign in; set OIDC_ISSUER or PROXY_SIGN_IN_HEADER too."
                ]
            return []
        hints, url = [], urlsplit(self.oidc_issuer)
        is_loopback = url.hostname in ("localhost", "127.0.0.1") and not is_production
        if not url.hostname or url.scheme not in (("https", "http") if is_loopback else ("https",)):
            hints.append(
                "OIDC_ISSUER: must begin with https://, so that nobody on the way can answer for the provider."
            )
        if not self.oidc_client_id:
            hints.append("OIDC_CLIENT_ID: register this system at the provider to get one.")
        if "openid" not in self.oidc_scopes.split():
            hints.append("OIDC_SCOPES: `openid` must be among them.")
        if not all(theirs and ours for theirs, ours in self.oidc_role_map.items()):
            hints.append("OIDC_ROLE_MAP: write theirs=ours, theirs=ours.")
        if find_spec("authlib") is None:
            hints.append(f"OIDC_ISSUER: {MISSING_PACKAGES_HINT.format('oidc')}")
        return hints

    def _check_proxy(self, proxy_hops: int) -> list[str]:
        hints = []
        if self.proxy_sign_in_header and not proxy_hops:
            hints.append(
                "PROXY_SIGN_IN_HEADER: needs TRUSTED_PROXY_HOPS of at least 1; without a proxy anybody could send it."
            )
        if self.proxy_sign_in_header and not self.proxy_sign_in_from:
            hints.append("PROXY_SIGN_IN_FROM: name the addresses of the proxies that may send PROXY_SIGN_IN_HEADER.")
        return hints + check_networks("PROXY_SIGN_IN_FROM", self.proxy_sign_in_from)
