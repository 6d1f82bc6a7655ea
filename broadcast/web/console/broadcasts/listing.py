"""The list of broadcasts: tabs, filters, order and page in the address; the same as CSV; acts on several at once."""

import csv
from collections.abc import Callable, Iterable, Iterator
from io import StringIO
from typing import Any

from flask import Blueprint, Flask, Response, current_app, flash, redirect, request, url_for

from broadcast.actions import broadcasts as actions
from broadcast.actions import copies
from broadcast.base.errors import BroadcastError, Busy, Invalid
from broadcast.domain import clock
from broadcast.domain.message import Priority
from broadcast.domain.permissions import Permission
from broadcast.store import broadcast_query
from broadcast.store.broadcast_query import Look
from broadcast.web.console import viewer_stats
from broadcast.web.console.broadcasts.list_rows import Row, rows
from broadcast.web.core.identity import allow, me
from broadcast.web.core.rendering import page, thousands
from broadcast.web.core.request_parsing import choice

blueprint = Blueprint("listing", __name__)

_COLUMNS = (
    "id", "title", "status", "priority", "category", "audience", "author", "created", "sent", "ends", "reach", "read",
    "would reach", "no longer here",
)  # fmt: skip
_CHUNK = 200  # rows of a file read at once
MOST_CSV = 10_000  # rows of one file; a last row says so when there are more
MOST_AT_ONCE = 100  # broadcasts of one bulk act: a page
_DONE = {"cancel": "recalled", "archive": "archived", "delete": "deleted"}


@blueprint.get("/broadcasts")
@allow(Permission.SEE)
def listing():
    look = _look()
    counts = broadcast_query.counts(look)
    pages = max(1, -(-counts[look.tab] // look.size))
    values = {
        "rows": rows(broadcast_query.page(look)),
        "look": look,
        "pages": pages,
        "counts": counts,
        "query": _query(look),
    }
    if request.args.get("part") == "rows":
        return page("console/broadcasts/_rows.html", **values)
    return page(
        "console/broadcasts/list.html",
        categories=broadcast_query.categories(),
        authors=broadcast_query.authors(),
        **_choices(),
        **values,
    )


@blueprint.get("/broadcasts.csv")
@allow(Permission.SEE)
def download():
    """What the list shows, all pages of it, for a spreadsheet."""
    look = _look()
    ids, total = broadcast_query.ids(look, most=MOST_CSV), broadcast_query.counts(look)[look.tab]
    name = f"broadcasts-{look.tab}-{clock.now():%Y-%m-%d}.csv"
    app: Flask = current_app._get_current_object()
    response = Response(_table(app, ids, total, viewer_stats.shows_persons()), mimetype="text/csv")
    response.headers["Content-Disposition"] = f'attachment; filename="{name}"'
    return response


def _table(app: Flask, ids: list[int], total: int, per_person: bool) -> Iterator[str]:
    """The lines of the file, some rows at a time; runs after the request is over, so it must not ask who is there."""
    yield "\ufeff" + _lines([_COLUMNS])
    for start in range(0, len(ids), _CHUNK):
        with app.app_context():
            found = rows(broadcast_query.some(ids[start : start + _CHUNK]), per_person=per_person)
            yield _lines(map(_cell, _values(row)) for row in found)
    if total > len(ids):
        yield _lines([["", f"and {total - len(ids)} more: narrow the filter"]])


def _lines(table: Iterable[Iterable[Any]]) -> str:
    out = StringIO()
    csv.writer(out).writerows(table)
    return out.getvalue()


@blueprint.post("/broadcasts/several")
@allow(Permission.WRITE)
def several():
    """Recall, archive or delete what is ticked: each by itself, and what was refused is told."""
    act, ids = choice("act", _DONE, ""), [int(n) for n in request.form.getlist("ids") if _is_number(n)]
    if not ids or len(ids) > MOST_AT_ONCE:
        flash("Tick what is meant first, then press what is to be done.")
        return _back()
    done, refused = _do_each(_act(act), ids)
    words = f"{thousands(done)} {_DONE[act]}."
    if refused:
        words += f" {thousands(len(refused))} left as {'it was' if len(refused) == 1 else 'they were'}: {refused[0]}"
    flash(words)
    return _back()


def _act(name: str) -> Callable[[int], None]:
    by, now = me().actor, clock.now()
    match name:
        case "cancel":
            reason = request.form.get("reason", "")
            return lambda broadcast_id: actions.cancel(broadcast_id, reason=reason, by=by, now=now)
        case "archive":
            return lambda broadcast_id: copies.archive(broadcast_id, by=by, now=now)
    return lambda broadcast_id: copies.discard(broadcast_id, by=by, now=now)


def _do_each(act: Callable[[int], None], ids: list[int]) -> tuple[int, list[str]]:
    """How many were done, and a sentence for each that was refused. Raises Busy: what was done until then stays done."""
    done, refused = 0, []
    for broadcast_id in ids:
        try:
            act(broadcast_id)
            done += 1
        except Busy:
            raise
        except Invalid as invalid:
            return done, [str(invalid)] * (len(ids) - done)
        except BroadcastError as problem:
            refused.append(str(problem))
    return done, refused


def _back() -> Response:
    kept = {
        name: request.form[name]
        for name in ("filter", "q", "category", "author", "priority", "sort", "page", "size")
        if request.form.get(name)
    }
    return redirect(url_for("console.listing.listing", **kept), 303)


def _look() -> Look:
    """What the address asks for; what is not known is ignored, as a link from elsewhere may carry it."""
    args = request.args
    tab, sort, size = args.get("filter", "all"), args.get("sort", "newest"), args.get("size", "")
    priority, author = args.get("priority", ""), args.get("author", "")
    number = int(args["page"]) if _is_number(args.get("page", "")) and len(args["page"]) < 7 else 1
    return Look(
        tab=tab if tab in broadcast_query.TABS else "all",
        q=_text("q", 200),
        category=_text("category", 40),
        author=int(author) if _is_number(author) else None,
        priority=priority if priority in set(Priority) else "",
        sort=sort if sort in broadcast_query.SORTS else "newest",
        number=max(1, number),
        size=int(size) if size in map(str, broadcast_query.SIZES) else broadcast_query.SIZES[0],
    )


def _query(look: Look) -> dict[str, Any]:
    """The look as an address says it, without what is usual."""
    named = {
        "filter": look.tab if look.tab != "all" else "",
        "q": look.q,
        "category": look.category,
        "author": look.author,
        "priority": look.priority,
        "sort": look.sort if look.sort != "newest" else "",
        "size": look.size if look.size != broadcast_query.SIZES[0] else "",
        "page": look.number if look.number > 1 else "",
    }
    return {name: value for name, value in named.items() if value}


def _choices() -> dict[str, Any]:
    sorts = [
        ("newest", "Newest"),
        ("oldest", "Oldest"),
        ("title", "Title"),
        ("start", "Sent or due"),
        ("due", "Due first"),
        ("end", "Ends first"),
        ("reach", "Largest reach"),
    ]
    return {"sorts": sorts, "sizes": broadcast_query.SIZES, "priorities": [priority.value for priority in Priority]}


def _values(row: Row) -> list[Any]:
    times = (row.created_at, row.published_at or row.scheduled_at, row.ends_at)
    told = [clock.to_wire(moment) or "" for moment in times]
    head = [row.id, row.title, row.status, row.priority, row.category or "", row.audience, row.sender_name]
    figures = row.figures
    if not figures.is_sent:
        return [*head, *told, "", "", figures.would_reach, ""]
    read = "" if figures.read is None else figures.read if figures.is_exact else f"{figures.read} or more"
    return [*head, *told, figures.targeted, read, "", figures.gone]


def _cell(value: Any) -> Any:
    """A spreadsheet must not take what somebody wrote for a formula."""
    return f"'{value}" if isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t", "\r") else value


def _text(name: str, most: int) -> str:
    return request.args.get(name, "").strip()[:most].replace("\0", "")


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) < 19
