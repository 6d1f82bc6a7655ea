"""The broadcast list: its rows; tabs, filters, order and page in the URL; CSV export; bulk actions."""

from collections.abc import Callable
from functools import partial
from typing import Any

from flask import Blueprint, Response, request

from broadcast.actions import broadcasts as actions
from broadcast.base.errors import BroadcastError, Invalid, TemporarilyUnavailable
from broadcast.base.numbers import parse_number
from broadcast.domain import clock
from broadcast.domain.message import Priority
from broadcast.domain.overdue_schedules import DecisionReason
from broadcast.domain.permissions import Permission
from broadcast.domain.stats import BroadcastStats
from broadcast.store import broadcasts
from broadcast.store.broadcasts import BroadcastQuery
from broadcast.store.models import Broadcast
from broadcast.web.console import viewer_stats
from broadcast.web.core.csv_download import stream_csv
from broadcast.web.core.identity import allow, current_identity
from broadcast.web.core.rendering import format_number, format_people_count, redirect_to, render_page
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
_FIELDS_BY_ARGUMENT = {  # of the URL
    "filter": "tab", "q": "q", "category": "category", "author": "author", "priority": "priority", "sort": "sort",
    "size": "size", "page": "number",
}  # fmt: skip
_PAST_TENSES = {"cancel": "recalled", "archive": "archived", "delete": "deleted"}


class BroadcastListItem:
    """A broadcast, with what a row of the list says about it. Its other attributes are those of the broadcast.

    `quarantine_reason` is set while it is in quarantine, `waiting_reason` while a scheduled broadcast waits.
    """

    def __init__(self, broadcast: Broadcast, audience: str, stats: BroadcastStats):
        self._broadcast, self.audience, self.stats = broadcast, audience, stats
        self.is_from_source = broadcast.source is not None
        self.ends_at = broadcast.ended_at or broadcast.expires_at
        self.quarantine_reason = broadcast.quarantine_reason if broadcast.is_quarantined else None
        decision_reason = broadcast.decision_reason
        self.waiting_reason = DecisionReason(decision_reason).sentence if decision_reason else None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._broadcast, name)


@blueprint.get("/broadcasts")
@allow(Permission.SEE)
def listing():
    list_query = _read_query()
    counts = broadcasts.count_by_tab(list_query)
    pages = max(1, -(-counts[list_query.tab] // list_query.size))
    values = {
        "rows": load_list_items(broadcasts.list_matching(list_query)),
        "look": list_query,
        "pages": pages,
        "counts": counts,
        "query": _to_query_args(list_query),
    }
    if request.args.get("part") == "rows":
        return render_page("console/broadcasts/_rows.html", **values)
    return render_page(
        "console/broadcasts/list.html",
        categories=broadcasts.list_categories(),
        authors=broadcasts.list_authors(),
        sorts=_SORT_LABELS.items(),
        sizes=broadcasts.PAGE_SIZES,
        priorities=list(Priority),
        **values,
    )


@blueprint.get("/broadcasts.csv")
@allow(Permission.SEE)
def download():
    list_query = _read_query()
    ids = broadcasts.list_matching_ids(list_query, limit=MAX_CSV_ROWS)
    omitted = broadcasts.count_by_tab(list_query)[list_query.tab] - len(ids)
    per_recipient = viewer_stats.may_see_per_recipient_stats()

    def read_chunk(position: int | None):
        start = position or 0
        end = start + _CHUNK_ROWS
        chunk = load_list_items(broadcasts.list_by_ids(ids[start:end]), per_recipient=per_recipient)
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
    cancel = partial(actions.cancel, reason=request.form.get("reason", ""))
    action = {"cancel": cancel, "archive": actions.archive, "delete": actions.discard_draft}[action_name]
    done, refused = _apply_to_each(partial(action, by=current_identity().actor, now=clock.now()), ids)
    notice = f"{format_number(done)} {_PAST_TENSES[action_name]}."
    if refused:
        what = "it was" if len(refused) == 1 else "they were"
        notice += f" {format_number(len(refused))} left as {what}: {refused[0]}"
    return _redirect_to_list(notice)


def _apply_to_each(action: Callable[[int], None], ids: list[int]) -> tuple[int, list[str]]:
    """The number of successes, and a sentence for each refusal. After TemporarilyUnavailable, earlier ones stay done."""
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
    query_args = {name: request.form[name] for name in _FIELDS_BY_ARGUMENT if request.form.get(name)}
    return redirect_to("console.listing.listing", notice, **query_args)


def _read_query() -> BroadcastQuery:
    """The query of the URL; unknown values are ignored."""
    args, sizes = request.args, [str(size) for size in broadcasts.PAGE_SIZES]
    return BroadcastQuery(
        tab=read_known(args, "filter", broadcasts.TABS, "all"),
        q=read_text(args, "q", 200),
        category=read_text(args, "category", 40),
        author=parse_number(args.get("author")),
        priority=read_known(args, "priority", set(Priority), ""),
        sort=read_known(args, "sort", broadcasts.SORTS, "newest"),
        number=parse_number(args.get("page"), max_digits=6) or 1,
        size=int(read_known(args, "size", sizes, sizes[0])),
    )


def _to_query_args(list_query: BroadcastQuery) -> dict[str, Any]:
    """The query as URL arguments, without defaults."""
    default = BroadcastQuery()
    return {
        argument: getattr(list_query, name)
        for argument, name in _FIELDS_BY_ARGUMENT.items()
        if getattr(list_query, name) != getattr(default, name)
    }


def _to_csv_row(item: BroadcastListItem) -> list[Any]:
    cells = [item.id, item.title, item.status, item.priority, item.category, item.audience, item.sender_name]
    cells += [item.created_at, item.published_at or item.scheduled_at, item.ends_at]
    stats = item.stats
    if not stats.is_sent:
        return [*cells, None, None, stats.would_reach, None]
    read = stats.read if stats.is_exact or stats.read is None else f"{stats.read} or more"
    return [*cells, stats.targeted, read, None, stats.gone]


def load_list_items(
    listed_broadcasts: list[Broadcast], *, per_recipient: bool | None = None
) -> list[BroadcastListItem]:
    """The rows of these broadcasts; `per_recipient` as in `viewer_stats.load_stats`."""
    chosen_counts = broadcasts.count_selected_users([b.id for b in listed_broadcasts if b.audience_kind == "users"])
    stats_by_id = viewer_stats.load_stats(listed_broadcasts, per_recipient=per_recipient)
    return [
        BroadcastListItem(row, _describe_audience(row, chosen_counts.get(row.id, 0)), stats_by_id[row.id])
        for row in listed_broadcasts
    ]


def _describe_audience(broadcast: Broadcast, chosen_count: int) -> str:
    exclusion_suffix = ", with exclusions" if broadcast.has_exceptions else ""
    match broadcast.audience_kind:
        case "everyone":
            return f"Everyone{exclusion_suffix}"
        case "roles":
            role_names = broadcast.role_names
            joined = (" + " if broadcast.match_all else ", ").join(role_names)
            return f"Role{'s' if len(role_names) > 1 else ''}: {joined}{exclusion_suffix}"
    if broadcast.receipts_deleted_at:  # some chosen users may be deleted as well
        chosen_count = broadcast.audience_count or 0
    if not chosen_count:
        return "Not chosen yet"
    return format_people_count(chosen_count) + exclusion_suffix
