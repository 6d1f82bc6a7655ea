"""Signing in and out: with a password, at the organisation's OpenID provider, or at a reverse proxy."""

import flask
from flask import Blueprint, Flask, Response, current_app, g, jsonify, redirect, request, url_for
from flask_wtf.csrf import generate_csrf

from broadcast.actions import external_login, provider_sessions
from broadcast.actions import users as actions
from broadcast.actions.demo import DEMO_PEOPLE
from broadcast.base.errors import BroadcastError, Invalid, NotFound, NotSignedIn, ProviderAway, SignInRefused
from broadcast.config.settings import SETTINGS, Settings
from broadcast.domain import clock
from broadcast.domain.external_identity import Trust, Vouched
from broadcast.store.models import setup
from broadcast.web.auth.oidc import OIDC_PROVIDER, Provider
from broadcast.web.auth.proxy import PROXY_SIGN_IN
from broadcast.web.core import limits, resumable_forms
from broadcast.web.core.error_handlers import SIGN_IN_PAGE
from broadcast.web.core.identity import allow, me
from broadcast.web.core.rendering import page
from broadcast.web.core.resumable_forms import Kept

blueprint = Blueprint("auth", __name__)
_MOST_TOKEN = 16 * 1024  # characters of a logout token


def init_app(app: Flask) -> None:
    SIGN_IN_PAGE.attach(app, _sign_in_to_go_on)


@blueprint.get("/")
@allow("person")
def home():
    return redirect(url_for("inbox.index"), 303)


@blueprint.get("/login")
@allow("anyone")
def login():
    """The form; whom a trusted proxy names is signed in at once."""
    target = request.args.get("next", "")
    if g.identity is not None:
        return redirect(url_for("inbox.index"), 303)
    proxy = PROXY_SIGN_IN.current
    somebody = proxy and proxy.somebody(request)
    if somebody is None:
        return _form(next=target)
    try:
        return _sign_in_vouched(somebody, Trust(creates=_settings().proxy_create_people), target, by_proxy=True)
    except SignInRefused as refused:
        return _refused(refused, next=target)


@blueprint.post("/login")
@allow("anyone")
def sign_in():
    username, password = request.form.get("username", ""), request.form.get("password", "")
    target = request.form.get("next", "")
    try:
        token, user_id = actions.sign_in(
            username,
            password,
            address=limits.address(),
            agent=request.user_agent.string,
            now=clock.now(),
            only_admins=_settings().password_sign_in == "administrators",
            replaces=present_token(),
        )
    except SignInRefused as refused:
        return _refused(refused, username=username.strip(), next=target, with_password=True)
    enter(token)
    kept = resumable_forms.read(request.form.get("kept"))
    if kept and kept.user_id == user_id:
        resumable_forms.name_author(user_id)
        return page("auth/resume.html", kept=kept)
    return _to(target)


def present_token() -> str | None:
    """The token of the session that this browser has, which a new one replaces."""
    return flask.session.get("token")


def _sign_in_to_go_on(kept: Kept) -> Response:
    """The sign-in page for a form that was posted without a session: signing in comes back to it, as it was typed."""
    signed = resumable_forms.sign(kept)
    error = "Your session has ended. Sign in again: what you wrote is not lost."
    body = _form(error=error, kept=signed, posted=kept)
    return current_app.make_response((body, NotSignedIn.status))


def enter(token: str, *, by_proxy: bool = False) -> None:
    """Let this browser act by the session of `token` from now on."""
    flask.session.clear()  # a new session id and a new CSRF token for a new person
    flask.session["token"] = token
    if by_proxy:
        flask.session["by_proxy"] = True


@blueprint.get("/login/organisation")
@allow("anyone")
def ask_organisation():
    """Off to the provider. A link and no form: the page's policy lets forms lead nowhere else."""
    provider = _provider()
    flask.session["next"] = request.args.get("next", "")[:500]
    try:
        return provider.begin(url_for("auth.organisation_answered", _external=True))
    except ProviderAway as away:
        return _refused(away, next=request.args.get("next", ""))


@blueprint.get("/login/organisation/callback")
@allow("anyone")
def organisation_answered():
    """Back from the provider. Nothing is written unless this browser was sent there, as its cookie proves."""
    provider, settings, target = _provider(), _settings(), flask.session.get("next", "")
    trust = Trust(creates=settings.oidc_create_people, takes_over=settings.oidc_link_people == "everybody")
    try:
        return _sign_in_vouched(provider.finish(), trust, target)
    except (SignInRefused, ProviderAway) as problem:
        return _refused(problem, next=target)


@blueprint.post("/login/organisation/logout")
@allow("provider")
def organisation_ended():
    """The provider itself says that a session there is over: no browser asks, and the signature is all that counts."""
    try:
        logout = _provider().read_logout(request.form.get("logout_token", "")[:_MOST_TOKEN])
        provider_sessions.end(logout, now=clock.now())
    except Invalid as invalid:
        answer = jsonify(error="invalid_request", error_description=str(invalid))
        answer.status_code = 400
    else:
        answer = Response(status=200)
    answer.headers["Cache-Control"] = "no-store"
    return answer


@blueprint.get("/session")
@allow("anyone")
def session():
    """Who is signed in in this browser now, and the token for this session's forms: for a page that was open for long."""
    return jsonify(user=g.identity.id if g.identity else None, csrf=generate_csrf())


@blueprint.post("/logout")
@allow("person")
def sign_out():
    identity = me()
    if identity.session_id is not None:
        actions.sign_out(identity.session_id, by=identity.actor, now=clock.now())
    flask.session.clear()
    response = redirect(url_for("auth.signed_out" if _has_elsewhere() else "auth.login"), 303)
    response.headers["Clear-Site-Data"] = '"storage"'  # cursors of this person kept by the browser
    return response


@blueprint.get("/signed-out")
@allow("anyone")
def signed_out():
    """Where signing out leads when one is still signed in elsewhere, which would sign one in again at the next click."""
    if g.identity is not None or not _has_elsewhere():
        return redirect(url_for("auth.login"), 303)
    provider: Provider | None = OIDC_PROVIDER.current
    elsewhere = provider and provider.sign_out_url(url_for("auth.login", _external=True))
    return page("auth/signed_out.html", elsewhere=elsewhere or _settings().proxy_sign_out_url)


def _sign_in_vouched(somebody: Vouched, trust: Trust, target: str, *, by_proxy: bool = False) -> Response:
    token = external_login.sign_in(
        somebody,
        trust=trust,
        address=limits.address(),
        agent=request.user_agent.string,
        now=clock.now(),
        replaces=present_token(),
    )
    enter(token, by_proxy=by_proxy)
    return _to(target)


def _to(target: str) -> Response:
    return redirect(target if _is_local_path(target) else url_for("inbox.index"), 303)


def _refused(problem: BroadcastError, *, next: str, username: str = "", with_password: bool = False) -> tuple[str, int]:
    return _form(username=username, error=str(problem), next=next, with_password=with_password), problem.status


def _form(
    *,
    username: str = "",
    error: str | None = None,
    next: str = "",
    with_password: bool = False,
    kept: str | None = None,
    posted: Kept | None = None,
) -> str:
    """The sign-in page. `kept` goes through it to the page behind; `posted` is posted again after a sign-in in another tab."""
    settings = _settings()
    is_asked = with_password or request.args.get("with") == "password"
    return page(
        "auth/login.html",
        username=username,
        error=error,
        next=next,
        kept=request.form.get("kept", "") if kept is None else kept,
        posted=posted,
        demo_people=DEMO_PEOPLE if settings.demo else [],
        organisation=settings.oidc_label if settings.oidc_issuer else None,
        with_password=is_asked or settings.password_sign_in == "everybody",
        is_new=not setup.has_administrator(),
    )


def _provider() -> Provider:
    """Raises NotFound where no provider is configured."""
    provider = OIDC_PROVIDER.current
    if provider is None:
        raise NotFound()
    return provider


def _has_elsewhere() -> bool:
    return bool(_settings().oidc_issuer or _settings().proxy_sign_in_header)


def _settings() -> Settings:
    return SETTINGS.current


def _is_local_path(target: str) -> bool:
    """True for a path on this site; `//host` and `/\\host` lead elsewhere in a browser."""
    return target.startswith("/") and not target.startswith(("//", "/\\")) and target.isprintable()
