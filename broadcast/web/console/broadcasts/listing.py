"""The broadcast list: tabs, filters, order and page in the URL; CSV export; bulk actions."""

from collections.abc import Callable
from functools import partial
from typing import Any

from flask import Blueprint, Response, request

from broadcast.actions import broadcasts as actions
from broadcast.base.errors import BroadcastError, Invalid, TemporarilyUnavailable
from broadcast.base.numbers import parse_number
from broadcast.domain import clock
from broadcast.domain.message import Priority
from broadcast.domain.permissions import Permission
from broadcast.store import broadcast_query
from broadcast.store.broadcast_query import BroadcastQuery
from broadcast.web.console import viewer_stats
from broadcast.web.console.broadcasts.list_rows import BroadcastListItem, load_list_items
from broadcast.web.core.csv_download import stream_csv
from broadcast.web.core.identity import allow, current_identity
from broadcast.web.core.rendering import format_number, redirect_to, render_page
from broadcast.web.core.request_parsing import parse_ids, read_choice, read_known, read_text

blueprint = Blueprint("listing", __name__)

_COLUMNS = (
    "id", "title", "status", "priority", "category", "audience", "author", "created", "sent", "ends", "reach", "read",
    "would reach", "no longer here",
)  # fmt: skip
_CHUNK_ROWS = 200  # rows per read of an export
MAX_CSV_ROWS = 10_000  # rows of one file; a last row says when there are more
MAX_BULK_BROADCASTS = 100  # broadcasts of one bulk action: a page
_SORT_LABELS = {
    "newest": "Newest", "oldest": "Oldest", "title": "Title", "start": "Send time", "due": "Due soonest",
    "end": "Ends soonest", "reach": "Largest reach",
}  # fmt: skip
_PAST_TENSES = {"cancel": "recalled", "archive": "archived", "delete": "deleted"}


@blueprint.get("/broadcasts")
@allow(Permission.SEE)
def listing():
    list_query = _read_query()
    counts = broadcast_query.count_by_tab(list_query)
    pages = max(1, -(-counts[list_query.tab] // list_query.size))
    values = {
        "rows": load_list_items(broadcast_query.list_page(list_query)),
        "look": list_query,
        "pages": pages,
        "counts": counts,
        "query": _to_query_args(list_query),
    }
    if request.args.get("part") == "rows":
        return render_page("console/broadcasts/_rows.html", **values)
    return render_page(
        "console/broadcasts/list.html",
        categories=broadcast_query.list_categories(),
        authors=broadcast_query.list_authors(),
        **_build_filter_choices(),
        **values,
    )


@blueprint.get("/broadcasts.csv")
@allow(Permission.SEE)
def download():
    """All pages of the list as CSV."""
    list_query = _read_query()
    ids = broadcast_query.list_ids(list_query, limit=MAX_CSV_ROWS)
    omitted = broadcast_query.count_by_tab(list_query)[list_query.tab] - len(ids)
    per_recipient = viewer_stats.may_see_per_recipient_stats()

    def read_chunk(position: int | None):
        start = position or 0
        end = start + _CHUNK_ROWS
        chunk = load_list_items(broadcast_query.list_by_ids(ids[start:end]), per_recipient=per_recipient)
        rows = [_to_csv_row(item) for item in chunk]
        if end < len(ids):
            return rows, end
        return [*rows, ["", f"and {omitted} more: narrow the filter"]] if omitted > 0 else rows, None

    return stream_csv(f"broadcasts-{list_query.tab}", _COLUMNS, read_chunk, is_signed=False)


@blueprint.post("/broadcasts/several")
@allow(Permission.WRITE)
def bulk_action():
    """Recall, archive or delete the ticked broadcasts one by one; report what was refused."""
    action_name, ids = read_choice("act", _PAST_TENSES, ""), parse_ids(request.form.getlist("ids"))
    if not ids or len(ids) > MAX_BULK_BROADCASTS:
        return _redirect_to_list("Select up to 100 broadcasts, then choose an action.")
    done, refused = _apply_to_each(_make_action(action_name), ids)
    notice = f"{format_number(done)} {_PAST_TENSES[action_name]}."
    if refused:
        what = "it was" if len(refused) == 1 else "they were"
        notice += f" {format_number(len(refused))} left as {what}: {refused[0]}"
    return _redirect_to_list(notice)


def _make_action(name: str) -> Callable[[int], None]:
    by, now = current_identity().actor, clock.now()
    if name == "cancel":
        return partial(actions.cancel, reason=request.form.get("reason", ""), by=by, now=now)
    return partial(actions.archive if name == "archive" else actions.discard_draft, by=by, now=now)


def _apply_to_each(action: Callable[[int], None], ids: list[int]) -> tuple[int, list[str]]:
    """The number of successes, and a sentence for each refusal.

    Raises TemporarilyUnavailable: what was done before stays done.
    """
    done, refused = 0, []
    for broadcast_id in ids:
        try:
            action(broadcast_id)
            done += 1
        except TemporarilyUnavailable:
            raise
        except Invalid as invalid:
            return done, [str(invalid)] * (len(ids) - done)
        except BroadcastError as problem:
            refused.append(str(problem))
    return done, refused


def _redirect_to_list(notice: str) -> Response:
    query_args = {
        name: request.form[name]
        for name in ("filter", "q", "category", "author", "priority", "sort", "page", "size")
        if request.form.get(name)
    }
    return redirect_to("console.listing.listing", notice, **query_args)


def _read_query() -> BroadcastQuery:
    """The query of the URL; unknown values are ignored."""
    args, sizes = request.args, [str(size) for size in broadcast_query.PAGE_SIZES]
    return BroadcastQuery(
        tab=read_known(args, "filter", broadcast_query.TABS, "all"),
        q=read_text(args, "q", 200),
        category=read_text(args, "category", 40),
        author=parse_number(args.get("author")),
        priority=read_known(args, "priority", set(Priority), ""),
        sort=read_known(args, "sort", broadcast_query.SORTS, "newest"),
        number=parse_number(args.get("page"), max_digits=6) or 1,
        size=int(read_known(args, "size", sizes, sizes[0])),
    )


def _to_query_args(list_query: BroadcastQuery) -> dict[str, Any]:
    """The query as URL arguments, without defaults."""
    arguments = {
        "filter": list_query.tab if list_query.tab != "all" else "",
        "q": list_query.q,
        "category": list_query.category,
        "author": list_query.author,
        "priority": list_query.priority,
        "sort": list_query.sort if list_query.sort != "newest" else "",
        "size": list_query.size if list_query.size != broadcast_query.PAGE_SIZES[0] else "",
        "page": list_query.number if list_query.number > 1 else "",
    }
    return {name: value for name, value in arguments.items() if value}


def _build_filter_choices() -> dict[str, Any]:
    return {
        "sorts": _SORT_LABELS.items(),
        "sizes": broadcast_query.PAGE_SIZES,
        "priorities": [priority.value for priority in Priority],
    }


def _to_csv_row(item: BroadcastListItem) -> list[Any]:
    cells = [item.id, item.title, item.status, item.priority, item.category, item.audience, item.sender_name]
    cells += [item.created_at, item.published_at or item.scheduled_at, item.ends_at]
    stats = item.stats
    if not stats.is_sent:
        return [*cells, None, None, stats.would_reach, None]
    read = stats.read if stats.is_exact or stats.read is None else f"{stats.read} or more"
    return [*cells, stats.targeted, read, None, stats.gone]
