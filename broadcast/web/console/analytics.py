"""Analytics of a broadcast, as `viewer_stats` discloses them: read chart, roles, missing recipients, reminders, CSV."""

from collections.abc import Callable, Hashable
from functools import partial
from typing import Any, TypeVar

from flask import Blueprint, jsonify, request

from broadcast.actions import reminders
from broadcast.base.errors import Forbidden, Invalid, NotFound
from broadcast.base.numbers import parse_number
from broadcast.domain import clock
from broadcast.domain.permissions import Permission
from broadcast.store import acknowledged_revisions as revisions
from broadcast.store import broadcast_stats, broadcast_totals, broadcasts
from broadcast.store.broadcast_stats import CURVE_OFFSETS, Acknowledgement, ReadLatency, RecipientProgress
from broadcast.store.fast.count_cache import COUNT_CACHE
from broadcast.store.models import Broadcast
from broadcast.web.console import viewer_stats
from broadcast.web.core.csv_download import stream_csv
from broadcast.web.core.identity import allow, current_identity
from broadcast.web.core.lookup import get_broadcast_or_404
from broadcast.web.core.rendering import format_people_count, is_htmx, redirect_to, render_page
from broadcast.web.core.request_parsing import read_known, read_limit, read_number

T = TypeVar("T")
blueprint = Blueprint("figures", __name__)

PAGE_SIZE = 50
RECIPIENT_LISTS = ("missing", "done", "gone")  # the recipient lists of the analytics page
_CHUNK_ROWS = 1000  # rows per read of an export
_MAX_REVISIONS = 200  # in one API response
_MAX_OFFSET = 1_000_000
_STEP_LABELS = ("1 min", "5 min", "15 min", "1 h", "4 h", "12 h", "1 day", "3 days", "7 days", "30 days")


@blueprint.get("/console/broadcasts/<int:broadcast_id>/figures")
@allow(Permission.SEE)
def show(broadcast_id: int):
    broadcast = get_broadcast_or_404(broadcast_id)
    values = _build_context(broadcast)
    if is_htmx():
        fragment = "_deleted" if broadcast.receipts_deleted_at else "_stats"
        return render_page(f"console/analytics/{fragment}.html", **values)
    return render_page("console/analytics/page.html", **values, **_build_recipients_context(broadcast))


@blueprint.get("/console/broadcasts/<int:broadcast_id>/missing")
@allow(Permission.FIGURES)
def missing(broadcast_id: int):
    """A page of the recipient list `?show=` after `?after=`; also a page of its own without JavaScript."""
    _require_per_recipient_stats()
    broadcast = get_broadcast_or_404(broadcast_id)
    values = _build_recipients_context(broadcast)
    if is_htmx():
        return render_page("console/analytics/_recipient_rows.html", broadcast=broadcast, **values)
    return render_page("console/analytics/page.html", **_build_context(broadcast), **values)


@blueprint.post("/console/broadcasts/<int:broadcast_id>/remind")
@allow(Permission.WRITE)
def remind(broadcast_id: int):
    count = _remind(broadcast_id)
    notice = "Reminder sent." if count is None else f"Reminded {format_people_count(count)}."
    return redirect_to("figures.show", notice, broadcast_id=broadcast_id)


@blueprint.post("/api/admin/broadcasts/<int:broadcast_id>/remind")
@allow(Permission.WRITE)
def remind_via_api(broadcast_id: int):
    return jsonify(reminded=_remind(broadcast_id))


def _remind(broadcast_id: int) -> int | None:
    per_recipient = viewer_stats.may_see_per_recipient_stats()
    return reminders.remind(broadcast_id, by=current_identity().actor, now=clock.now(), may_count_missing=per_recipient)


@blueprint.get("/console/broadcasts/<int:broadcast_id>/figures.csv")
@allow(Permission.FIGURES)
def export(broadcast_id: int):
    return _export_csv(get_broadcast_or_404(broadcast_id))


@blueprint.get("/api/admin/broadcasts/<int:broadcast_id>/deliveries")
@allow(Permission.FIGURES)
def deliveries(broadcast_id: int):
    """Per recipient: `?sort=read` or `-read`, `?after=&limit=`. `?format=csv` returns all, signed."""
    broadcast = get_broadcast_or_404(broadcast_id)
    if request.args.get("format") == "csv":
        return _export_csv(broadcast)
    _require_per_recipient_stats()
    _require_receipts(broadcast)
    sort = request.args.get("sort", "user")
    if sort.removeprefix("-") not in broadcast_stats.SORTS:
        names = ", ".join(broadcast_stats.SORTS)
        raise Invalid({"sort": f"Sort by one of {names}; prefix it with - for descending order."})
    offset, limit = read_number("after", 0, minimum=0, maximum=_MAX_OFFSET), read_limit()
    if broadcast.seq is None:  # it has no recipients yet
        return jsonify(items=[], next=None)
    rows = broadcast_stats.list_recipient_progress(
        broadcast, sort=sort.removeprefix("-"), descending=sort.startswith("-"), offset=offset, limit=limit + 1
    )
    items = [_delivery_to_json(row) for row in rows[:limit]]
    return jsonify(items=items, next=str(offset + limit) if len(rows) > limit else None)


@blueprint.get("/api/admin/broadcasts/<int:broadcast_id>/revisions")
@allow(Permission.FIGURES)
def acknowledged_revisions(broadcast_id: int):
    """The acknowledged revisions, newest first, with the hashes that the receipts have."""
    _require_per_recipient_stats()  # that anybody acknowledged a revision may reveal one recipient
    broadcast = get_broadcast_or_404(broadcast_id)
    texts = [
        {"revision": row.revision, "hash": row.hash, "title": row.title, "content": row.content, "actions": row.actions}
        for row in revisions.list_acknowledged(broadcast.id, limit=_MAX_REVISIONS)
    ]
    return jsonify(ackRevision=broadcast.ack_revision, items=texts)


@blueprint.get("/console/broadcasts/<int:broadcast_id>/acknowledged/<int:revision>")
@allow(Permission.FIGURES)
def acknowledged_text(broadcast_id: int, revision: int):
    _require_per_recipient_stats()
    broadcast, text = get_broadcast_or_404(broadcast_id), revisions.get_text(broadcast_id, revision)
    if text is None or not text.is_acknowledged:
        raise NotFound("The text of this revision was not kept, because nobody acknowledged it.")
    return render_page("console/analytics/text.html", broadcast=broadcast, text=text)


def _delivery_to_json(row: RecipientProgress) -> dict[str, Any]:
    acknowledgement = row.acknowledged
    return {
        "userId": row.user_id,
        "username": row.username,
        "name": row.name,
        "deliveredAt": clock.to_rfc3339(row.delivered_at),
        "seenAt": clock.to_rfc3339(row.seen_at),
        "readAt": clock.to_rfc3339(row.read_at),
        "acknowledgedAt": clock.to_rfc3339(row.acknowledged_at),
        "acknowledgedRevision": acknowledgement and acknowledgement.revision,
        "acknowledgedHash": acknowledgement and acknowledgement.hash,
        "earlierAcknowledgements": [
            {"at": clock.to_rfc3339(one.at), "revision": one.revision, "hash": one.hash} for one in row.earlier
        ],
        "noLongerHere": _get_absence_reason(row),
    }


def _get_absence_reason(row: RecipientProgress) -> str | None:
    if row.is_current_member:
        return None
    return "account disabled" if row.is_disabled else "no longer in the audience"


def _export_csv(broadcast: Broadcast):
    _require_per_recipient_stats()
    _require_receipts(broadcast)
    broadcast_id = broadcast.id

    def read_chunk(after: int | None):
        broadcast = broadcasts.get(broadcast_id)
        if broadcast is None or broadcast.seq is None:  # it has no recipients yet
            return [], None
        rows = broadcast_stats.list_recipient_progress(broadcast, after=after or 0, limit=_CHUNK_ROWS)
        return [_to_csv_row(row) for row in rows], rows[-1].user_id if len(rows) == _CHUNK_ROWS else None

    header = ("user id", "username", "name", "delivered at", "seen at", "read at", "acknowledged at")
    header += ("acknowledged revision", "acknowledged text SHA-256", "earlier acknowledgements", "no longer here")
    return stream_csv(f"broadcast-{broadcast_id}", header, read_chunk)


def _to_csv_row(row: RecipientProgress) -> list[Any]:
    acknowledged_text = [row.acknowledged.revision, row.acknowledged.hash] if row.acknowledged else [None, None]
    cells = [row.user_id, row.username, row.name, row.delivered_at, row.seen_at, row.read_at, row.acknowledged_at]
    earlier = "; ".join(map(_describe_acknowledgement, row.earlier))
    return [*cells, *acknowledged_text, earlier, _get_absence_reason(row)]


def _describe_acknowledgement(acknowledgement: Acknowledgement) -> str:
    revision = "an unknown revision" if acknowledgement.revision is None else f"revision {acknowledgement.revision}"
    hash_suffix = f" ({acknowledgement.hash})" if acknowledgement.hash else ""
    return f"{revision} at {clock.to_rfc3339(acknowledgement.at)}{hash_suffix}"


def _build_context(broadcast: Broadcast) -> dict[str, Any]:
    """The read chart, roles and acknowledgements. Expensive counts are up to some seconds old.

    Roles are shown only where per-recipient figures may be seen: the total minus all other roles reveals the recipients
    in one role, and users with two roles reveal the overlap, however large each role is.
    """
    now, is_counted = clock.now(), _is_counted(broadcast)
    shows_recipients = viewer_stats.may_see_per_recipient_stats()
    stats = viewer_stats.load_broadcast_stats(broadcast)
    pace = roles = of_revisions = next_reminder_at = None
    if is_counted:
        pace = _get_cached(broadcast, "pace", broadcast_stats.measure_read_latency, now=broadcast.ended_at or now)
        pace = viewer_stats.disclose_pace(pace, stats)
        next_reminder_at = reminders.get_next_reminder_at(broadcast)
    if is_counted and shows_recipients:
        totals = broadcast_totals.count_totals([broadcast])[broadcast.id]
        roles = _get_cached(broadcast, "roles", broadcast_stats.count_by_role, totals)
        if broadcast.requires_ack or stats.acknowledged:
            of_revisions = _get_cached(broadcast, "revisions", broadcast_stats.count_by_revision)
    return {
        "broadcast": broadcast,
        "figures": stats,
        "pace": pace,
        "curve": pace and ReadChart(pace, stats.targeted),
        "roles": roles or [],
        "of_revisions": of_revisions or [],
        "shows_names": shows_recipients,
        "next_reminder_at": next_reminder_at if next_reminder_at and next_reminder_at > now else None,
    }


def _is_counted(broadcast: Broadcast) -> bool:
    """Whether it was sent and its receipts are kept."""
    return broadcast.seq is not None and not broadcast.receipts_deleted_at


def _get_cached(broadcast: Broadcast, name: Hashable, count: Callable[..., T], *args: Any, **options: Any) -> T:
    """The result of `count(broadcast, …)`, counted again every few seconds."""
    return COUNT_CACHE.current.get((name, broadcast.id), lambda: count(broadcast, *args, **options))


def _build_recipients_context(broadcast: Broadcast) -> dict[str, Any]:
    """A page of the recipient list `?show=`: missing, done, or gone."""
    list_name = read_known(request.args, "show", RECIPIENT_LISTS, "missing")
    if not _is_counted(broadcast) or not viewer_stats.may_see_per_recipient_stats():
        return {"people": [], "next": None, "show": list_name}
    is_missing = list_name == "missing"
    recipients, cursor = _list_missing(broadcast) if is_missing else _list_recipients(broadcast, list_name)
    return {"people": recipients, "next": cursor, "show": list_name}


def _list_missing(broadcast: Broadcast) -> tuple[list[broadcast_stats.MissingRecipient], str | None]:
    stage_text, _, id_text = request.args.get("after", "").partition("-")
    stage, user_id = parse_number(stage_text, max_digits=2), parse_number(id_text)
    if stage is None or user_id is None:
        stage = user_id = 0
    after = min(stage, len(broadcast_stats.STAGES)), user_id
    fetched = _get_cached(broadcast, ("missing", after), broadcast_stats.list_missing, after=after, limit=PAGE_SIZE + 1)
    last = fetched[PAGE_SIZE - 1] if len(fetched) > PAGE_SIZE else None
    return fetched[:PAGE_SIZE], last and f"{broadcast_stats.STAGES.index(last.stage)}-{last.user_id}"


def _list_recipients(broadcast: Broadcast, list_name: str) -> tuple[list[RecipientProgress], str | None]:
    after = parse_number(request.args.get("after")) or 0
    list_page = partial(broadcast_stats.list_recipient_progress, subset=list_name)
    fetched = _get_cached(broadcast, (list_name, after), list_page, after=after, limit=PAGE_SIZE + 1)
    return fetched[:PAGE_SIZE], str(fetched[PAGE_SIZE - 1].user_id) if len(fetched) > PAGE_SIZE else None


def _require_per_recipient_stats() -> None:
    if not viewer_stats.has_per_recipient_stats():
        raise Forbidden("This system shows how many people have read a broadcast, but not who.")


def _require_receipts(broadcast: Broadcast) -> None:
    if broadcast.receipts_deleted_at:
        raise NotFound("The receipts of this broadcast were deleted at the end of their retention period.")


class ReadChart:
    """Rendered by `_read_chart.html`. The time axis has equal steps: one per label that has passed, one for now."""

    width, height = 600, 160
    left, right, top, bottom = 62, 586, 14, 130  # the plot; around it are the labels of the axes

    def __init__(self, pace: ReadLatency, targeted: int):
        labels = [*_STEP_LABELS[: len(pace.read) - 1], "now"]
        assert len(_STEP_LABELS) == len(CURVE_OFFSETS)
        self.max_count = max(targeted, 1)
        step = (self.right - self.left) / len(labels)
        xs = [round(self.left + step * n, 1) for n in range(1, len(labels) + 1)]
        self.ticks = list(zip(xs, labels, pace.delivered, pace.read, strict=True))
        self.delivered = self._build_points(pace.delivered)
        self.read = self._build_points(pace.read)

    def _build_points(self, counts: list[int]) -> str:
        """`x,y x,y …`, starting with zero at the moment of sending."""
        points = [(self.left, 0), *((x, count) for (x, *_), count in zip(self.ticks, counts, strict=True))]
        return " ".join(f"{x:g},{self.to_y(count):g}" for x, count in points)

    def to_y(self, count: float) -> float:
        return round(self.top + (self.bottom - self.top) * (1 - min(1.0, count / self.max_count)), 1)
