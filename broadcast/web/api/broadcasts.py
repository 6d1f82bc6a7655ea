"""The JSON interface of administrators and of streams; what is people's own is in `api_inbox`.

Errors are problem+json; lists are `{items, next}`, paged by `?after=&limit=`.
"""

from collections import Counter
from typing import Any

from flask import Blueprint, Response, jsonify, make_response, request, url_for

from broadcast.actions import broadcasts as actions
from broadcast.actions import edits
from broadcast.actions.audiences import resolve
from broadcast.base.errors import Invalid, NotFound, Outdated, VersionMissing
from broadcast.domain import clock
from broadcast.domain.message import read_draft, read_target
from broadcast.domain.permissions import Permission
from broadcast.domain.stats import Figures
from broadcast.observability import metrics
from broadcast.store import audiences, broadcasts, users
from broadcast.store.models import Broadcast
from broadcast.streams.presence import PRESENCE
from broadcast.web.console import viewer_stats
from broadcast.web.core.error_handlers import answer
from broadcast.web.core.identity import allow, me
from broadcast.web.core.request_parsing import confirmation, json_object, paging

blueprint = Blueprint("api", __name__, url_prefix="/api")


@blueprint.get("/sse/stats")
@allow(Permission.SEE)
def stream_stats():
    """Over all workers; counters since the start of the system."""
    streams = PRESENCE.current.streams()
    return jsonify(
        usersOnline=len({stream.user_id for stream in streams}),
        streams=len(streams),
        perWorker=Counter(stream.worker for stream in streams),
        oldest=min((stream.since for stream in streams), default=None),
        slowConsumersClosed=metrics.total("broadcast_streams_closed_total", reason="slow consumer"),
        eventsDelivered=metrics.total("broadcast_stream_writes_total"),
    )


@blueprint.get("/sse/connected/<int:user_id>")
@allow("person")
def connected(user_id: int):
    """An administrator about anybody, everybody about themselves."""
    if user_id != me().id:
        me().actor.require(Permission.SEE)
    return jsonify(userId=user_id, connected=PRESENCE.current.is_online(user_id))


@blueprint.post("/admin/broadcasts")
@allow(Permission.WRITE)
def create():
    """201 with `Location`; 200 when the Idempotency-Key was used for the same message before."""
    key = request.headers.get("Idempotency-Key")
    if key is not None and not (0 < len(key) <= 200 and key.isascii() and key.isprintable()):
        raise Invalid({"Idempotency-Key": "The key has 1 to 200 printable ASCII characters."})
    now, body = clock.now(), json_object()
    confirmed = confirmation(body)
    published = actions.publish(read_draft(body, now=now), by=me().actor, now=now, key=key, confirmed=confirmed)
    broadcast = _found(published.id)
    response = jsonify(_listed(broadcast, viewer_stats.of_new(broadcast)) if published.is_new else _told(broadcast))
    response.status_code = 201 if published.is_new else 200
    response.headers["Location"] = url_for("api.one", broadcast_id=published.id)
    return response


@blueprint.get("/admin/broadcasts")
@allow(Permission.SEE)
def listing():
    filter = request.args.get("filter", "all")
    if filter not in broadcasts.FILTERS:
        raise Invalid({"filter": f"The filter must be one of {', '.join(broadcasts.FILTERS)}."})
    before, limit = paging()
    q = request.args.get("q", "").strip()[:200].replace("\0", "")
    found = broadcasts.page(filter, q=q, before=before, limit=limit + 1)
    shown = found[:limit]
    figures = viewer_stats.of(shown)
    items = [_listed(broadcast, figures[broadcast.id]) for broadcast in shown]
    return jsonify(items=items, next=str(shown[-1].id) if len(found) > limit else None)


@blueprint.get("/admin/broadcasts/<int:broadcast_id>")
@allow(Permission.SEE)
def one(broadcast_id: int):
    """The ETag is the revision and the status."""
    broadcast = _found(broadcast_id)
    response: Response = make_response(jsonify(_told(broadcast)))
    response.set_etag(broadcast.version)
    return response.make_conditional(request)


@blueprint.patch("/admin/broadcasts/<int:broadcast_id>")
@allow(Permission.WRITE)
def edit(broadcast_id: int):
    """428 without `If-Match`; 412 with the newest version, as `current`, when it names an older one."""
    changes = json_object()
    confirmed = confirmation(changes)
    again, acknowledge_again = _wish(changes, "notifyAgain"), _wish(changes, "acknowledgeAgain")
    if not request.if_match:
        raise VersionMissing()
    version = None if request.if_match.star_tag else next(iter(request.if_match.as_set()), "")
    try:
        actor, now = me().actor, clock.now()
        newest = edits.edit(
            broadcast_id,
            changes,
            version=version,
            by=actor,
            now=now,
            notify_again=again,
            acknowledge_again=acknowledge_again,
            confirmed=confirmed,
        )
    except Outdated as outdated:
        response = answer(412, outdated.title, str(outdated), current=_told(_found(broadcast_id)))
        response.set_etag(outdated.version)
        return response
    response = make_response(jsonify(_told(_found(broadcast_id))))
    response.set_etag(newest)
    return response


@blueprint.post("/admin/audience/preview")
@allow(Permission.WRITE)
def preview_audience():
    """The audience fields of a message, and `user` (id or username) for "would they get it, and why"."""
    body = json_object()
    asked = body.pop("user", None)
    audience = resolve(read_target(body))
    online = PRESENCE.current.online_ids()
    told = {
        "people": audiences.count(audience),
        "online": audiences.count(audience, among=online),
        "sample": [
            {"id": user.id, "username": user.username, "name": user.name} for user in audiences.sample(audience)
        ],
    }
    if asked is not None:
        person = users.find(asked) if isinstance(asked, str) or type(asked) is int else None
        if person is None:
            raise Invalid({"user": "There is nobody with this name or id, or the account is disabled."})
        included, because = audience.judge(person.as_viewer)
        told["user"] = {"id": person.id, "username": person.username, "included": included, "because": because}
    return jsonify(told)


@blueprint.delete("/admin/broadcasts/<int:broadcast_id>")
@blueprint.post("/admin/broadcasts/<int:broadcast_id>/cancel")
@allow(Permission.WRITE)
def cancel(broadcast_id: int):
    """The reason from `{reason}` or `?reason=`."""
    body = json_object() if request.content_length else {}
    reason = body.get("reason", request.args.get("reason", "No reason given"))
    if unknown := body.keys() - {"reason"}:
        raise Invalid(dict.fromkeys(unknown, "There is no such field."))
    if not isinstance(reason, str):
        raise Invalid({"reason": "The reason must be text."})
    actions.cancel(broadcast_id, reason=reason, by=me().actor, now=clock.now())
    return jsonify(_told(_found(broadcast_id)))


@blueprint.get("/admin/broadcasts/<int:broadcast_id>/stats")
@allow(Permission.SEE)
def stats(broadcast_id: int):
    """The totals."""
    broadcast = _found(broadcast_id)
    return jsonify(viewer_stats.as_json(viewer_stats.of_one(broadcast)))


def _told(broadcast: Broadcast) -> dict[str, Any]:
    return _listed(broadcast, viewer_stats.of_one(broadcast))


def _wish(changes: dict[str, Any], name: str) -> bool:
    """Take a flag out of an edit; false when it is not there."""
    value = changes.pop(name, False)
    if not isinstance(value, bool):
        raise Invalid({name: f"{name} must be true or false."})
    return value


def _listed(broadcast: Broadcast, figures: Figures) -> dict[str, Any]:
    return broadcast.as_card().as_payload() | {
        "status": broadcast.status,
        "seq": broadcast.seq,
        "targetIds": _target_ids(broadcast),
        "targetMatch": "ALL" if broadcast.match_all else "ANY",
        "exceptRoles": broadcast.except_role_names,
        "exceptIds": audiences.left_out(broadcast),
        "snapshot": broadcast.is_snapshot,
        "version": broadcast.version,
        "scheduledAt": clock.to_wire(broadcast.scheduled_at),
        "decisionReason": broadcast.decision_reason,
        "endedAt": clock.to_wire(broadcast.ended_at),
        "cancelReason": broadcast.cancel_reason,
        "closeSessions": broadcast.close_sessions,
        "receiptsDeletedAt": clock.to_wire(broadcast.receipts_deleted_at),
        "stats": viewer_stats.as_json(figures),
    }


def _target_ids(broadcast: Broadcast) -> list:
    return sorted(audiences.chosen(broadcast)) if broadcast.audience_kind == "users" else broadcast.role_names


def _found(broadcast_id: int) -> Broadcast:
    broadcast = broadcasts.by_id(broadcast_id)
    if broadcast is None:
        raise NotFound("There is no such broadcast.")
    return broadcast
