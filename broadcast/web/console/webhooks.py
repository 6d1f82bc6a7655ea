"""Webhooks: the list of endpoints, and one endpoint with its deliveries, their attempts and what can be done."""

from typing import Any

from flask import Blueprint, request
from flask.typing import ResponseReturnValue

from broadcast.actions import webhooks as actions
from broadcast.base.errors import Invalid
from broadcast.base.numbers import parse_number
from broadcast.channels.protocol import Accepted
from broadcast.channels.webhooks import Sent, send_test
from broadcast.domain import clock
from broadcast.domain.permissions import Permission
from broadcast.domain.webhook_events import WebhookType
from broadcast.store import webhooks
from broadcast.store.models import WebhookEndpoint
from broadcast.web.core.identity import allow, current_identity
from broadcast.web.core.lookup import get_webhook_or_404, or_404
from broadcast.web.core.rendering import redirect_to, render_page
from broadcast.web.core.request_parsing import read_choice
from broadcast.web.core.resumable_forms import raise_if_resumed

blueprint = Blueprint("webhooks", __name__, url_prefix="/webhooks")

PAGE_SIZE = 50
_MAX_ATTEMPTS = 50
_EMPTY_FORM = {"url": "", "eventTypes": [name.value for name in WebhookType if name != WebhookType.ACKNOWLEDGED]}


@blueprint.get("")
@allow(Permission.OPERATE)
def listing():
    return _render_list(_EMPTY_FORM, {})


@blueprint.post("")
@allow(Permission.OPERATE, is_resumable=True)
def create():
    """Renders the endpoint's page instead of a redirect: the secret is shown only once."""
    form = _read_form()
    try:
        raise_if_resumed()
        by = current_identity().actor
        endpoint_id, secret = actions.create_endpoint(form["url"], form["eventTypes"], by=by, now=clock.now())
    except Invalid as invalid:
        return _render_list(form, invalid.fields), invalid.status
    return _render_detail(get_webhook_or_404(endpoint_id), secret=secret)


@blueprint.get("/<int:endpoint_id>")
@allow(Permission.OPERATE)
def detail(endpoint_id: int):
    return _render_detail(get_webhook_or_404(endpoint_id))


@blueprint.post("/<int:endpoint_id>")
@allow(Permission.OPERATE, is_resumable=True)
def save(endpoint_id: int):
    form = _read_form()
    try:
        raise_if_resumed()
        changes = {"url": form["url"], "event_types": form["eventTypes"]}
        actions.update_endpoint(endpoint_id, by=current_identity().actor, now=clock.now(), **changes)
    except Invalid as invalid:
        return _render_detail(get_webhook_or_404(endpoint_id), form=form, errors=invalid.fields), invalid.status
    return redirect_to(".detail", "Saved.", endpoint_id=endpoint_id)


@blueprint.post("/<int:endpoint_id>/state")
@allow(Permission.OPERATE)
def change_state(endpoint_id: int):
    """Pause, resume, or enable an endpoint that has answered 410."""
    chosen, by, now = read_choice("do", ("pause", "resume", "enable"), "pause"), current_identity().actor, clock.now()
    if chosen == "enable":
        actions.enable_endpoint(endpoint_id, by=by, now=now)
        notice = "Enabled. It gets what happens from now on."
    else:
        actions.update_endpoint(endpoint_id, is_paused=chosen == "pause", by=by, now=now)
        notice = "Paused. Everything waits in the queue." if chosen == "pause" else "Resumed."
    return redirect_to(".detail", notice, endpoint_id=endpoint_id)


@blueprint.post("/<int:endpoint_id>/secret")
@allow(Permission.OPERATE)
def rotate_secret(endpoint_id: int):
    """Renders the page instead of a redirect: the secret is shown only once."""
    secret = actions.rotate_secret(endpoint_id, by=current_identity().actor, now=clock.now())
    return _render_detail(get_webhook_or_404(endpoint_id), secret=secret)


@blueprint.post("/<int:endpoint_id>/test")
@allow(Permission.OPERATE)
def test(endpoint_id: int):
    """Send a test event now, and report what the endpoint answered."""
    sent = send_test(get_webhook_or_404(endpoint_id), now=clock.now())
    return redirect_to(".detail", _describe_test(sent), endpoint_id=endpoint_id)


@blueprint.post("/<int:endpoint_id>/delete")
@allow(Permission.OPERATE)
def delete(endpoint_id: int):
    actions.delete_endpoint(endpoint_id, by=current_identity().actor, now=clock.now())
    return redirect_to(".listing", "The webhook has been deleted.")


@blueprint.get("/<int:endpoint_id>/deliveries/<int:delivery_id>")
@allow(Permission.OPERATE)
def delivery(endpoint_id: int, delivery_id: int):
    endpoint = get_webhook_or_404(endpoint_id)
    row = or_404(webhooks.get_delivery(endpoint_id, delivery_id), "There is no such delivery.")
    attempts = webhooks.list_attempts(delivery_id, limit=_MAX_ATTEMPTS)
    return render_page("console/webhooks/delivery.html", endpoint=endpoint, delivery=row, attempts=attempts)


@blueprint.post("/<int:endpoint_id>/deliveries/<int:delivery_id>/replay")
@allow(Permission.OPERATE)
def replay(endpoint_id: int, delivery_id: int):
    actions.replay_delivery(endpoint_id, delivery_id, by=current_identity().actor, now=clock.now())
    return redirect_to(".detail", "It is sent again in a moment.", endpoint_id=endpoint_id)


def _read_form() -> dict[str, Any]:
    return {"url": request.form.get("url", "").strip(), "eventTypes": request.form.getlist("eventTypes")}


def _describe_test(sent: Sent) -> str:
    if isinstance(sent.outcome, Accepted):
        return f"The endpoint answered {sent.result.status} in {sent.result.duration_ms:,} ms."
    return f"The test failed. {sent.outcome.reason}"


def _render_list(form: dict[str, Any], errors: dict[str, str]) -> bytes:
    return render_page(
        "console/webhooks/list.html",
        endpoints=webhooks.list_endpoints(),
        waiting=webhooks.count_waiting_by_endpoint(),
        types=list(WebhookType),
        form=form,
        errors=errors,
    )


def _render_detail(
    endpoint: WebhookEndpoint,
    *,
    form: dict[str, Any] | None = None,
    errors: dict[str, str] | None = None,
    secret: str | None = None,
) -> ResponseReturnValue:
    before = parse_number(request.args.get("before"))
    fetched = webhooks.list_deliveries(endpoint.id, before=before, limit=PAGE_SIZE + 1)
    return render_page(
        "console/webhooks/detail.html",
        endpoint=endpoint,
        deliveries=fetched[:PAGE_SIZE],
        next=fetched[PAGE_SIZE - 1].id if len(fetched) > PAGE_SIZE else None,
        types=list(WebhookType),
        form=form or {"url": endpoint.url, "eventTypes": endpoint.event_types},
        errors=errors or {},
        secret=secret,
    )
