"""Authentication and authorization: decided once, before every request, denied by default.

Identity comes only from the session cookie or a Bearer token. A trusted proxy's header can only end a session here, or
create one at the sign-in page. Every view declares its rule (`@allow`); a view without one is refused to everybody, and
a test walks the URL map for missing rules. The token of an embedded inbox (`embed.tokens`) is valid only for views
marked `may_be_embedded`, and only for pages of its own origin.
"""

from collections.abc import Callable
from typing import Literal

import flask
from flask import Flask, current_app, g, request
from flask_wtf.csrf import CSRFError, CSRFProtect

from broadcast.actions import sessions
from broadcast.base.errors import BroadcastError, Forbidden, NotSignedIn
from broadcast.config.settings import SETTINGS, Settings
from broadcast.domain import clock
from broadcast.domain.permissions import Permission
from broadcast.store import credentials
from broadcast.store.database import db
from broadcast.store.fast.credential_cache import CREDENTIAL_CACHE
from broadcast.streams.hub import HUB
from broadcast.web.auth.proxy import PROXY_SIGN_IN, ProxyAuthenticator
from broadcast.web.core import resumable_forms
from broadcast.web.core.authentication import (
    CredentialSource,
    Identity,
    authenticate_bearer,
    authenticate_session,
    read_bearer_token,
)
from broadcast.web.core.error_handlers import is_stream_request
from broadcast.web.core.peer import get_peer_address, is_address_in, is_forwarded

AccessRule = Literal["anyone", "person", "account", "operator", "events", "embed", "provider", "link"] | Permission
csrf = CSRFProtect()
_MISSING_SCOPE_MESSAGES = {
    "events": "Sending events needs a token with the scope events. Ask an administrator for one.",
    "embed": "This needs a token with the scope embed. Ask an administrator for one.",
}
_EMBEDDED_MESSAGE = "An embedded inbox is not allowed to do this."


class PageExpired(Forbidden):
    """The form's page belongs to an earlier session, or the browser rejects cookies. Nothing was done."""

    def __init__(self) -> None:
        super().__init__("This page has expired, or cookies are off. Reload it and try again.")


def allow(
    rule: AccessRule, *, may_be_embedded: bool = False, is_resumable: bool = False, is_large: bool = False
) -> Callable:
    """Set the access rule of a view: anyone, a signed-in user, a user at a browser ("account": no token), holders of a
    permission, an administrator, an operator (admin, a token with scope metrics, an address of METRICS_FROM), or a
    program that sends events or embeds inboxes (a token with that scope; never a session). "provider": the caller
    authenticates in the request's body, "link": by the signed token in the address; sessions are ignored, so that
    another site cannot use one. `may_be_embedded`:
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
        _load_identity(CREDENTIAL_CACHE.current if is_stream_request() else credentials)
        _authorize()
    except BroadcastError as refusal:
        g.refusal = refusal


def _raise_refusal() -> None:
    if g.refusal is not None:
        raise g.refusal


def _load_identity(source: CredentialSource) -> None:
    g.identity = None
    # before the roles are read, so that the hub can tell whether they are stale when a stream opens
    g.hub_seq = HUB.current.seq
    if request.endpoint is None or request.endpoint == "static":
        return
    token, now = read_bearer_token(request.headers.get("Authorization", "")), clock.now()
    if token is not None:
        g.identity = authenticate_bearer(token, origin=request.headers.get("Origin"), source=source, now=now)
    elif token := flask.session.get("token"):
        g.identity = _verify_proxy_user(authenticate_session(token, source=source, now=now))
        if g.identity is not None:
            resumable_forms.bind_csrf_token(g.identity.id)


def recheck_access() -> None:
    """Read the session and roles from the database. Raises NotSignedIn or Forbidden when they no longer allow this
    request.
    """
    db.session.rollback()
    _load_identity(credentials)
    _authorize()


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


def _authorize() -> None:
    if request.endpoint is None or request.endpoint == "static":
        return  # Flask answers 404 and 405; static files are public
    rule = getattr(current_app.view_functions[request.endpoint], "rule", None)
    if rule in ("anyone", "provider", "link") or (rule == "operator" and _is_trusted_scraper()):
        if g.identity and g.identity.origin:
            raise Forbidden(_EMBEDDED_MESSAGE)
    else:
        check_rule(rule, current_identity(), endpoint=request.endpoint)
    if request.method not in ("GET", "HEAD", "OPTIONS") and rule not in ("provider", "link"):
        _check_origin()


def check_rule(rule: AccessRule | None, identity: Identity, *, endpoint: str) -> None:
    """Raises Forbidden unless this user may call a view with this rule."""
    if identity.origin:
        if rule == "person" and is_embeddable(endpoint):
            return
        raise Forbidden(_EMBEDDED_MESSAGE)
    if rule == "person" and (identity.session_id or identity.scopes & {"inbox", "admin"}):
        return
    if rule == "account" and identity.session_id:
        return
    if rule == "operator" and (identity.is_admin or "metrics" in identity.scopes):
        return
    if isinstance(rule, Permission) and identity.actor.may(rule):
        return
    if rule == "events" and identity.actor.may_ingest_events:
        return
    if rule == "embed" and "embed" in identity.scopes:
        return
    raise Forbidden(_MISSING_SCOPE_MESSAGES[rule]) if rule in _MISSING_SCOPE_MESSAGES else Forbidden()


def _is_trusted_scraper() -> bool:
    """A direct client in METRICS_FROM. The address alone proves nothing: a local proxy has it for everybody."""
    networks = SETTINGS.current.metrics_networks
    return bool(networks) and is_address_in(get_peer_address(request), networks) and not is_forwarded(request)


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
