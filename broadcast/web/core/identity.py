"""Authentication and authorization: decided once, before every request, denied by default.

Identity comes only from the session cookie or a Bearer token. A trusted proxy's header can only end a session here, or
create one at the sign-in page. Every view declares its rule (`@allow`); a view without one is refused to everybody, and
a test walks the URL map for missing rules. The token of an embedded inbox (`embed.tokens`) is valid only for views
marked `may_be_embedded`, and only for pages of its own origin.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Literal

import flask
from flask import Flask, current_app, g, request
from flask_wtf.csrf import CSRFError, CSRFProtect

from broadcast.actions import sessions, tokens
from broadcast.base.errors import BroadcastError, Forbidden, NotSignedIn
from broadcast.config.settings import SETTINGS, Settings
from broadcast.domain import clock, permissions
from broadcast.domain.actor import Actor
from broadcast.domain.permissions import Permission
from broadcast.store import credentials
from broadcast.store.credentials import Credential
from broadcast.store.database import db
from broadcast.store.fast.last_used_buffer import LAST_USED_BUFFER
from broadcast.streams.hub import HUB
from broadcast.web.auth.proxy import PROXY_SIGN_IN, ProxyAuthenticator
from broadcast.web.core import resumable_forms
from broadcast.web.core.peer import is_forwarded, is_peer_in
from broadcast.web.embed import tokens as embed_tokens

AccessRule = Literal["anyone", "person", "account", "operator", "events", "embed", "provider"] | Permission
csrf = CSRFProtect()
_MISSING_SCOPE_MESSAGES = {
    "events": "Sending events needs a token with the scope events. Ask an administrator for one.",
    "embed": "This needs a token with the scope embed. Ask an administrator for one.",
}


class PageExpired(Forbidden):
    """The form's page belongs to an earlier session, or the browser rejects cookies. Nothing was done."""

    def __init__(self) -> None:
        super().__init__("This page has expired, or cookies are off. Reload it and try again.")


@dataclass(frozen=True, slots=True)
class Identity:
    """The authenticated user. `session_name` names the session or token for the hub; `session_id` is None for tokens.
    `authenticated_at` is the time of sign-in, or of the token's creation.

    `token_id` is the token's id; `expires_at` is the latest end of this identity. `origin` is the site whose pages
    embed the inbox.
    """

    actor: Actor
    username: str
    session_name: str
    authenticated_at: datetime
    has_password: bool
    session_id: int | None = None
    token_id: int | None = None
    expires_at: datetime | None = None
    origin: str | None = None

    @property
    def id(self) -> int:
        return self.actor.user_id

    @property
    def name(self) -> str:
        return self.actor.name

    @property
    def roles(self) -> list[str]:
        return sorted(self.actor.roles)

    @property
    def is_admin(self) -> bool:
        return self.actor.may_administer

    def may(self, permission: str) -> bool:
        """For templates: actions without permission are not offered."""
        return self.actor.may(Permission(permission))


def allow(
    rule: AccessRule, *, may_be_embedded: bool = False, is_resumable: bool = False, is_large: bool = False
) -> Callable:
    """Set the access rule of a view: anyone, a signed-in user, a user at a browser ("account": no token), holders of a
    permission, an administrator, an operator (admin, a token with scope metrics, an address of METRICS_FROM), or a
    program that sends events or embeds inboxes (a token with that scope; never a session). "provider": the caller
    authenticates in the request's body; sessions are ignored, so that another site cannot use one. `may_be_embedded`:
    also for an embedded inbox. `is_resumable`: it only renders its form when posted with `resume`, so that the form's
    text can be returned (`resumable_forms`). `is_large`: the body may have MAX_LARGE_BODY_BYTES, for a table of users;
    not for a public view.
    """

    def set_rule(view: Callable) -> Callable:
        view.rule, view.embedded = rule, may_be_embedded
        view.is_resumable, view.is_large = is_resumable, is_large
        return view

    return set_rule


def is_embeddable(endpoint: str | None) -> bool:
    """Whether an embedded inbox may call the view."""
    return getattr(current_app.view_functions.get(endpoint), "embedded", False)


def current_identity() -> Identity:
    """The authenticated user. Raises NotSignedIn."""
    if g.identity is None:
        raise NotSignedIn()
    return g.identity


def init_app(app: Flask, settings: Settings) -> None:
    csrf.init_app(app)
    PROXY_SIGN_IN.attach(app, ProxyAuthenticator(settings) if settings.proxy_sign_in_header else None)
    app.before_request(_check_access)


def init_refusals(app: Flask) -> None:
    """Refuse what is not allowed. A separate step, so that limits between the two count refused requests too."""
    app.before_request(_raise_refusal)


def _check_access() -> None:
    """Authenticate and authorize the request; `g.refusal` says why it is not allowed."""
    g.refusal = None
    try:
        _load_identity()
        _authorize()
    except BroadcastError as refusal:
        g.refusal = refusal


def _raise_refusal() -> None:
    if g.refusal is not None:
        raise g.refusal


def _load_identity() -> None:
    g.identity = None
    # before the roles are read, so that the hub can tell whether they are stale when a stream opens
    g.hub_seq = _get_hub_seq()
    if request.endpoint is None or request.endpoint == "static":
        return
    authorization = request.headers.get("Authorization", "")
    scheme, _, token = authorization.partition(" ")
    if scheme.lower() == "bearer" and token.strip().startswith(embed_tokens.PREFIX):
        g.identity = _authenticate_embed_token(token.strip(), clock.now())
    elif scheme.lower() == "bearer":
        g.identity = _authenticate_token(token.strip(), clock.now())
    elif token := flask.session.get("token"):
        g.identity = _verify_proxy_user(_authenticate_session(token, clock.now()))
        if g.identity is not None:
            resumable_forms.bind_csrf_token(g.identity.id)


def recheck_access() -> None:
    """Load the session and roles again. Raises NotSignedIn or Forbidden when they no longer allow this request."""
    db.session.rollback()
    _load_identity()
    _check_rule(current_app.view_functions[request.endpoint].rule)


def _get_hub_seq() -> int:
    head = HUB.current.head
    return head.seq if head else 0


def _authenticate_session(token: str, now: datetime) -> Identity | None:
    credential = credentials.find_by_session_token(tokens.hash_token(token))
    if credential is None or not _touch_if_active(credential, now):
        return None
    actor = replace(_build_actor(credential, may_use_console=True), signed_in_at=credential.created_at)
    session_name = sessions.format_session_key(credential.id)
    expires_at = credential.created_at + _get_max_session_age(credential)
    return _build_identity(credential, actor, session_name, expires_at, session_id=credential.id)


def _get_max_session_age(credential: Credential) -> timedelta:
    """The maximum age of a session; one from a provider is shorter, until the provider is asked again."""
    settings = SETTINGS.current
    hours = settings.session_max_hours
    return timedelta(hours=min(hours, settings.oidc_session_hours) if credential.issuer else hours)


def _touch_if_active(credential: Credential, now: datetime) -> bool:
    """Whether a session is still valid; if so, its use is recorded."""
    settings = SETTINGS.current
    is_idle = now - credential.used_at > timedelta(hours=settings.session_idle_hours)
    is_old = now - credential.created_at > _get_max_session_age(credential)
    if credential.ended_at or credential.disabled_at or is_idle or is_old:
        return False
    LAST_USED_BUFFER.current.note_session(credential.id, credential.used_at, now=now)
    return True


def _authenticate_embed_token(token: str, now: datetime) -> Identity:
    """Sets `g.embedded_in` before checking expiry, so that the page may read that its token has expired."""
    claims = embed_tokens.read(token)
    credential = claims and credentials.find_by_embedded_session(claims[0])
    if credential is None:
        raise NotSignedIn("This token is not valid. Ask your server for a new one.")
    settings = SETTINGS.current
    if credential.origin not in settings.embed_origins or request.headers.get("Origin") != credential.origin:
        raise Forbidden("This token is for another site.")
    g.embedded_in, g.scopes = credential.origin, set()
    if claims[1] <= now or not _touch_if_active(credential, now):
        raise NotSignedIn("This token has expired. Ask your server for a new one.")
    session_name = f"{sessions.format_session_key(credential.id)} {tokens.format_token_key(credential.token_id)}"
    actor = _build_actor(credential, may_use_console=False)
    return _build_identity(credential, actor, session_name, claims[1], origin=credential.origin)


def _authenticate_token(token: str, now: datetime) -> Identity:
    credential = credentials.find_by_api_token(tokens.hash_token(token))
    if credential is None:
        raise NotSignedIn("This token is not valid. Ask an administrator for a new one.")
    if credential.ended_at or credential.disabled_at or (credential.expires_at and credential.expires_at <= now):
        raise NotSignedIn("This token has expired or was revoked. Ask an administrator for a new one.")
    LAST_USED_BUFFER.current.note_token(credential.id, credential.used_at, now=now)
    g.scopes = set(credential.scopes.split())
    actor = _build_actor(credential, may_use_console="admin" in g.scopes)
    token_name = tokens.format_token_key(credential.id)
    return _build_identity(credential, actor, token_name, credential.expires_at, token_id=credential.id)


def _build_identity(
    credential: Credential, actor: Actor, session_name: str, expires_at: datetime | None, **ids: Any
) -> Identity:
    return Identity(
        actor=actor,
        username=credential.username,
        session_name=session_name,
        authenticated_at=credential.created_at,
        has_password=credential.has_password,
        expires_at=expires_at,
        **ids,
    )


def _verify_proxy_user(identity: Identity | None) -> Identity | None:
    """End a session if a trusted proxy names another user. One that the proxy created ends if it names nobody."""
    proxy: ProxyAuthenticator | None = PROXY_SIGN_IN.current
    if proxy is None or identity is None:
        return identity
    proxy_username = proxy.read_username(request)
    if proxy_username == identity.username or (proxy_username is None and not flask.session.get("by_proxy")):
        return identity
    if proxy_username is not None:
        sessions.sign_out(identity.session_id, by=identity.actor, now=clock.now())
    return None


def _build_actor(credential: Credential, *, may_use_console: bool) -> Actor:
    """The actor with the permissions of its roles. No console permissions for a token without the console scope."""
    may_announce = credential.scopes is not None and "events" in credential.scopes.split()
    if not may_use_console:
        return Actor(credential.user_id, credential.name, credential.roles, may_ingest_events=may_announce)
    allowed = permissions.get_role_permissions(credential.roles)
    return Actor(
        credential.user_id, credential.name, credential.roles, "admin" in credential.roles, may_announce, allowed
    )


def _authorize() -> None:
    if request.endpoint is None or request.endpoint == "static":
        return  # Flask answers 404 and 405; static files are public
    rule = getattr(current_app.view_functions[request.endpoint], "rule", None)
    _check_rule(rule)
    if request.method not in ("GET", "HEAD", "OPTIONS") and rule != "provider":
        _check_origin()


def _check_rule(rule: AccessRule | None) -> None:
    if g.identity and g.identity.origin:
        if rule == "person" and is_embeddable(request.endpoint):
            return
        raise Forbidden("An embedded inbox is not allowed to do this.")
    if rule in ("anyone", "provider") or (rule == "operator" and _is_trusted_scraper()):
        return
    identity = current_identity()
    if rule == "person" and (identity.session_id or g.scopes & {"inbox", "admin"}):
        return
    if rule == "account" and identity.session_id:
        return
    if rule == "operator" and identity.is_admin:
        return
    if rule == "operator" and identity.session_id is None and "metrics" in g.scopes:
        return
    if isinstance(rule, Permission) and identity.actor.may(rule):
        return
    if rule == "events" and identity.actor.may_ingest_events:
        return
    if rule == "embed" and identity.token_id and "embed" in g.scopes:
        return
    raise Forbidden(_MISSING_SCOPE_MESSAGES[rule]) if rule in _MISSING_SCOPE_MESSAGES else Forbidden()


def _is_trusted_scraper() -> bool:
    """A direct client in METRICS_FROM. The address alone proves nothing: a local proxy has it for everybody."""
    networks = SETTINGS.current.metrics_networks
    return bool(networks) and is_peer_in(request, networks) and not is_forwarded(request)


def _check_origin() -> None:
    """Refuse writes caused by another site. Browsers do not send Bearer tokens on their own, so these need no check."""
    if g.identity and g.identity.session_id is None:
        return
    site = request.headers.get("Sec-Fetch-Site")
    origin = request.headers.get("Origin")
    if site not in (None, "same-origin", "none") or (
        site is None and origin and origin != request.host_url.rstrip("/")
    ):
        raise Forbidden("This request came from another site and was refused.")
    try:
        csrf.protect()
    except CSRFError:
        raise PageExpired from None
