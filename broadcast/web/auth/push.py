"""Push messages in a user's browsers: turning them on and off, the service worker, and the manifest of the app."""

from flask import Blueprint, Response, current_app, jsonify, render_template, request
from flask_wtf.csrf import generate_csrf

from broadcast.actions import push_subscriptions as actions
from broadcast.base.errors import TemporarilyUnavailable
from broadcast.channels.push import PUSH
from broadcast.domain import clock
from broadcast.web.core.identity import allow, current_identity
from broadcast.web.core.rendering import redirect_to
from broadcast.web.core.request_parsing import read_json_object, reject_unknown_fields

blueprint = Blueprint("push", __name__)


@blueprint.get("/service-worker.js")
@allow("anyone")
def service_worker():
    """Not below `/static`: a service worker serves the pages below its own address."""
    return current_app.send_static_file("push/service_worker.js")


@blueprint.get("/manifest.webmanifest")
@allow("anyone")
def manifest():
    return Response(render_template("core/manifest.webmanifest"), mimetype="application/manifest+json")


@blueprint.get("/account/push")
@allow("account")
def show():
    """What a browser needs to subscribe. Its service worker, which has no page, gets the CSRF token here."""
    try:
        public_key = PUSH.current.key.public_key
    except (OSError, ValueError) as problem:
        raise TemporarilyUnavailable("The key for push messages cannot be used. Ask an administrator.") from problem
    return jsonify(publicKey=public_key, csrfToken=generate_csrf())


@blueprint.post("/account/push")
@allow("account")
def register():
    identity, agent = current_identity(), request.headers.get("User-Agent", "")
    session_id = identity.session_id
    actions.register(read_json_object(), by=identity.actor, session_id=session_id, agent=agent, now=clock.now())
    return "", 204


@blueprint.post("/account/push/off")
@allow("account")
def turn_off():
    """In the browser that asks."""
    body = read_json_object()
    reject_unknown_fields(body, "endpoint")
    actions.remove_endpoint(body.get("endpoint"), by=current_identity().actor, now=clock.now())
    return "", 204


@blueprint.post("/account/push/<int:subscription_id>/remove")
@allow("account")
def remove(subscription_id: int):
    actions.remove(subscription_id, by=current_identity().actor, now=clock.now())
    return redirect_to("account.index", "Removed. That browser gets no push messages any more.", _anchor="push")
