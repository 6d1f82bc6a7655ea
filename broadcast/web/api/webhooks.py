"""The JSON API for webhook endpoints: add, change, rotate the secret, test, delete; deliveries and their replay."""

from collections.abc import Mapping
from typing import Any

from flask import Blueprint, jsonify

from broadcast.actions import webhooks as actions
from broadcast.base.errors import Invalid
from broadcast.channels.protocol import Accepted
from broadcast.channels.webhooks import send_test
from broadcast.domain import clock
from broadcast.domain.permissions import Permission
from broadcast.store import webhooks
from broadcast.store.models import WebhookAttempt, WebhookDelivery, WebhookEndpoint
from broadcast.web.core.identity import allow, current_identity
from broadcast.web.core.lookup import get_webhook_or_404, or_404
from broadcast.web.core.request_parsing import is_encodable, read_json_object, read_paging, reject_unknown_fields

blueprint = Blueprint("api_webhooks", __name__, url_prefix="/api/admin/webhooks")

_MAX_ATTEMPTS = 50


@blueprint.get("")
@allow(Permission.OPERATE)
def listing():
    return jsonify(items=[_to_json(endpoint) for endpoint in webhooks.list_endpoints()], next=None)


@blueprint.post("")
@allow(Permission.OPERATE)
def create():
    """The answer has the secret, which nothing shows again."""
    body = _read_fields("url", "eventTypes")
    url, types = body.get("url", ""), body.get("eventTypes", [])
    endpoint_id, secret = actions.create_endpoint(url, types, by=current_identity().actor, now=clock.now())
    return jsonify(_to_json(get_webhook_or_404(endpoint_id)) | {"secret": secret}), 201


@blueprint.get("/<int:endpoint_id>")
@allow(Permission.OPERATE)
def detail(endpoint_id: int):
    return jsonify(_to_json(get_webhook_or_404(endpoint_id)))


@blueprint.patch("/<int:endpoint_id>")
@allow(Permission.OPERATE)
def update(endpoint_id: int):
    """`paused` pauses or resumes; `enabled: true` enables an endpoint that has answered 410."""
    body, by, now = _read_fields("url", "eventTypes", "paused", "enabled"), current_identity().actor, clock.now()
    changes = {"url": body.get("url"), "event_types": body.get("eventTypes"), "is_paused": body.get("paused")}
    actions.update_endpoint(endpoint_id, by=by, now=now, **changes)
    if body.get("enabled"):
        actions.enable_endpoint(endpoint_id, by=by, now=now)
    return jsonify(_to_json(get_webhook_or_404(endpoint_id)))


@blueprint.delete("/<int:endpoint_id>")
@allow(Permission.OPERATE)
def delete(endpoint_id: int):
    actions.delete_endpoint(endpoint_id, by=current_identity().actor, now=clock.now())
    return "", 204


@blueprint.post("/<int:endpoint_id>/secret")
@allow(Permission.OPERATE)
def rotate_secret(endpoint_id: int):
    return jsonify(secret=actions.rotate_secret(endpoint_id, by=current_identity().actor, now=clock.now()))


@blueprint.post("/<int:endpoint_id>/test")
@allow(Permission.OPERATE)
def test(endpoint_id: int):
    """Send a test event now: `{accepted, status, durationMs, answer}`."""
    sent = send_test(get_webhook_or_404(endpoint_id), now=clock.now())
    result = {"status": sent.result.status, "durationMs": sent.result.duration_ms, "answer": sent.result.answer}
    return jsonify(accepted=isinstance(sent.outcome, Accepted), **result)


@blueprint.get("/<int:endpoint_id>/deliveries")
@allow(Permission.OPERATE)
def list_deliveries(endpoint_id: int):
    """Newest first."""
    before, limit = read_paging()
    get_webhook_or_404(endpoint_id)
    rows = webhooks.list_deliveries(endpoint_id, before=before, limit=limit + 1)
    items = [_delivery_to_json(row) for row in rows[:limit]]
    return jsonify(items=items, next=str(items[-1]["id"]) if len(rows) > limit else None)


@blueprint.get("/<int:endpoint_id>/deliveries/<int:delivery_id>")
@allow(Permission.OPERATE)
def get_delivery(endpoint_id: int, delivery_id: int):
    """One delivery with its body and the newest attempts."""
    row = or_404(webhooks.get_delivery(endpoint_id, delivery_id), "There is no such delivery.")
    attempts = [_attempt_to_json(attempt) for attempt in webhooks.list_attempts(delivery_id, limit=_MAX_ATTEMPTS)]
    return jsonify(_delivery_to_json(row) | {"body": row.body, "attempts": attempts})


@blueprint.post("/<int:endpoint_id>/deliveries/<int:delivery_id>/replay")
@allow(Permission.OPERATE)
def replay(endpoint_id: int, delivery_id: int):
    actions.replay_delivery(endpoint_id, delivery_id, by=current_identity().actor, now=clock.now())
    return "", 204


def _read_fields(*names: str) -> Mapping[str, Any]:
    """The body, in which each field has its type. Raises Invalid."""
    body = read_json_object()
    reject_unknown_fields(body, *names)
    if not isinstance(body.get("url", ""), str) or not is_encodable(body.get("url", "")):
        raise Invalid({"url": "url must be text."})
    types = body.get("eventTypes", [])
    if not isinstance(types, list) or not all(isinstance(name, str) and is_encodable(name) for name in types):
        raise Invalid({"eventTypes": "eventTypes must be a list of event types."})
    for name in ("paused", "enabled"):
        if not isinstance(body.get(name, False), bool):
            raise Invalid({name: f"{name} must be true or false."})
    return body


def _to_json(endpoint: WebhookEndpoint) -> dict[str, Any]:
    return {
        "id": endpoint.id,
        "url": endpoint.url,
        "eventTypes": endpoint.event_types,
        "createdAt": clock.to_rfc3339(endpoint.created_at),
        "pausedAt": clock.to_rfc3339(endpoint.paused_at),
        "goneAt": clock.to_rfc3339(endpoint.gone_at),
        "failingSince": clock.to_rfc3339(endpoint.failing_since),
        "problem": endpoint.problem,
        "previousSecretUntil": clock.to_rfc3339(endpoint.previous_secret_until),
    }


def _delivery_to_json(delivery: WebhookDelivery) -> dict[str, Any]:
    return {
        "id": delivery.id,
        "broadcastId": delivery.broadcast_id,
        "type": delivery.type,
        "webhookId": delivery.message_id,
        "state": delivery.state,
        "attemptCount": delivery.attempts,
        "createdAt": clock.to_rfc3339(delivery.created_at),
        "dueAt": clock.to_rfc3339(delivery.due_at) if delivery.state == "WAITING" else None,
        "endedAt": clock.to_rfc3339(delivery.ended_at),
        "reason": delivery.reason,
    }


def _attempt_to_json(attempt: WebhookAttempt) -> dict[str, Any]:
    return {
        "at": clock.to_rfc3339(attempt.at),
        "status": attempt.status,
        "durationMs": attempt.duration_ms,
        "answer": attempt.answer,
    }
