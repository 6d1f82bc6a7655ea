"""How a broadcast lands: the curve, by role, who is missing, reminding them, and everything as CSV.

Totals are for everybody in the console; who has read what only for those with that permission, and to nobody where the system
is set to tell totals only.
"""

from typing import Any

from flask import Blueprint, flash, get_flashed_messages, jsonify, redirect, request, url_for

from broadcast.actions import reminders
from broadcast.base.errors import Forbidden, Invalid, NotFound
from broadcast.domain import clock
from broadcast.domain.permissions import Permission
from broadcast.store import acknowledged_revisions as revisions
from broadcast.store import broadcast_stats, broadcast_totals, broadcasts
from broadcast.store.broadcast_stats import Acknowledgement, Delivery
from broadcast.store.fast.count_cache import COUNT_CACHE
from broadcast.store.models import Broadcast
from broadcast.web.console import viewer_stats
from broadcast.web.console.read_chart import Curve
from broadcast.web.core.csv_download import signed_csv
from broadcast.web.core.identity import allow, me
from broadcast.web.core.rendering import in_people, is_htmx, page

blueprint = Blueprint("figures", __name__)

PAGE = 50
SHOWS = ("missing", "done", "gone")  # which people the page of figures lists
_CHUNK = 1000  # rows of one read of an export
_MOST = 200  # people in one answer of the API
_DEEPEST = 1_000_000


@blueprint.get("/console/broadcasts/<int:broadcast_id>/figures")
@allow(Permission.SEE)
def show(broadcast_id: int):
    values = _told(_found(broadcast_id))
    if is_htmx() and values["broadcast"].receipts_deleted_at:
        return page("console/analytics/_deleted.html", **values)
    if is_htmx():
        return page("console/analytics/_stats.html", **values)
    return page(
        "console/analytics/page.html", **values, **_people(_found(broadcast_id)), notices=get_flashed_messages()
    )


@blueprint.get("/console/broadcasts/<int:broadcast_id>/missing")
@allow(Permission.FIGURES)
def missing(broadcast_id: int):
    """Who is missing, or those of `?show=`, a page after `?after=`; also by itself, for those without JavaScript."""
    _refuse_names()
    broadcast = _found(broadcast_id)
    values = _people(broadcast)
    if is_htmx():
        return page("console/analytics/_recipient_rows.html", broadcast=broadcast, **values)
    return page("console/analytics/page.html", **_told(broadcast), **values, notices=[])


@blueprint.post("/console/broadcasts/<int:broadcast_id>/remind")
@allow(Permission.WRITE)
def remind(broadcast_id: int):
    count = _remind(broadcast_id)
    flash("Whoever was missing has been reminded." if count is None else f"Reminded {in_people(count)}.")
    return redirect(url_for("figures.show", broadcast_id=broadcast_id), 303)


@blueprint.post("/api/admin/broadcasts/<int:broadcast_id>/remind")
@allow(Permission.WRITE)
def remind_by_program(broadcast_id: int):
    return jsonify(reminded=_remind(broadcast_id))


def _remind(broadcast_id: int) -> int | None:
    per_person = viewer_stats.shows_persons()
    return reminders.remind(broadcast_id, by=me().actor, now=clock.now(), per_person=per_person)


@blueprint.get("/console/broadcasts/<int:broadcast_id>/figures.csv")
@allow(Permission.FIGURES)
def export(broadcast_id: int):
    return _csv(_found(broadcast_id))


@blueprint.get("/api/admin/broadcasts/<int:broadcast_id>/deliveries")
@allow(Permission.FIGURES)
def deliveries(broadcast_id: int):
    """Person by person: `?sort=read` or `-read`, `?after=&limit=`; `?format=csv` gives everybody, signed."""
    broadcast = _found(broadcast_id)
    if request.args.get("format") == "csv":
        return _csv(broadcast)
    _refuse_names()
    _refuse_deleted(broadcast)
    sort = request.args.get("sort", "user")
    if sort.removeprefix("-") not in broadcast_stats.SORTS:
        raise Invalid({"sort": f"Sort by one of {', '.join(broadcast_stats.SORTS)}; with - before it, downwards."})
    offset, limit = _number("after", 0, _DEEPEST), _number("limit", 30, _MOST, least=1)
    if broadcast.seq is None:  # nobody was targeted
        return jsonify(items=[], next=None)
    rows = broadcast_stats.deliveries(
        broadcast, sort=sort.removeprefix("-"), descending=sort.startswith("-"), offset=offset, limit=limit + 1
    )
    return jsonify(
        items=[_delivery(row) for row in rows[:limit]], next=str(offset + limit) if len(rows) > limit else None
    )


@blueprint.get("/api/admin/broadcasts/<int:broadcast_id>/revisions")
@allow(Permission.FIGURES)
def acknowledged_revisions(broadcast_id: int):
    """The texts that somebody acknowledged, the newest first, with the hashes that stand in the receipts."""
    _refuse_names()  # that anybody has acknowledged a text may tell of one person
    broadcast = _found(broadcast_id)
    texts = [
        {"revision": row.revision, "hash": row.hash, "title": row.title, "content": row.content, "actions": row.actions}
        for row in revisions.acknowledged(broadcast.id, limit=_MOST)
    ]
    return jsonify(ackRevision=broadcast.ack_revision, items=texts)


@blueprint.get("/console/broadcasts/<int:broadcast_id>/acknowledged/<int:revision>")
@allow(Permission.FIGURES)
def acknowledged_text(broadcast_id: int, revision: int):
    """What a revision said that people acknowledged."""
    _refuse_names()
    broadcast, text = _found(broadcast_id), revisions.text(broadcast_id, revision)
    if text is None or not text.is_acknowledged:
        raise NotFound("The text of this revision is not kept: nobody acknowledged it.")
    return page("console/analytics/text.html", broadcast=broadcast, text=text)


def _delivery(row: Delivery) -> dict[str, Any]:
    given = row.acknowledged
    return {
        "userId": row.user_id,
        "username": row.username,
        "name": row.name,
        "deliveredAt": clock.to_wire(row.delivered_at),
        "seenAt": clock.to_wire(row.seen_at),
        "readAt": clock.to_wire(row.read_at),
        "acknowledgedAt": clock.to_wire(row.acknowledged_at),
        "acknowledgedRevision": given and given.revision,
        "acknowledgedHash": given and given.hash,
        "earlierAcknowledgements": [
            {"at": clock.to_wire(one.at), "revision": one.revision, "hash": one.hash} for one in row.earlier
        ],
        "noLongerHere": _why_gone(row),
    }


def _why_gone(row: Delivery) -> str | None:
    if row.is_here:
        return None
    return "account disabled" if row.is_disabled else "no longer in the audience"


def _csv(broadcast: Broadcast):
    _refuse_names()
    _refuse_deleted(broadcast)
    broadcast_id = broadcast.id

    def read(after: int | None):
        broadcast = broadcasts.by_id(broadcast_id)
        if broadcast is None or broadcast.seq is None:  # nobody was targeted
            return [], None
        rows = broadcast_stats.deliveries(broadcast, after=after or 0, limit=_CHUNK)
        return [_cells(row) for row in rows], rows[-1].user_id if len(rows) == _CHUNK else None

    header = ("user id", "username", "name", "delivered at", "seen at", "read at", "acknowledged at")
    header += ("acknowledged revision", "acknowledged text SHA-256", "earlier acknowledgements", "no longer here")
    return signed_csv(f"broadcast-{broadcast_id}-{clock.now():%Y-%m-%d}.csv", header, read)


def _cells(row: Delivery) -> list[Any]:
    given = row.acknowledged
    which = [given.revision, given.hash] if given else [None, None]
    moments = [row.delivered_at, row.seen_at, row.read_at, row.acknowledged_at]
    return [
        row.user_id,
        row.username,
        row.name,
        *moments,
        *which,
        "; ".join(map(_in_words, row.earlier)),
        _why_gone(row),
    ]


def _in_words(one: Acknowledgement) -> str:
    revision = "an unknown revision" if one.revision is None else f"revision {one.revision}"
    return f"{revision} at {clock.to_wire(one.at)}" + (f" ({one.hash})" if one.hash else "")


def _told(broadcast: Broadcast) -> dict[str, Any]:
    """The curve, the roles and the acknowledgements. What took long to count is up to some seconds old.

    By role only where figures of persons may be seen: the whole less all roles but one tells of those in it, and somebody
    with two roles of what they share, however large each is.
    """
    counted = COUNT_CACHE.current
    now, id = clock.now(), broadcast.id
    shows = viewer_stats.shows_persons()
    told = viewer_stats.of_one(broadcast)
    values = {"broadcast": broadcast, "figures": told, "pace": None, "curve": None, "roles": [], "of_revisions": []}
    values |= {"shows_names": shows, "next_reminder_at": None}
    if broadcast.seq is None or broadcast.receipts_deleted_at:
        return values
    pace = counted.get(("pace", id), lambda: broadcast_stats.pace(broadcast, now=broadcast.ended_at or now))
    pace = viewer_stats.of_pace(pace, told)
    next_at = reminders.next_at(broadcast)
    values |= {
        "pace": pace,
        "curve": pace and Curve(pace, told.targeted),
        "next_reminder_at": next_at if next_at and next_at > now else None,
    }
    if shows:
        whole = broadcast_totals.totals([broadcast])[id]
        values["roles"] = counted.get(("roles", id), lambda: broadcast_stats.by_role(broadcast, whole))
        if broadcast.requires_ack or told.acknowledged:
            values["of_revisions"] = counted.get(("revisions", id), lambda: broadcast_stats.by_revision(broadcast))
    return values


def _people(broadcast: Broadcast) -> dict[str, Any]:
    """A page of the people of `?show=`: who is missing, has done it, or is no longer here."""
    show = request.args.get("show", "missing")
    show = show if show in SHOWS else "missing"
    if broadcast.seq is None or broadcast.receipts_deleted_at or not viewer_stats.shows_persons():
        return {"people": [], "next": None, "show": show}
    found, last = _missing(broadcast) if show == "missing" else _listed(broadcast, show)
    return {"people": found, "next": last, "show": show}


def _missing(broadcast: Broadcast) -> tuple[list[broadcast_stats.Missing], str | None]:
    stage, _, user_id = request.args.get("after", "").partition("-")
    digits = stage.isascii() and stage.isdigit() and user_id.isascii() and user_id.isdigit() and len(user_id) < 19
    after = (min(int(stage[:2]), len(broadcast_stats.STAGES)), int(user_id)) if digits else (0, 0)
    counted = COUNT_CACHE.current
    key = ("missing page", broadcast.id, after)
    found = counted.get(key, lambda: broadcast_stats.missing(broadcast, after=after, limit=PAGE + 1))
    last = found[PAGE - 1] if len(found) > PAGE else None
    return found[:PAGE], last and f"{broadcast_stats.STAGES.index(last.stage)}-{last.user_id}"


def _listed(broadcast: Broadcast, show: str) -> tuple[list[Delivery], str | None]:
    text = request.args.get("after", "")
    after = int(text) if text.isascii() and text.isdigit() and len(text) < 19 else 0
    counted = COUNT_CACHE.current
    key = (f"{show} page", broadcast.id, after)
    found = counted.get(key, lambda: broadcast_stats.deliveries(broadcast, after=after, limit=PAGE + 1, only=show))
    return found[:PAGE], str(found[PAGE - 1].user_id) if len(found) > PAGE else None


def _refuse_names() -> None:
    if not viewer_stats.tells_persons():
        raise Forbidden("This system tells how many have read a broadcast, and not who.")


def _refuse_deleted(broadcast: Broadcast) -> None:
    if broadcast.receipts_deleted_at:
        raise NotFound("The receipts of this broadcast were deleted: this system keeps them for a time only.")


def _found(broadcast_id: int) -> Broadcast:
    broadcast = broadcasts.by_id(broadcast_id)
    if broadcast is None:
        raise NotFound("There is no such broadcast.")
    return broadcast


def _number(name: str, default: int, most: int, *, least: int = 0) -> int:
    text = request.args.get(name, str(default))
    if not (text.isascii() and text.isdigit() and len(text) < 10 and least <= int(text) <= most):
        raise Invalid({name: f"{name} is a number from {least} to {most:,}."})
    return int(text)
