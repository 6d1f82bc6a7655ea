"""The inbox as pages: a list that the stream keeps fresh, some cards of it, one message alone. `marks` has the verbs."""

from datetime import datetime
from types import ModuleType

from flask import Blueprint, g, jsonify, request

from broadcast.base.errors import NotFound
from broadcast.config.settings import SETTINGS
from broadcast.domain import clock
from broadcast.domain.alerts import Alert, choose
from broadcast.domain.audience import Viewer
from broadcast.domain.events import Cursor
from broadcast.domain.preferences import Preferences
from broadcast.store import ended_inbox, log, users
from broadcast.store import inbox as stored
from broadcast.store.inbox import Counts, Filters, Unread
from broadcast.streams.receipt_buffer import RECEIPT_BUFFER
from broadcast.web.core.identity import allow, me
from broadcast.web.core.rendering import card_view, is_htmx, page

blueprint = Blueprint("inbox", __name__, url_prefix="/inbox")

PAGE = 30
_PINNED = 50  # messages to acknowledge that stand above the list; any more stay in the list
_MOST_IDS = 100
_MOST_WAITING = 200  # alerts that preferences may silence before those that are raised are chosen


@blueprint.get("", strict_slashes=False)
@allow("person")
def index():
    if is_htmx() and request.args.get("after"):
        return page("inbox/_cards.html", **listed())
    return page("inbox/page.html", **listed())


@blueprint.get("/list")
@allow("person")
def listing():
    return page("inbox/_list.html", **listed())


@blueprint.get("/cards")
@allow("person")
def cards():
    """Those of `?ids=1,2` that the view and its filters show now: how an open page follows what was done elsewhere."""
    ids = [number for number in map(whole_number, request.args.get("ids", "").split(",")[:_MOST_IDS]) if number]
    filters = read_filters(request.args)
    viewer, now = me().actor.viewer, clock.now()
    answer = told(stored.counts(viewer, now=now))
    answer["counts"]["ended"] = ended_inbox.count(viewer, now=now)
    if filters.narrow:
        answer["counts"]["toMark"] = stored.count_filtered(viewer, filters, now=now)
    items = source_of(filters).some(viewer, filters, ids, now=now)
    note_shown(items, me().id)
    return page("inbox/_given_cards.html", cards=[card_view(item) for item in items], told=answer)


@blueprint.get("/count")
@allow("person")
def count():
    """The counts of all views, and up to where they are current."""
    cursor, viewer, now = log.head(), me().actor.viewer, clock.now()
    answer = told(stored.counts(viewer, now=now))
    answer["counts"]["ended"] = ended_inbox.count(viewer, now=now)
    return jsonify(answer | {"cursor": str(cursor)})


@blueprint.get("/alerts")
@allow("person")
def alerts():
    """What raises an alert and when, as a page's script needs it; and which messages still wait to be told of, since when."""
    now, wanted = clock.now(), users.preferences(me().id)
    held_until = wanted.held_until(now)
    waiting = alerts_for(me().actor.viewer, wanted, now=now)
    return jsonify(
        wanted.as_json()
        | {
            "mandatory": mandatory_categories(),
            "quiet": [[clock.to_wire(start), clock.to_wire(end)] for start, end in wanted.quiet_spans(now)],
            "heldUntil": clock.to_wire(held_until),
            "waiting": [alert.id for alert in waiting],
            "since": {str(alert.id): clock.to_wire(alert.since) for alert in waiting},
        }
    )


@blueprint.get("/<int:broadcast_id>")
@allow("person")
def message(broadcast_id: int):
    viewer, now = me().actor.viewer, clock.now()
    item = stored.one(viewer, broadcast_id, now=now) or ended_inbox.one(viewer, broadcast_id, now=now)
    if item is None:
        raise NotFound("This message is not addressed to you, or it was recalled.")
    return page("inbox/message.html", card=card_view(item), cursor=str(log.head()), done=request.args.get("done"))


def alerts_for(viewer: Viewer, wanted: Preferences, *, now: datetime) -> list[Alert]:
    """What a page that is opened now raises, in this order."""
    waiting = stored.alerting(viewer, now=now, limit=_MOST_WAITING)
    return choose(waiting, wanted, mandatory=mandatory_categories())


def mandatory_categories() -> list[str]:
    return SETTINGS.current.mandatory_categories


def told(counts: Counts) -> dict:
    """Counts as pages hear of them."""
    views = {"inbox": counts.inbox, "unread": counts.unread, "archived": counts.archived, "snoozed": counts.snoozed}
    return {"unread": counts.unread, "asOf": counts.as_of, "version": counts.version, "counts": views}


def read_filters(values) -> Filters:
    """Filters of a query or a form; what is not known is ignored, as a link from elsewhere may carry it."""
    view = values.get("view", "inbox")
    return Filters(
        view=view if view in stored.VIEWS else "inbox",
        category=_text(values, "category", 40),
        priority=_text(values, "priority", 16),
        q=_text(values, "q", 200),
    )


def _text(values, name: str, most: int) -> str:
    return values.get(name, "").replace("\0", "").strip()[:most]  # PostgreSQL has no text with NUL


def source_of(filters: Filters) -> ModuleType:
    """The module of the store that reads this view: what is over is another question."""
    return ended_inbox if filters.view == "ended" else stored


def note_shown(items: list[stored.Item], user_id: int) -> None:
    """A page that shows a message has delivered it, as a stream does. What has ended was delivered before."""
    for item in items:
        if item.ended_at:
            continue
        RECEIPT_BUFFER.current.add(item.card.id, [user_id])


def listed(filters: Filters | None = None) -> dict:
    """What the list's templates need, of one page of it: the first, or the one after `?after=`."""
    identity, now = me(), clock.now()
    viewer = identity.actor.viewer
    filters = filters or read_filters(request.args)
    cursor: Cursor = log.head()  # before the list is read: what comes in between is streamed, and merged by id
    counts = stored.counts(viewer, now=now)
    g.unread = Unread(counts.unread, counts.as_of, counts.version)
    before = whole_number(request.args.get("after")) or None
    pinned = []
    if filters.view in ("inbox", "unread"):
        pinned = stored.to_acknowledge(viewer, filters, now=now, limit=_PINNED)
    without = [item.card.id for item in pinned]
    if filters.view == "ended":
        items = ended_inbox.page(viewer, filters, now=now, before=before, limit=PAGE + 1)
    else:
        items = stored.page(viewer, filters, now=now, before=before, limit=PAGE + 1, without=without)
    shown, more = items[:PAGE], len(items) > PAGE
    note_shown(shown if before else pinned + shown, identity.id)
    return {
        "pinned": [card_view(item) for item in pinned],
        "cards": [card_view(item) for item in shown],
        "next": str(shown[-1].seq) if more else None,
        "view": filters.view,
        "filters": filters,
        "categories": source_of(filters).categories(viewer, now=now),
        "counts": counts,
        "ended": ended_inbox.count(viewer, now=now),
        "to_mark": stored.count_filtered(viewer, filters, now=now) if filters.narrow else counts.unread,
        "newest": max((item.seq for item in pinned + shown), default=0),
        "cursor": str(cursor),
        "done": request.args.get("done"),
    }


def query_of(filters: Filters) -> dict[str, str]:
    """The filters as a query, without what is empty."""
    view = "" if filters.view == "inbox" else filters.view
    query = {"view": view, "category": filters.category, "priority": filters.priority, "q": filters.q}
    return {name: value for name, value in query.items() if value}


def whole_number(text: str | None) -> int:
    """A sequence number or an id of a query or a form; 0 for anything else."""
    return int(text) if text and text.isascii() and text.isdigit() and len(text) < 19 else 0
