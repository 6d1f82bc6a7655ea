"""The JSON interface to one's own inbox and preferences."""

from collections.abc import Callable
from typing import Any

from flask import Blueprint, jsonify, request
from flask.typing import ResponseReturnValue

from broadcast.actions import preferences as preference_actions
from broadcast.actions import receipts as actions
from broadcast.base.errors import Invalid
from broadcast.config.settings import SETTINGS
from broadcast.domain import clock, time_zones
from broadcast.store import inbox, log, users
from broadcast.store.inbox import Filters, Item
from broadcast.web.core.identity import allow, me
from broadcast.web.core.request_parsing import is_encodable, json_object, paging, whole_number
from broadcast.web.inbox.pages import alerts_for, note_shown, read_filters, source_of

blueprint = Blueprint("api_inbox", __name__, url_prefix="/api")


@blueprint.post("/sse/read")
@allow("person")
def read_one():
    broadcast_id = whole_number(request.args.get("messageId"), "messageId")
    actions.mark_read([broadcast_id], by=me().actor, now=clock.now())
    return jsonify(id=broadcast_id, unread=_unread())


@blueprint.get("/user/messages")
@allow("person", embedded=True)
def messages():
    """`cursor` is where to open a stream: nothing of this list comes again, nothing after it is missed."""
    now, identity = clock.now(), me()
    view = request.args.get("view", "inbox")
    if view not in inbox.VIEWS:
        raise Invalid({"view": f"The view must be one of {', '.join(inbox.VIEWS)}."})
    before, limit = paging()
    cursor = log.head()
    filters = read_filters(request.args)
    items = source_of(filters).page(identity.actor.viewer, filters, now=now, before=before, limit=limit + 1)
    shown = items[:limit]
    note_shown(shown, identity.id)
    unread = inbox.unread(identity.actor.viewer, now=now)
    return jsonify(
        items=[_told(item) for item in shown],
        next=str(shown[-1].seq) if len(items) > limit else None,
        unread=unread.count,
        asOf=unread.as_of,
        cursor=str(cursor),
        userId=identity.id,
    )


@blueprint.get("/user/alerts")
@allow("person", embedded=True)
def alerts():
    """What a page that is opened now interrupts its person with, the first of it first; quiet hours hold it (`heldUntil`)."""
    viewer, now = me().actor.viewer, clock.now()
    order = [alert.id for alert in alerts_for(viewer, users.preferences(me().id), now=now)]
    items = inbox.some(viewer, Filters("all"), order, now=now)
    note_shown(items, me().id)
    return jsonify(items=[_told(item) for item in sorted(items, key=lambda item: order.index(item.card.id))])


def _marks(verb: str, act: Callable[..., Any]) -> Callable[[], ResponseReturnValue]:
    @allow("person", embedded=verb in ("read", "acknowledge", "dismiss"))
    def view() -> ResponseReturnValue:
        if verb != "acknowledge":
            act(_ids(), by=me().actor, now=clock.now())
            return jsonify(unread=_unread())
        ids = _ids("revisions")
        done = act(ids, by=me().actor, now=clock.now(), seen=_revisions(ids))
        return jsonify({"unread": _unread()} | ({"refused": done.refused} if done.refused else {}))

    view.__doc__ = f"`{{broadcastIds: […]}}` to {verb}."
    return view


for _verb, _act in {
    "read": actions.mark_read,
    "unread": actions.mark_unread,
    "archive": actions.archive,
    "unarchive": actions.unarchive,
    "acknowledge": actions.acknowledge,
    "dismiss": actions.dismiss,
}.items():
    blueprint.add_url_rule(f"/user/messages/{_verb}", f"messages_{_verb}", _marks(_verb, _act), methods=["POST"])


@blueprint.post("/user/messages/snooze")
@allow("person")
def snooze():
    """`{broadcastIds: […], until}`, a time with its zone. The answer says it in the zone of the preferences too."""
    ids = _ids("until")
    try:
        until = clock.from_wire(json_object()["until"])
    except (KeyError, TypeError, ValueError):
        raise Invalid({"until": "until is a time with its zone, like 2026-11-30T08:00:00Z."}) from None
    done = actions.snooze(ids, until=until, by=me().actor, now=clock.now())
    zone = time_zones.zone_of(users.preferences(me().id).time_zone, "")
    return jsonify(
        unread=_unread(),
        until=clock.to_wire(until),
        timeZone=zone.key,
        untilLocal=until.astimezone(zone).isoformat(timespec="minutes"),
        left=len(done.refused),
        because=done.because or None,
    )


@blueprint.post("/user/messages/read-all")
@allow("person", embedded=True)
def read_all():
    """A filter `{view, category, priority, q, through}`; the whole inbox when empty."""
    body = json_object() if request.content_length else {}
    through = body.pop("through", None)
    if through is not None and (type(through) is not int or not 0 <= through < 2**63):
        raise Invalid({"through": "through is the seq of a message."})
    _refuse_others(body, {"view", "category", "priority", "q"})
    if wrong := [name for name, value in body.items() if not isinstance(value, str) or not is_encodable(value)]:
        raise Invalid(dict.fromkeys(wrong, "This must be text."))
    if body.get("view", "inbox") not in inbox.VIEWS:
        raise Invalid({"view": f"The view must be one of {', '.join(inbox.VIEWS)}."})
    if body.get("view") == "ended":
        raise Invalid({"view": "What has ended can be read, and not marked any more."})
    through = log.head().seq if through is None else through
    actions.mark_all_read(read_filters(body), through=through, by=me().actor, now=clock.now())
    return jsonify(unread=_unread())


@blueprint.get("/user/preferences")
@allow("person", embedded=True)
def preferences():
    """`heldUntil` is when alerts that come now are shown."""
    return _preferences()


@blueprint.put("/user/preferences")
@allow("person")
def save_preferences():
    """The whole of them; what is missing gets its default."""
    preference_actions.save(json_object(), by=me().actor, now=clock.now())
    return _preferences()


def _preferences() -> ResponseReturnValue:
    wanted = users.preferences(me().id)
    mandatory = SETTINGS.current.mandatory_categories
    held_until = clock.to_wire(wanted.held_until(clock.now()))
    return jsonify(wanted.as_json() | {"mandatory": mandatory, "heldUntil": held_until})


def _revisions(ids: list[int]) -> dict[int, int]:
    """`revisions` of the body: which revision of each message was on the screen, by its id as text. Raises Invalid."""
    given = json_object().get("revisions") or {}
    known = {str(broadcast_id): broadcast_id for broadcast_id in ids}
    is_fit = isinstance(given, dict) and all(type(n) is int and 0 < n < 2**63 for n in given.values())
    if not is_fit or not given.keys() <= known.keys():
        raise Invalid(
            {"revisions": "revisions names for ids of broadcastIds the revision that was shown, as a number."}
        )
    return {known[text]: revision for text, revision in given.items()}


def _told(item: Item) -> dict[str, Any]:
    """A message with what the caller did with it. An acknowledgement that no longer stands is told as an earlier one."""
    given = {"At": clock.to_wire(item.acked_at), "Revision": item.acked_revision}
    nothing = dict.fromkeys(given)
    standing, earlier = (given, nothing) if item.is_acknowledged else (nothing, given)
    return item.card.as_payload() | {
        "seq": item.seq,
        "read": item.is_read,
        **{f"acknowledged{name}": value for name, value in standing.items()},
        **{f"earlierAcknowledged{name}": value for name, value in earlier.items()},
        "archivedAt": clock.to_wire(item.archived_at),
        "snoozedUntil": clock.to_wire(item.snoozed_until),
        "endedAt": clock.to_wire(item.ended_at),
    }


def _ids(*others: str) -> list[int]:
    """The `broadcastIds` of the body, which may have these other fields too. Raises Invalid."""
    body = json_object()
    ids = body.pop("broadcastIds", None)
    is_list = isinstance(ids, list) and 0 < len(ids) <= 1000
    if not is_list or not all(type(n) is int and 0 < n < 2**63 for n in ids):
        raise Invalid({"broadcastIds": "Send a list of 1 to 1,000 ids."})
    _refuse_others(body, set(others))
    return ids


def _refuse_others(body: dict[str, Any], known: set[str]) -> None:
    if unknown := body.keys() - known:
        raise Invalid({str(name)[:60]: "There is no such field." for name in unknown})


def _unread() -> int:
    return inbox.unread(me().actor.viewer, now=clock.now()).count
