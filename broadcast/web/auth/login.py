"""Sign-in and sign-out: by password, OpenID provider or reverse proxy."""

from datetime import datetime
from typing import Any

import flask
from flask import Blueprint, Flask, Response, g, jsonify, make_response, redirect, request, url_for
from flask_wtf.csrf import generate_csrf

from broadcast.actions import external_login, sessions
from broadcast.actions.demo import DEMO_USERS
from broadcast.actions.sessions import SignInClient
from broadcast.base.errors import (
    BroadcastError,
    IdentityProviderUnavailable,
    Invalid,
    NotFound,
    NotSignedIn,
    SignInRefused,
)
from broadcast.config.settings import SETTINGS
from broadcast.domain import clock
from broadcast.domain.external_identity import ExternalIdentity, ProviderTrust
from broadcast.store import users
from broadcast.web.auth.oidc import OIDC_PROVIDER, OidcProvider
from broadcast.web.auth.proxy import PROXY_SIGN_IN
from broadcast.web.core import limits, resumable_forms
from broadcast.web.core.error_handlers import SIGN_IN_PAGE
from broadcast.web.core.identity import allow, current_identity
from broadcast.web.core.lookup import or_404
from broadcast.web.core.rendering import redirect_to, render_page
from broadcast.web.core.resumable_forms import SavedForm

blueprint = Blueprint("auth", __name__)
_MAX_LOGOUT_TOKEN_CHARACTERS = 16 * 1024  # of a logout token


def init_app(app: Flask) -> None:
    SIGN_IN_PAGE.attach(app, _render_resume_login)


@blueprint.get("/")
@allow("person")
def home():
    return redirect_to("inbox.index")


@blueprint.get("/login")
@allow("anyone")
def login():
    """The sign-in form. A user whom a trusted proxy names is signed in at once."""
    target = request.args.get("next", "")
    if g.identity is not None:
        return redirect_to("inbox.index")
    proxy = PROXY_SIGN_IN.current
    external_identity = proxy and proxy.read_external_identity(request)
    if external_identity is None:
        return _render_login(next_path=target)
    trust = ProviderTrust(may_create_users=SETTINGS.current.proxy_create_users)
    try:
        return _sign_in_externally(external_identity, trust, target, is_by_proxy=True)
    except SignInRefused as refused:
        return _render_refusal(refused, next_path=target)


@blueprint.post("/login")
@allow("anyone")
def sign_in():
    username, password = request.form.get("username", ""), request.form.get("password", "")
    target = request.form.get("next", "")
    is_admin_only = SETTINGS.current.password_sign_in == "administrators"
    try:
        user_id = sign_in_with_password(username, password, now=clock.now(), is_admin_only=is_admin_only)
    except SignInRefused as refused:
        return _render_refusal(refused, username=username.strip(), next_path=target, should_show_password=True)
    saved_form = resumable_forms.read(request.form.get("kept"))
    if saved_form and saved_form.user_id == user_id:
        resumable_forms.bind_csrf_token(user_id)
        return render_page("auth/resume.html", kept=saved_form)
    return _redirect_to(target)


def sign_in_with_password(username: str, password: str, *, now: datetime, is_admin_only: bool = False) -> int:
    """Begin a session in this browser, which ends its previous one. Returns the user id. Raises SignInRefused."""
    token, user_id = sessions.sign_in(username, password, client=_get_client(), now=now, is_admin_only=is_admin_only)
    _start_session(token)
    return user_id


def _render_resume_login(saved_form: SavedForm) -> Response:
    """The sign-in page for a form that was posted without a session. The form is restored as typed after sign-in."""
    error = "Your session has ended. Sign in again to continue. Your text is kept."
    body = _render_login(error=error, kept=resumable_forms.sign(saved_form), posted=saved_form)
    return make_response(body, NotSignedIn.status)


def _start_session(token: str, *, is_by_proxy: bool = False) -> None:
    """Use the session of `token` in this browser from now on."""
    flask.session.clear()  # new session id and CSRF token for the new user
    flask.session["token"] = token
    if is_by_proxy:
        flask.session["by_proxy"] = True


@blueprint.get("/login/organisation")
@allow("anyone")
def oidc_login():
    """Redirect to the provider. A link and not a form, because the page's CSP limits where forms may post."""
    provider = _get_provider_or_404()
    flask.session["next"] = request.args.get("next", "")[:500]
    try:
        return provider.start_login(url_for("auth.oidc_callback", _external=True))
    except IdentityProviderUnavailable as problem:
        return _render_refusal(problem, next_path=request.args.get("next", ""))


@blueprint.get("/login/organisation/callback")
@allow("anyone")
def oidc_callback():
    """Callback from the provider. Nothing is written unless this browser's cookie proves that it was sent there."""
    provider, settings, target = _get_provider_or_404(), SETTINGS.current, flask.session.get("next", "")
    trust = ProviderTrust(
        may_create_users=settings.oidc_create_users, may_link_accounts=settings.oidc_link_users == "everybody"
    )
    try:
        return _sign_in_externally(provider.complete_login(), trust, target)
    except (SignInRefused, IdentityProviderUnavailable) as problem:
        return _render_refusal(problem, next_path=target)


@blueprint.post("/login/organisation/logout")
@allow("provider")
def oidc_backchannel_logout():
    """The provider reports that a session has ended. No browser is involved; only the token's signature counts."""
    logout_token = request.form.get("logout_token", "")[:_MAX_LOGOUT_TOKEN_CHARACTERS]
    try:
        external_login.end_sessions(_get_provider_or_404().parse_logout_token(logout_token), now=clock.now())
        response = Response(status=200)
    except Invalid as invalid:
        response = make_response(jsonify(error="invalid_request", error_description=str(invalid)), 400)
    response.headers["Cache-Control"] = "no-store"
    return response


@blueprint.get("/session")
@allow("anyone")
def session():
    """Who is signed in in this browser, and the session's CSRF token, for a page that was open for long."""
    return jsonify(user=g.identity.id if g.identity else None, csrf=generate_csrf())


@blueprint.post("/logout")
@allow("person")
def sign_out():
    identity = current_identity()
    if identity.session_id is not None:
        sessions.sign_out(identity.session_id, by=identity.actor, now=clock.now())
    flask.session.clear()
    response = redirect_to("auth.signed_out" if _has_external_login() else "auth.login")
    response.headers["Clear-Site-Data"] = '"storage"'  # deletes this user's cursors from the browser
    return response


@blueprint.get("/signed-out")
@allow("anyone")
def signed_out():
    """The page after sign-out when a provider or proxy would sign the user in again at the next click."""
    if g.identity is not None or not _has_external_login():
        return redirect_to("auth.login")
    provider: OidcProvider | None = OIDC_PROVIDER.current
    provider_url = provider and provider.build_sign_out_url(url_for("auth.login", _external=True))
    return render_page("auth/signed_out.html", elsewhere=provider_url or SETTINGS.current.proxy_sign_out_url)


def _sign_in_externally(
    external_identity: ExternalIdentity, trust: ProviderTrust, target: str, *, is_by_proxy: bool = False
) -> Response:
    token = external_login.sign_in(external_identity, trust=trust, client=_get_client(), now=clock.now())
    _start_session(token, is_by_proxy=is_by_proxy)
    return _redirect_to(target)


def _get_client() -> SignInClient:
    return SignInClient(limits.get_remote_address(), request.user_agent.string, flask.session.get("token"))


def _redirect_to(target: str) -> Response:
    return redirect(target if _is_local_path(target) else url_for("inbox.index"), 303)


def _render_refusal(problem: BroadcastError, **values: Any) -> tuple[str, int]:
    return _render_login(error=str(problem), **values), problem.status


def _render_login(*, next_path: str = "", should_show_password: bool = False, **values: Any) -> str:
    """The sign-in page, with `username` and `error`. The form `kept`, signed, is carried to the page after sign-in;
    `posted` is the same form, to post again after a sign-in in another tab.
    """
    settings = SETTINGS.current
    is_password_requested = should_show_password or request.args.get("with") == "password"
    values = {"username": "", "error": None, "kept": request.form.get("kept", ""), "posted": None} | values
    return render_page(
        "auth/login.html",
        **values,
        next=next_path,
        demo_people=DEMO_USERS if settings.demo else [],
        organisation=settings.oidc_label if settings.oidc_issuer else None,
        with_password=is_password_requested or settings.password_sign_in == "everybody",
        is_new=not users.has_administrator(),
    )


def _get_provider_or_404() -> OidcProvider:
    return or_404(OIDC_PROVIDER.current, NotFound.sentence)


def _has_external_login() -> bool:
    return bool(SETTINGS.current.oidc_issuer or SETTINGS.current.proxy_sign_in_header)


def _is_local_path(target: str) -> bool:
    """True for a path on this site. Browsers treat `//host` and `/\\host` as other sites."""
    return target.startswith("/") and not target.startswith(("//", "/\\")) and target.isprintable()
