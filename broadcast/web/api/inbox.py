"""The JSON API for the user's own inbox and preferences."""

import hashlib
from collections.abc import Callable, Iterable
from datetime import datetime
from functools import lru_cache
from typing import Any

from flask import Blueprint, Response, json, jsonify, request
from flask.typing import ResponseReturnValue

from broadcast.actions import accounts
from broadcast.actions import receipts as actions
from broadcast.base.errors import Invalid
from broadcast.config.settings import SETTINGS
from broadcast.domain import clock, time_zones
from broadcast.domain.card import Card
from broadcast.store import inbox, log, users
from broadcast.store.inbox import EndedInbox, InboxFilters, InboxItem
from broadcast.store.live_inbox import open_inbox
from broadcast.web.core.identity import allow, current_identity
from broadcast.web.core.request_parsing import (
    is_encodable,
    read_json_object,
    read_paging,
    reject_unknown_fields,
    require_number,
)
from broadcast.web.inbox.actions import ACTIONS_BY_VERB
from broadcast.web.inbox.pages import choose_alerts, read_filters, record_deliveries

blueprint = Blueprint("api_inbox", __name__, url_prefix="/api")

_MAX_ENCODED_CARDS = 1000  # of 3 KB as a rule
_MAX_ENCODED_RECEIPTS = 5000
_ETAG_DIGITS = 32


@blueprint.post("/sse/read")
@allow("person")
def read_one():
    broadcast_id = require_number(request.args.get("messageId"), "messageId")
    actions.mark_read([broadcast_id], by=current_identity().actor, now=clock.now())
    return jsonify(id=broadcast_id, unread=_count_unread())


@blueprint.get("/user/messages")
@allow("person", may_be_embedded=True)
def messages():
    """`cursor` is where to open a stream: nothing of this list comes again, nothing after it is missed.

    A program with a token gets an ETag, which stays while only the log's position changes: an earlier cursor is as good.
    """
    now, identity = clock.now(), current_identity()
    view = request.args.get("view", "inbox")
    if view not in inbox.VIEWS:
        raise Invalid({"view": f"view must be one of {', '.join(inbox.VIEWS)}."})
    before, limit = read_paging()
    filters, viewer = read_filters(request.args), identity.actor.viewer
    opened = open_inbox(viewer, now=now)
    if filters.view == "ended":
        items = EndedInbox(viewer, now).list_page(filters, before=before, limit=limit + 1)
    else:
        items = opened.list_page(filters, before=before, limit=limit + 1)
    displayed = items[:limit]
    record_deliveries(displayed, identity.id)
    unread = opened.count_unread()
    following = str(displayed[-1].seq) if len(items) > limit else None
    content = {"next": following, "unread": unread.count, "userId": identity.id}
    encoded_items = _encode_items(displayed)
    response = _build_json_response(
        encoded_items, _encode(content | {"asOf": unread.as_of, "cursor": str(opened.head)})
    )
    if identity.token_id is not None:
        _make_conditional(response, encoded_items, _encode(content), opened.head.epoch)
    return response


@blueprint.get("/user/alerts")
@allow("person", may_be_embedded=True)
def alerts():
    """What a page that is opened now interrupts its person with, the first of it first; quiet hours hold it (`heldUntil`)."""
    viewer, now = current_identity().actor.viewer, clock.now()
    alert_ids = [alert.id for alert in choose_alerts(viewer, users.get_preferences(current_identity().id), now=now)]
    items = open_inbox(viewer, now=now).list_by_ids(InboxFilters("all"), alert_ids)
    record_deliveries(items, current_identity().id)
    return _build_json_response(_encode_items(sorted(items, key=lambda item: alert_ids.index(item.card.id))))


def _make_action_view(verb: str, action: Callable[..., Any]) -> Callable[[], ResponseReturnValue]:
    @allow("person", may_be_embedded=verb in ("read", "acknowledge", "dismiss"))
    def view() -> ResponseReturnValue:
        if verb != "acknowledge":
            action(_read_broadcast_ids(), by=current_identity().actor, now=clock.now())
            return jsonify(unread=_count_unread())
        ids = _read_broadcast_ids("revisions")
        result = action(ids, by=current_identity().actor, now=clock.now(), seen_revisions=_read_revisions(ids))
        return jsonify({"unread": _count_unread()} | ({"refused": result.refused_ids} if result.refused_ids else {}))

    view.__doc__ = f"`{{broadcastIds: […]}}` to {verb}."
    return view


for _verb, _action in ACTIONS_BY_VERB.items():
    blueprint.add_url_rule(
        f"/user/messages/{_verb}", f"messages_{_verb}", _make_action_view(_verb, _action), methods=["POST"]
    )


@blueprint.post("/user/messages/snooze")
@allow("person")
def snooze():
    """`{broadcastIds: […], until}`, a time with its zone. The answer says it in the zone of the preferences too."""
    ids = _read_broadcast_ids("until")
    try:
        until = clock.parse_rfc3339(read_json_object()["until"])
    except (KeyError, TypeError, ValueError):
        raise Invalid({"until": "until must be a time with a time zone, like 2026-11-30T08:00:00Z."}) from None
    result = actions.snooze(ids, until=until, by=current_identity().actor, now=clock.now())
    zone = time_zones.resolve_zone(users.get_preferences(current_identity().id).time_zone, "")
    return jsonify(
        unread=_count_unread(),
        until=clock.to_rfc3339(until),
        timeZone=zone.key,
        untilLocal=until.astimezone(zone).isoformat(timespec="minutes"),
        left=len(result.refused_ids),
        because=result.refusal_reason or None,
    )


@blueprint.post("/user/messages/read-all")
@allow("person", may_be_embedded=True)
def read_all():
    """A filter `{view, category, priority, q, through}`; the whole inbox when empty."""
    body = read_json_object(may_be_empty=True)
    through = body.pop("through", None)
    if through is not None and (type(through) is not int or not 0 <= through < 2**63):
        raise Invalid({"through": "through must be the seq of a message."})
    reject_unknown_fields(body, "view", "category", "priority", "q")
    if invalid_fields := [
        name for name, value in body.items() if not isinstance(value, str) or not is_encodable(value)
    ]:
        raise Invalid(dict.fromkeys(invalid_fields, "This must be text."))
    if body.get("view", "inbox") not in inbox.VIEWS:
        raise Invalid({"view": f"view must be one of {', '.join(inbox.VIEWS)}."})
    if body.get("view") == "ended":
        raise Invalid({"view": "Ended messages can be read, but no longer marked."})
    through = log.get_head().seq if through is None else through
    actions.mark_all_read(read_filters(body), through=through, by=current_identity().actor, now=clock.now())
    return jsonify(unread=_count_unread())


@blueprint.get("/user/preferences")
@allow("person", may_be_embedded=True)
def preferences():
    """`heldUntil` is when alerts that come now are shown."""
    return _respond_with_preferences()


@blueprint.put("/user/preferences")
@allow("person")
def save_preferences():
    """The whole of them; what is missing gets its default."""
    accounts.save_preferences(read_json_object(), by=current_identity().actor, now=clock.now())
    return _respond_with_preferences()


def _respond_with_preferences() -> ResponseReturnValue:
    user_preferences = users.get_preferences(current_identity().id)
    mandatory = SETTINGS.current.mandatory_categories
    held_until = clock.to_rfc3339(user_preferences.get_quiet_end(clock.now()))
    return jsonify(user_preferences.to_json() | {"mandatory": mandatory, "heldUntil": held_until})


def _read_revisions(ids: list[int]) -> dict[int, int]:
    """`revisions` of the body: broadcast id (as text) to the revision that was on the screen. Raises Invalid."""
    revisions = read_json_object().get("revisions") or {}
    ids_by_text = {str(broadcast_id): broadcast_id for broadcast_id in ids}
    is_valid = isinstance(revisions, dict) and all(type(n) is int and 0 < n < 2**63 for n in revisions.values())
    if not is_valid or not revisions.keys() <= ids_by_text.keys():
        raise Invalid(
            {"revisions": "revisions must map ids in broadcastIds to the revision that was shown, as a number."}
        )
    return {ids_by_text[text]: revision for text, revision in revisions.items()}


def _make_conditional(response: Response, *facts: str) -> None:
    """Answer 304 if the program has these facts already. A browser keeps nothing: somebody else may sit down at it."""
    response.headers["Cache-Control"] = "private, no-cache"
    response.set_etag(hashlib.sha256("\n".join(facts).encode()).hexdigest()[:_ETAG_DIGITS], weak=True)
    if "If-None-Match" in request.headers:
        response.make_conditional(request)


def _build_json_response(*objects: str) -> Response:
    return Response(_merge(*objects) + "\n", mimetype="application/json")


def _encode_items(items: Iterable[InboxItem]) -> str:
    """The object `{items}` in JSON. What is the same for many users is encoded once."""
    encoded = [
        _merge(
            _encode_card(item.card),
            _encode_receipt(
                item.seq,
                item.is_read,
                item.is_acknowledged,
                item.acked_at,
                item.acked_revision,
                item.archived_at,
                item.snoozed_until,
                item.ended_at,
            ),
        )
        for item in items
    ]
    return f'{{"items":[{",".join(encoded)}]}}'


@lru_cache(_MAX_ENCODED_CARDS)
def _encode_card(card: Card) -> str:
    return _encode(card.to_payload())


@lru_cache(_MAX_ENCODED_RECEIPTS)
def _encode_receipt(
    seq: int,
    is_read: bool,
    is_acknowledged: bool,
    acked_at: datetime | None,
    acked_revision: int | None,
    archived_at: datetime | None,
    snoozed_until: datetime | None,
    ended_at: datetime | None,
) -> str:
    """The caller's receipt. An acknowledgement that is no longer valid is reported as an earlier one."""
    acknowledgement = {"At": clock.to_rfc3339(acked_at), "Revision": acked_revision}
    unset = dict.fromkeys(acknowledgement)
    current, earlier = (acknowledgement, unset) if is_acknowledged else (unset, acknowledgement)
    return _encode(
        {
            "seq": seq,
            "read": is_read,
            **{f"acknowledged{name}": value for name, value in current.items()},
            **{f"earlierAcknowledged{name}": value for name, value in earlier.items()},
            "archivedAt": clock.to_rfc3339(archived_at),
            "snoozedUntil": clock.to_rfc3339(snoozed_until),
            "endedAt": clock.to_rfc3339(ended_at),
        }
    )


def _encode(value: dict[str, Any]) -> str:
    return json.dumps(value, separators=(",", ":"))


def _merge(*objects: str) -> str:
    """One JSON object with the fields of all, none of which is empty."""
    return f"{{{','.join([text[1:-1] for text in objects])}}}"


def _read_broadcast_ids(*other_fields: str) -> list[int]:
    """The `broadcastIds` of the body, which may also have `other_fields`. Raises Invalid."""
    body = read_json_object()
    ids = body.pop("broadcastIds", None)
    is_list = isinstance(ids, list) and 0 < len(ids) <= 1000
    if not is_list or not all(type(n) is int and 0 < n < 2**63 for n in ids):
        raise Invalid({"broadcastIds": "Send a list of 1 to 1,000 ids."})
    reject_unknown_fields(body, *other_fields)
    return ids


def _count_unread() -> int:
    return inbox.Inbox(current_identity().actor.viewer, now=clock.now()).count_unread().count
