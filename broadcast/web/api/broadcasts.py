"""The JSON API for broadcasts and streams; `api.inbox` has what belongs to the user who calls.

Errors are problem+json. Lists are `{items, next}`, paged by `?after=&limit=`.
"""

from collections import Counter
from typing import Any

from flask import Blueprint, Response, jsonify, make_response, request, url_for

from broadcast.actions import broadcasts as actions
from broadcast.actions import edits
from broadcast.actions.audiences import resolve_audience
from broadcast.base.errors import Invalid, VersionConflict, VersionRequired
from broadcast.domain import clock
from broadcast.domain.message import parse_draft, parse_target
from broadcast.domain.permissions import Permission
from broadcast.domain.stats import BroadcastStats
from broadcast.observability import metrics
from broadcast.store import audiences, broadcasts, users
from broadcast.store.models import Broadcast
from broadcast.streams.presence import PRESENCE
from broadcast.web.console import viewer_stats
from broadcast.web.core.error_handlers import make_error_response
from broadcast.web.core.identity import allow, current_identity
from broadcast.web.core.lookup import get_broadcast_or_404
from broadcast.web.core.request_parsing import (
    pop_confirmation,
    read_json_object,
    read_paging,
    read_text,
    reject_unknown_fields,
)

blueprint = Blueprint("api", __name__, url_prefix="/api")


@blueprint.get("/sse/stats")
@allow(Permission.SEE)
def stream_stats():
    """Over all workers; counters since the start of the system."""
    streams = PRESENCE.current.list_streams()
    return jsonify(
        usersOnline=len({stream.user_id for stream in streams}),
        streams=len(streams),
        perWorker=Counter(stream.worker for stream in streams),
        oldest=min((stream.since for stream in streams), default=None),
        slowConsumersClosed=metrics.sum_counter("broadcast_streams_closed_total", reason="slow consumer"),
        eventsDelivered=metrics.sum_counter("broadcast_stream_writes_total"),
    )


@blueprint.get("/sse/connected/<int:user_id>")
@allow("person")
def connected(user_id: int):
    """An administrator about anybody, everybody about themselves."""
    if user_id != current_identity().id:
        current_identity().actor.require(Permission.SEE)
    return jsonify(userId=user_id, connected=PRESENCE.current.is_online(user_id))


@blueprint.post("/admin/broadcasts")
@allow(Permission.WRITE)
def create():
    """201 with `Location`; 200 when the Idempotency-Key was used for the same message before."""
    idempotency_key = request.headers.get("Idempotency-Key")
    if idempotency_key is not None and not (
        0 < len(idempotency_key) <= 200 and idempotency_key.isascii() and idempotency_key.isprintable()
    ):
        raise Invalid({"Idempotency-Key": "Idempotency-Key must be 1 to 200 printable ASCII characters."})
    now, by, body = clock.now(), current_identity().actor, read_json_object()
    confirmed = pop_confirmation(body)
    draft = parse_draft(body, now=now)
    published = actions.publish(draft, by=by, now=now, idempotency_key=idempotency_key, confirmed=confirmed)
    broadcast = get_broadcast_or_404(published.id)
    stats = viewer_stats.load_new_broadcast_stats(broadcast) if published.is_new else None
    response = jsonify(_to_json(broadcast, stats))
    response.status_code = 201 if published.is_new else 200
    response.headers["Location"] = url_for("api.detail", broadcast_id=published.id)
    return response


@blueprint.get("/admin/broadcasts")
@allow(Permission.SEE)
def listing():
    filter_name = request.args.get("filter", "all")
    if filter_name not in broadcasts.STATUS_FILTERS:
        raise Invalid({"filter": f"filter must be one of {', '.join(broadcasts.STATUS_FILTERS)}."})
    before, limit = read_paging()
    q = read_text(request.args, "q", 200)
    fetched = broadcasts.list_page(filter_name, q=q, before=before, limit=limit + 1)
    displayed = fetched[:limit]
    stats_by_id = viewer_stats.load_stats(displayed)
    items = [_to_json(broadcast, stats_by_id[broadcast.id]) for broadcast in displayed]
    return jsonify(items=items, next=str(displayed[-1].id) if len(fetched) > limit else None)


@blueprint.get("/admin/broadcasts/<int:broadcast_id>")
@allow(Permission.SEE)
def detail(broadcast_id: int):
    """The ETag is the revision and the status."""
    broadcast = get_broadcast_or_404(broadcast_id)
    response: Response = make_response(jsonify(_to_json(broadcast)))
    response.set_etag(broadcast.version)
    return response.make_conditional(request)


@blueprint.patch("/admin/broadcasts/<int:broadcast_id>")
@allow(Permission.WRITE)
def edit(broadcast_id: int):
    """428 without `If-Match`; 412 with the newest version, as `current`, when it names an older one."""
    changes = read_json_object()
    confirmed = pop_confirmation(changes)
    flags = {
        "notify_again": _pop_flag(changes, "notifyAgain"),
        "acknowledge_again": _pop_flag(changes, "acknowledgeAgain"),
    }
    if not request.if_match:
        raise VersionRequired()
    version = None if request.if_match.star_tag else next(iter(request.if_match.as_set()), "")
    try:
        by, now = current_identity().actor, clock.now()
        new_version = edits.edit(broadcast_id, changes, version=version, by=by, now=now, confirmed=confirmed, **flags)
    except VersionConflict as outdated:
        current = _to_json(get_broadcast_or_404(broadcast_id))
        response = make_error_response(412, outdated.title, str(outdated), current=current)
        response.set_etag(outdated.version)
        return response
    response = make_response(jsonify(_to_json(get_broadcast_or_404(broadcast_id))))
    response.set_etag(new_version)
    return response


@blueprint.post("/admin/audience/preview")
@allow(Permission.WRITE)
def preview_audience():
    """The audience fields of a message, and `user` (id or username) for "would they get it, and why"."""
    body = read_json_object()
    requested_user = body.pop("user", None)
    audience = resolve_audience(parse_target(body))
    online_ids = PRESENCE.current.get_online_ids()
    preview = {
        "people": audiences.count(audience),
        "online": audiences.count(audience, among_ids=online_ids),
        "sample": [
            {"id": user.id, "username": user.username, "name": user.name} for user in audiences.list_sample(audience)
        ],
    }
    if requested_user is not None:
        user = users.find(requested_user) if type(requested_user) in (str, int) else None
        if user is None:
            raise Invalid({"user": "There is no user with this username or ID, or the account is disabled."})
        included, reason = audience.explain(user.as_viewer)
        preview["user"] = {"id": user.id, "username": user.username, "included": included, "because": reason}
    return jsonify(preview)


@blueprint.delete("/admin/broadcasts/<int:broadcast_id>")
@blueprint.post("/admin/broadcasts/<int:broadcast_id>/cancel")
@allow(Permission.WRITE)
def cancel(broadcast_id: int):
    """The reason from `{reason}` or `?reason=`."""
    body = read_json_object(may_be_empty=True)
    reason = body.get("reason", request.args.get("reason", "No reason given"))
    reject_unknown_fields(body, "reason")
    if not isinstance(reason, str):
        raise Invalid({"reason": "reason must be text."})
    actions.cancel(broadcast_id, reason=reason, by=current_identity().actor, now=clock.now())
    return jsonify(_to_json(get_broadcast_or_404(broadcast_id)))


@blueprint.get("/admin/broadcasts/<int:broadcast_id>/stats")
@allow(Permission.SEE)
def stats(broadcast_id: int):
    broadcast = get_broadcast_or_404(broadcast_id)
    return jsonify(viewer_stats.stats_to_json(viewer_stats.load_broadcast_stats(broadcast)))


def _pop_flag(changes: dict[str, Any], name: str) -> bool:
    """Remove a flag from an edit and return it; false when it is missing."""
    value = changes.pop(name, False)
    if not isinstance(value, bool):
        raise Invalid({name: f"{name} must be true or false."})
    return value


def _to_json(broadcast: Broadcast, broadcast_stats: BroadcastStats | None = None) -> dict[str, Any]:
    broadcast_stats = broadcast_stats or viewer_stats.load_broadcast_stats(broadcast)
    fields = broadcast.to_card().to_payload() | edits.to_public_fields(broadcast)
    return fields | {
        "targetIds": sorted(fields["targetIds"]),
        "status": broadcast.status,
        "seq": broadcast.seq,
        "version": broadcast.version,
        "decisionReason": broadcast.decision_reason,
        "endedAt": clock.to_rfc3339(broadcast.ended_at),
        "cancelReason": broadcast.cancel_reason,
        "receiptsDeletedAt": clock.to_rfc3339(broadcast.receipts_deleted_at),
        "stats": viewer_stats.stats_to_json(broadcast_stats),
    }
