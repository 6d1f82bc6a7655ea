"""The inbox pages: a list that the stream updates, some of its cards, one message. `actions` has the actions."""

from datetime import datetime

from flask import Blueprint, g, jsonify, request

from broadcast.base.numbers import parse_number
from broadcast.config.settings import SETTINGS
from broadcast.domain import clock
from broadcast.domain.alerts import Alert, select_alerts
from broadcast.domain.audience import Viewer
from broadcast.domain.preferences import Preferences
from broadcast.store import inbox as stored
from broadcast.store import log, users
from broadcast.store.inbox import EndedInbox, Inbox, InboxFilters, UnreadCount, ViewCounts
from broadcast.store.live_inbox import open_inbox
from broadcast.streams.receipt_buffer import RECEIPT_BUFFER
from broadcast.web.core.identity import allow, current_identity
from broadcast.web.core.lookup import or_404
from broadcast.web.core.rendering import is_htmx, render_page, to_card_view
from broadcast.web.core.request_parsing import parse_ids, read_known, read_text

blueprint = Blueprint("inbox", __name__, url_prefix="/inbox")

PAGE_SIZE = 30
_MAX_PINNED = 50  # unacknowledged messages pinned above the list; more stay in the list
_MAX_IDS = 100
_MAX_WAITING_ALERTS = 200  # read before preferences silence some of them


@blueprint.get("", strict_slashes=False)
@allow("person")
def index():
    if is_htmx() and request.args.get("after"):
        return render_page("inbox/_cards.html", **build_list_context())
    return render_page("inbox/page.html", **build_list_context())


@blueprint.get("/list")
@allow("person")
def listing():
    return render_page("inbox/_list.html", **build_list_context())


@blueprint.get("/cards")
@allow("person")
def cards():
    """The cards of `?ids=1,2` that match the view and its filters: how an open page follows changes made elsewhere."""
    ids = parse_ids(request.args.get("ids", "").split(",")[:_MAX_IDS])
    filters = read_filters(request.args)
    viewer, now = current_identity().actor.viewer, clock.now()
    opened = open_inbox(viewer, now=now)
    payload = counts_to_json(opened.count_views())
    payload["counts"]["ended"] = EndedInbox(viewer, now).count()
    if filters.is_narrowed:
        payload["counts"]["toMark"] = opened.count_unread_filtered(filters)
    if filters.view == "ended":
        items = EndedInbox(viewer, now).list_by_ids(filters, ids)
    else:
        items = opened.list_by_ids(filters, ids)
    record_deliveries(items, current_identity().id)
    return render_page("inbox/_given_cards.html", cards=items, told=payload)


@blueprint.get("/count")
@allow("person")
def count():
    """The counts of all views, and the cursor up to which they are current."""
    viewer, now = current_identity().actor.viewer, clock.now()
    opened = open_inbox(viewer, now=now)
    payload = counts_to_json(opened.count_views())
    payload["counts"]["ended"] = EndedInbox(viewer, now).count()
    return jsonify(payload | {"cursor": str(opened.head)})


@blueprint.get("/alerts")
@allow("person")
def alerts():
    """What raises an alert and when, for the page's script; and which messages still wait to alert, and since when."""
    now, user_preferences = clock.now(), users.get_preferences(current_identity().id)
    held_until = user_preferences.get_quiet_end(now)
    waiting = choose_alerts(current_identity().actor.viewer, user_preferences, now=now)
    return jsonify(
        user_preferences.to_json()
        | {
            "mandatory": SETTINGS.current.mandatory_categories,
            "quiet": [
                [clock.to_rfc3339(start), clock.to_rfc3339(end)]
                for start, end in user_preferences.get_quiet_periods(now)
            ],
            "heldUntil": clock.to_rfc3339(held_until),
            "waiting": [alert.id for alert in waiting],
            "since": {str(alert.id): clock.to_rfc3339(alert.raised_at) for alert in waiting},
        }
    )


@blueprint.get("/<int:broadcast_id>")
@allow("person")
def message(broadcast_id: int):
    viewer, now = current_identity().actor.viewer, clock.now()
    item = Inbox(viewer, now).find(broadcast_id) or EndedInbox(viewer, now).find(broadcast_id)
    card = to_card_view(or_404(item, "This message was recalled, or it is not addressed to you."))
    return render_page("inbox/message.html", card=card, cursor=str(log.get_head()), done=request.args.get("done"))


def choose_alerts(viewer: Viewer, user_preferences: Preferences, *, now: datetime) -> list[Alert]:
    """The alerts that a newly opened page raises, in order."""
    waiting = open_inbox(viewer, now=now).list_alerts(limit=_MAX_WAITING_ALERTS)
    return select_alerts(waiting, user_preferences, mandatory=SETTINGS.current.mandatory_categories)


def counts_to_json(counts: ViewCounts) -> dict:
    views = {"inbox": counts.inbox, "unread": counts.unread, "archived": counts.archived, "snoozed": counts.snoozed}
    return {"unread": counts.unread, "asOf": counts.as_of, "version": counts.version, "counts": views}


def read_filters(values) -> InboxFilters:
    """Filters from a query or form; unknown values are ignored, as a link from elsewhere may carry them."""
    return InboxFilters(
        view=read_known(values, "view", stored.VIEWS, "inbox"),
        category=read_text(values, "category", 40),
        priority=read_text(values, "priority", 16),
        q=read_text(values, "q", 200),
    )


def record_deliveries(items: list[stored.InboxItem], user_id: int) -> None:
    """Record deliveries: a page that shows a message has delivered it, as a stream does. Ended messages are skipped, and
    those with a receipt, which implies delivery.
    """
    buffer = RECEIPT_BUFFER.current
    for item in items:
        if not (item.has_receipt or item.ended_at):
            buffer.add(item.card.id, [user_id])


def build_list_context(filters: InboxFilters | None = None) -> dict:
    """The template context of one page of the list: the first, or the one after `?after=`."""
    identity, now = current_identity(), clock.now()
    viewer = identity.actor.viewer
    filters = filters or read_filters(request.args)
    opened = open_inbox(viewer, now=now)
    counts = opened.count_views()
    g.unread = UnreadCount(counts.unread, counts.as_of, counts.version)
    before = parse_number(request.args.get("after")) or None
    pinned = []
    if filters.view in ("inbox", "unread"):
        pinned = opened.list_to_acknowledge(filters, limit=_MAX_PINNED)
    pinned_ids = [item.card.id for item in pinned]
    if filters.view == "ended":
        items = EndedInbox(viewer, now).list_page(filters, before=before, limit=PAGE_SIZE + 1)
    else:
        items = opened.list_page(filters, before=before, limit=PAGE_SIZE + 1, excluded_ids=pinned_ids)
    displayed, has_more = items[:PAGE_SIZE], len(items) > PAGE_SIZE
    record_deliveries(displayed if before else pinned + displayed, identity.id)
    return {
        "pinned": pinned,
        "cards": displayed,
        "next": str(displayed[-1].seq) if has_more else None,
        "view": filters.view,
        "filters": filters,
        "categories": EndedInbox(viewer, now).list_categories()
        if filters.view == "ended"
        else opened.list_categories(),
        "counts": counts,
        "ended": EndedInbox(viewer, now).count(),
        "to_mark": opened.count_unread_filtered(filters) if filters.is_narrowed else counts.unread,
        "newest": max((item.seq for item in pinned + displayed), default=0),
        "cursor": str(opened.head),
        "done": request.args.get("done"),
    }


def to_query_args(filters: InboxFilters) -> dict[str, str]:
    """The filters as query arguments, without empty ones."""
    view = "" if filters.view == "inbox" else filters.view
    query = {"view": view, "category": filters.category, "priority": filters.priority, "q": filters.q}
    return {name: value for name, value in query.items() if value}
