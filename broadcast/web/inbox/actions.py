"""Inbox actions: each as a plain form (303 back to the list) and as JSON for the page's script.

The JSON response has the changes, the new counts and the inbox version, as other tabs receive them in a receipt event.
"""

from collections.abc import Callable, Sequence
from datetime import datetime
from urllib.parse import parse_qsl, urlencode, urlsplit
from zoneinfo import ZoneInfo

from flask import Blueprint, flash, g, jsonify, redirect, request, url_for
from flask.typing import ResponseReturnValue

from broadcast.actions import receipts as actions
from broadcast.actions.receipts import ReceiptResult
from broadcast.base.errors import AcknowledgedTextChanged, Invalid
from broadcast.base.numbers import parse_number
from broadcast.domain import clock, time_zones
from broadcast.domain.actor import Actor
from broadcast.store import users
from broadcast.store.inbox import Inbox
from broadcast.store.live_inbox import open_inbox
from broadcast.streams.receipt_buffer import RECEIPT_BUFFER
from broadcast.web.core.error_handlers import wants_json
from broadcast.web.core.identity import allow, current_identity
from broadcast.web.core.rendering import redirect_to
from broadcast.web.core.request_parsing import parse_ids
from broadcast.web.inbox.pages import counts_to_json, read_filters, to_query_args

blueprint = Blueprint("marks", __name__, url_prefix="/inbox")

ACTIONS_BY_VERB: dict[str, Callable[..., ReceiptResult]] = {
    "read": actions.mark_read,
    "unread": actions.mark_unread,
    "archive": actions.archive,
    "unarchive": actions.unarchive,
    "acknowledge": actions.acknowledge,
    "dismiss": actions.dismiss,
}
_MAX_IDS = 1000
_MAX_BACK_CHARACTERS = 2000  # characters of an inbox URL with all its filters


def _make_action_view(verb: str) -> Callable[[int], ResponseReturnValue]:
    @allow("person")
    def view(broadcast_id: int) -> ResponseReturnValue:
        try:
            return _respond(_apply_action(verb, [broadcast_id]))
        except AcknowledgedTextChanged:
            if wants_json():
                raise
            return redirect_to("inbox.message", broadcast_id=broadcast_id, done="changed")

    return view


for _verb in (*ACTIONS_BY_VERB, "snooze"):
    blueprint.add_url_rule(f"/<int:broadcast_id>/{_verb}", _verb, _make_action_view(_verb), methods=["POST"])


@blueprint.post("/chosen")
@allow("person")
def bulk_action():
    ids = parse_ids(request.form.getlist("ids"))
    if not 0 < len(ids) <= _MAX_IDS:
        raise Invalid({"ids": "Select at least one message, and at most 1,000."})
    return _respond(_apply_action(request.form.get("verb", ""), ids))


@blueprint.post("/read-all")
@allow("person")
def mark_all_read():
    filters = read_filters(request.form)
    through = parse_number(request.form.get("through")) or 0
    result = actions.mark_all_read(filters, through=through, by=current_identity().actor, now=clock.now())
    return _respond(result, url_for("inbox.index", **to_query_args(filters)))


@blueprint.post("/undo")
@allow("person")
def undo():
    return _respond(actions.undo(request.form.get("key", "")[:32], by=current_identity().actor, now=clock.now()))


@blueprint.post("/seen")
@allow("person")
def mark_seen():
    """Messages that were in the viewport, which pages report now and then. Written in batches, like deliveries.

    `aside`: an alert was dismissed.
    """
    ids = parse_ids(request.form.get("ids", "").split(",")[:_MAX_IDS])
    if ids:
        visible = Inbox(current_identity().actor.viewer, clock.now()).filter_visible_ids(ids)
        for broadcast_id in visible:
            RECEIPT_BUFFER.current.add(broadcast_id, [current_identity().id], mark="first_seen_at")
        if visible and "aside" in request.form:
            actions.dismiss(visible, by=current_identity().actor, now=clock.now())
    return "", 204


def _read_snooze_end(now: datetime) -> tuple[datetime, ZoneInfo]:
    """The end of a snooze, from a preset or a local time, and its time zone. Raises Invalid.

    Of a local time that occurs twice the first counts: nobody minds a message that is back an hour early.
    """
    form = request.form
    try:
        zone = time_zones.resolve_zone(users.get_preferences(current_identity().id).time_zone, form.get("timeZone", ""))
        if preset := form.get("preset", ""):
            return time_zones.resolve_snooze_preset(preset, now, zone), zone
        text = form.get("until", "")
        which = time_zones.FIRST_OCCURRENCE if time_zones.is_ambiguous_local_time(text, zone) else ""
        return time_zones.parse_local_time(text, zone, occurrence=which), zone
    except ValueError as problem:
        raise Invalid({"until": str(problem)}) from None


def _apply_action(verb: str, ids: Sequence[int]) -> ReceiptResult:
    by: Actor = current_identity().actor
    now = clock.now()
    if verb == "snooze":
        until, zone = _read_snooze_end(now)
        g.snoozed = {"until": clock.to_rfc3339(until), "timeZone": zone.key}  # for the response
        return actions.snooze(ids, until=until, by=by, now=now)
    if verb not in ACTIONS_BY_VERB:
        raise Invalid({"verb": "Choose what to do with the messages."})
    if verb == "acknowledge" and (revision := parse_number(request.form.get("revision"))):
        return actions.acknowledge(ids, by=by, now=now, seen_revisions=dict.fromkeys(ids[:1], revision))
    return ACTIONS_BY_VERB[verb](ids, by=by, now=now)


def _respond(result: ReceiptResult, return_url: str | None = None) -> ResponseReturnValue:
    if wants_json():
        counts = open_inbox(current_identity().actor.viewer, now=clock.now()).count_views()
        changes = {"kind": result.kind, "ids": result.ids, "version": result.version, "undo": result.undo_key}
        changes |= {"left": len(result.refused_ids), "because": result.refusal_reason} if result.refused_ids else {}
        return jsonify(counts_to_json(counts) | changes | g.get("snoozed", {}))
    return_url = return_url or _get_return_url()
    if left_count := len(result.refused_ids):
        flash(f"{left_count} left as {'it was' if left_count == 1 else 'they were'}: {result.refusal_reason}")
    if result.undo_key:
        return_url += ("&" if "?" in return_url else "?") + urlencode(
            {"done": f"{result.kind}-{len(result.ids)}-{result.undo_key}"}
        )
    return redirect(return_url, 303)


def _get_return_url() -> str:
    """The list that contained the form, as the form says; always a page of the inbox."""
    address = urlsplit(request.form.get("back", "")[:_MAX_BACK_CHARACTERS])
    if address.netloc or address.scheme or address.path != "/inbox":
        return url_for("inbox.index")
    return url_for("inbox.index", **to_query_args(read_filters(dict(parse_qsl(address.query)))))
