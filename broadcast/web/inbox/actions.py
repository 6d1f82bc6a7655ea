"""What people do with messages: every verb as a plain form (303 back to the list) and as JSON for the page's own script.

The script's answer says what changed, the new counts and the version of the inbox: the same that other tabs hear as a receipt.
"""

from collections.abc import Callable, Sequence
from datetime import datetime
from urllib.parse import parse_qsl, urlencode, urlsplit
from zoneinfo import ZoneInfo

from flask import Blueprint, flash, g, jsonify, redirect, request, url_for
from flask.typing import ResponseReturnValue

from broadcast.actions import receipts as actions
from broadcast.actions.receipts import Done
from broadcast.base.errors import Invalid, TextChanged
from broadcast.domain import clock, time_zones
from broadcast.domain.actor import Actor
from broadcast.store import inbox as stored
from broadcast.store import users
from broadcast.streams.receipt_buffer import RECEIPT_BUFFER
from broadcast.web.core.error_handlers import wants_json
from broadcast.web.core.identity import allow, me
from broadcast.web.inbox.pages import query_of, read_filters, told, whole_number

blueprint = Blueprint("marks", __name__, url_prefix="/inbox")

VERBS: dict[str, Callable[..., Done]] = {
    "read": actions.mark_read,
    "unread": actions.mark_unread,
    "archive": actions.archive,
    "unarchive": actions.unarchive,
    "acknowledge": actions.acknowledge,
    "dismiss": actions.dismiss,
}
_MOST_IDS = 1000
_LONGEST_BACK = 2000  # characters: an address of the inbox with all its filters


def _one(verb: str) -> Callable[[int], ResponseReturnValue]:
    @allow("person")
    def view(broadcast_id: int) -> ResponseReturnValue:
        try:
            return _answer(_do(verb, [broadcast_id]))
        except TextChanged:
            if wants_json():
                raise
            return redirect(url_for("inbox.message", broadcast_id=broadcast_id, done="changed"), 303)

    return view


for _verb in (*VERBS, "snooze"):
    blueprint.add_url_rule(f"/<int:broadcast_id>/{_verb}", _verb, _one(_verb), methods=["POST"])


@blueprint.post("/chosen")
@allow("person")
def chosen():
    """One verb for the messages that are ticked."""
    ids = [number for number in map(whole_number, request.form.getlist("ids")) if number]
    if not 0 < len(ids) <= _MOST_IDS:
        raise Invalid({"ids": "Choose at least one message, and at most 1,000."})
    return _answer(_do(request.form.get("verb", ""), ids))


@blueprint.post("/read-all")
@allow("person")
def mark_all_read():
    filters = read_filters(request.form)
    through = whole_number(request.form.get("through"))
    done = actions.mark_all_read(filters, through=through, by=me().actor, now=clock.now())
    return _answer(done, url_for("inbox.index", **query_of(filters)))


@blueprint.post("/undo")
@allow("person")
def undo():
    return _answer(actions.undo(request.form.get("key", "")[:32], by=me().actor, now=clock.now()))


@blueprint.post("/seen")
@allow("person")
def seen():
    """What was in the viewport, as pages tell it now and then. Written down in batches, like deliveries.

    `aside`: an alert was put away, as by the verb "dismiss".
    """
    ids = [number for number in map(whole_number, request.form.get("ids", "").split(",")[:_MOST_IDS]) if number]
    if ids:
        visible = stored.visible_ids(me().actor.viewer, ids, now=clock.now())
        for broadcast_id in visible:
            RECEIPT_BUFFER.current.add(broadcast_id, [me().id], mark="first_seen_at")
        if visible and "aside" in request.form:
            actions.dismiss(visible, by=me().actor, now=clock.now())
    return "", 204


def _read_until(now: datetime) -> tuple[datetime, ZoneInfo]:
    """When a snooze ends, by a preset's name or a local time, and the zone that it is meant in. Raises Invalid.

    Of a time that comes twice the first is meant: nobody minds a message that is back an hour early.
    """
    form = request.form
    try:
        zone = time_zones.zone_of(users.preferences(me().id).time_zone, form.get("timeZone", ""))
        if preset := form.get("preset", ""):
            return time_zones.preset(preset, now, zone), zone
        text = form.get("until", "")
        which = time_zones.FIRST if time_zones.comes_twice(text, zone) else ""
        return time_zones.read_local(text, zone, which=which), zone
    except ValueError as problem:
        raise Invalid({"until": str(problem)}) from None


def _do(verb: str, ids: Sequence[int]) -> Done:
    by: Actor = me().actor
    now = clock.now()
    if verb == "snooze":
        until, zone = _read_until(now)
        g.snoozed = {"until": clock.to_wire(until), "timeZone": zone.key}  # told with the answer
        return actions.snooze(ids, until=until, by=by, now=now)
    if verb not in VERBS:
        raise Invalid({"verb": "Choose what to do with the messages."})
    if verb == "acknowledge" and (revision := whole_number(request.form.get("revision"))):
        return actions.acknowledge(ids, by=by, now=now, seen=dict.fromkeys(ids[:1], revision))
    return VERBS[verb](ids, by=by, now=now)


def _answer(done: Done, back: str | None = None) -> ResponseReturnValue:
    if wants_json():
        counts = stored.counts(me().actor.viewer, now=clock.now())
        what = {"kind": done.kind, "ids": done.ids, "version": done.version, "undo": done.undo}
        what |= {"left": len(done.refused), "because": done.because} if done.refused else {}
        return jsonify(told(counts) | what | g.get("snoozed", {}))
    back = back or _back()
    if left := len(done.refused):
        flash(f"{left} left as {'it was' if left == 1 else 'they were'}: {done.because}")
    if done.undo:
        back += ("&" if "?" in back else "?") + urlencode({"done": f"{done.kind}-{len(done.ids)}-{done.undo}"})
    return redirect(back, 303)


def _back() -> str:
    """The list that the form stood on, as it says itself; only ever a page of the inbox."""
    asked = urlsplit(request.form.get("back", "")[:_LONGEST_BACK])
    if asked.netloc or asked.scheme or asked.path != "/inbox":
        return url_for("inbox.index")
    return url_for("inbox.index", **query_of(read_filters(dict(parse_qsl(asked.query)))))
