"""Who asks, and whether the route is for them: decided once, before every request, denied by default.

Identity comes from the session cookie or a Bearer token, and from nowhere else; what a trusted proxy says can only end a
session here, and begin one at the sign-in page. Every view carries its rule (`@allow`); a view without one is refused to
everybody, and a test walks the URL map so that none is forgotten. The token of an embedded inbox (`embed_tokens`) opens only
views that say so besides, and only to pages of its own origin.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Literal

import flask
from flask import Flask, current_app, g, request
from flask_wtf.csrf import CSRFError, CSRFProtect

from broadcast.actions import users as actions
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
    """The page that a form stood in is of an earlier session, or the browser keeps no cookies. Nothing was done."""

    def __init__(self) -> None:
        super().__init__("This page has expired, or cookies are off. Reload it and try again.")


@dataclass(frozen=True, slots=True)
class Identity:
    """The person asking. `session_name` names the session or token for the hub; `session_id` is None for tokens.
    `authenticated_at`: when they signed in, or when their token was made.

    `token_id` is the token's, `expires_at` when all this ends at the latest. `origin` is the site in whose pages this person's
    inbox is embedded.
    """

    actor: Actor
    username: str
    session_name: str
    session_id: int | None
    authenticated_at: datetime
    has_password: bool
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
        """For templates: what is not allowed is not offered."""
        return self.actor.may(Permission(permission))


def allow(rule: AccessRule, *, may_be_embedded: bool = False) -> Callable:
    """Say for whom a view is: anyone, a signed-in person, a person at a browser ("account": no token), who has a permission,
    an administrator, an operator (admin, a token of the scope metrics, an address of METRICS_FROM), or a program that hands in
    events or embeds inboxes (a token of that scope; a session never has it). "provider": for whoever proves in the request's
    body who they are; no session counts, so no other site can use one. `may_be_embedded`: also for an inbox in another
    site's page.
    """

    def set_rule(view: Callable) -> Callable:
        view.rule, view.embedded = rule, may_be_embedded
        return view

    return set_rule


def is_embeddable(endpoint: str | None) -> bool:
    """Whether the view may be asked by an inbox in another site's page."""
    return getattr(current_app.view_functions.get(endpoint), "embedded", False)


def current_identity() -> Identity:
    """The person asking. Raises NotSignedIn."""
    if g.identity is None:
        raise NotSignedIn()
    return g.identity


def init_app(app: Flask, settings: Settings) -> None:
    csrf.init_app(app)
    PROXY_SIGN_IN.attach(app, ProxyAuthenticator(settings) if settings.proxy_sign_in_header else None)
    app.before_request(_check_access)


def init_refusals(app: Flask) -> None:
    """Refuse what is not allowed. Apart, because the limits count in between: a refused request counts too."""
    app.before_request(_raise_refusal)


def _check_access() -> None:
    """Find out who asks and whether they may; `g.refusal` says why not."""
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
    g.hub_seq = (
        _get_hub_seq()
    )  # before the roles are read: tells the hub whether they are still true when a stream opens
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
    """Read the asker's session and roles anew. Raises NotSignedIn or Forbidden when they no longer allow this."""
    db.session.rollback()
    _load_identity()
    _check_rule(current_app.view_functions[request.endpoint].rule)


def _get_hub_seq() -> int:
    head = HUB.current.head
    return head.seq if head else 0


def _authenticate_session(token: str, now: datetime) -> Identity | None:
    credential = credentials.find_by_session_token(actions.hash_token(token))
    if credential is None or not _touch_if_active(credential, now):
        return None
    session_name, expires_at = (
        actions.format_session_key(credential.id),
        credential.created_at + _get_max_session_age(credential),
    )
    actor = replace(_build_actor(credential, may_use_console=True), signed_in_at=credential.created_at)
    return Identity(
        actor, credential.username, session_name, credential.id, *_get_login_details(credential), expires_at=expires_at
    )


def _get_max_session_age(credential: Credential) -> timedelta:
    """How long a session may last: one that a provider vouched for, until it is asked anew."""
    settings = SETTINGS.current
    hours = settings.session_max_hours
    return timedelta(hours=min(hours, settings.oidc_session_hours) if credential.issuer else hours)


def _touch_if_active(credential: Credential, now: datetime) -> bool:
    """Whether a session has not ended; it is then noted as used."""
    settings = SETTINGS.current
    is_idle = now - credential.used_at > timedelta(hours=settings.session_idle_hours)
    is_old = now - credential.created_at > _get_max_session_age(credential)
    if credential.ended_at or credential.disabled_at or is_idle or is_old:
        return False
    LAST_USED_BUFFER.current.note_session(credential.id, credential.used_at, now=now)
    return True


def _authenticate_embed_token(token: str, now: datetime) -> Identity:
    """Who may read the answer, `g.embedded_in`, is settled before all else: a page must learn that its token is over."""
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
    session_name = f"{actions.format_session_key(credential.id)} {actions.format_token_key(credential.token_id)}"
    actor = _build_actor(credential, may_use_console=False)
    return Identity(
        actor,
        credential.username,
        session_name,
        None,
        *_get_login_details(credential),
        expires_at=claims[1],
        origin=credential.origin,
    )


def _authenticate_token(token: str, now: datetime) -> Identity:
    credential = credentials.find_by_api_token(actions.hash_token(token))
    if credential is None:
        raise NotSignedIn("This token is not valid. Ask an administrator for a new one.")
    if credential.ended_at or credential.disabled_at or (credential.expires_at and credential.expires_at <= now):
        raise NotSignedIn("This token has expired or was revoked. Ask an administrator for a new one.")
    LAST_USED_BUFFER.current.note_token(credential.id, credential.used_at, now=now)
    g.scopes = set(credential.scopes.split())
    actor, token_name = (
        _build_actor(credential, may_use_console="admin" in g.scopes),
        actions.format_token_key(credential.id),
    )
    return Identity(
        actor,
        credential.username,
        token_name,
        None,
        *_get_login_details(credential),
        token_id=credential.id,
        expires_at=credential.expires_at,
    )


def _get_login_details(credential: Credential) -> tuple[datetime, bool]:
    return credential.created_at, credential.has_password


def _verify_proxy_user(identity: Identity | None) -> Identity | None:
    """End a session when a trusted proxy names somebody else; one that it began is worth nothing when it names nobody."""
    proxy: ProxyAuthenticator | None = PROXY_SIGN_IN.current
    if proxy is None or identity is None:
        return identity
    proxy_username = proxy.read_username(request)
    if proxy_username == identity.username or (proxy_username is None and not flask.session.get("by_proxy")):
        return identity
    if proxy_username is not None:
        actions.sign_out(identity.session_id, by=identity.actor, now=clock.now())
    return None


def _build_actor(credential: Credential, *, may_use_console: bool) -> Actor:
    """Who acts, with what the roles allow; nothing in the console for a token whose scope is not the console."""
    may_announce = credential.scopes is not None and "events" in credential.scopes.split()
    if not may_use_console:
        return Actor(credential.user_id, credential.name, credential.roles, may_ingest_events=may_announce)
    allowed = permissions.get_role_permissions(credential.roles)
    return Actor(
        credential.user_id, credential.name, credential.roles, "admin" in credential.roles, may_announce, allowed
    )


def _authorize() -> None:
    if request.endpoint is None or request.endpoint == "static":
        return  # 404 and 405 are answered by Flask; static files are for anyone
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
    """Somebody who connects from where METRICS_FROM says, and does not ask for others. "From this machine" proves nothing by
    itself: a proxy on it connects from there for the whole world.
    """
    networks = SETTINGS.current.metrics_networks
    return bool(networks) and is_peer_in(request, networks) and not is_forwarded(request)


def _check_origin() -> None:
    """Refuse writes that another site caused. A Bearer token is never sent by a browser on its own, so it needs no check."""
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
