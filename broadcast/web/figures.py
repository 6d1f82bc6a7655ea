"""How a broadcast lands: the curve, by role, who is missing, reminding them, and everything as CSV.

Totals are for everybody in the console; who has read what only for those with that permission, and to nobody where the system
is set to tell totals only.
"""

from typing import Any

from flask import Blueprint, current_app, flash, get_flashed_messages, jsonify, redirect, request, url_for

from broadcast.actions import reminders
from broadcast.counted import Counted
from broadcast.domain import clock
from broadcast.domain.permissions import Permission
from broadcast.errors import Forbidden, Invalid, NotFound
from broadcast.store import broadcasts, figures
from broadcast.store.models import Broadcast
from broadcast.web.curve import Curve
from broadcast.web.exports import signed_csv
from broadcast.web.identity import allow, me
from broadcast.web.render import in_people, is_htmx, page

blueprint = Blueprint("figures", __name__)

PAGE = 50
SMALL_ROLE = 5  # people; a smaller role's figures would tell of persons
_CHUNK = 1000  # rows of one read of an export
_MOST = 200  # people in one answer of the API
_DEEPEST = 1_000_000


@blueprint.get("/console/broadcasts/<int:broadcast_id>/figures")
@allow(Permission.SEE)
def show(broadcast_id: int):
    values = _told(_found(broadcast_id))
    if is_htmx():
        return page("console/figures/_figures.html", **values)
    return page("console/figures/page.html", **values, **_missing(_found(broadcast_id)), notices=get_flashed_messages())


@blueprint.get("/console/broadcasts/<int:broadcast_id>/missing")
@allow(Permission.FIGURES)
def missing(broadcast_id: int):
    """Who is missing, a page after `?after=`; also by itself, for those without JavaScript."""
    _refuse_names()
    broadcast = _found(broadcast_id)
    values = _missing(broadcast)
    if is_htmx():
        return page("console/figures/_missing_rows.html", broadcast=broadcast, **values)
    return page("console/figures/page.html", **_told(broadcast), **values, notices=[])


@blueprint.post("/console/broadcasts/<int:broadcast_id>/remind")
@allow(Permission.WRITE)
def remind(broadcast_id: int):
    count = reminders.remind(broadcast_id, by=me().actor, now=clock.now())
    flash(f"Reminded {in_people(count)}.")
    return redirect(url_for("figures.show", broadcast_id=broadcast_id), 303)


@blueprint.post("/api/admin/broadcasts/<int:broadcast_id>/remind")
@allow(Permission.WRITE)
def remind_by_program(broadcast_id: int):
    return jsonify(reminded=reminders.remind(broadcast_id, by=me().actor, now=clock.now()))


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
    sort = request.args.get("sort", "user")
    if sort.removeprefix("-") not in figures.SORTS:
        raise Invalid({"sort": f"Sort by one of {', '.join(figures.SORTS)}; with - before it, downwards."})
    offset, limit = _number("after", 0, _DEEPEST), _number("limit", 30, _MOST, least=1)
    rows = figures.deliveries(
        broadcast, sort=sort.removeprefix("-"), descending=sort.startswith("-"), offset=offset, limit=limit + 1
    )
    return jsonify(
        items=[_delivery(row) for row in rows[:limit]], next=str(offset + limit) if len(rows) > limit else None
    )


def _delivery(row: Any) -> dict[str, Any]:
    user_id, username, name, *moments = row
    names = ("deliveredAt", "seenAt", "readAt", "acknowledgedAt")
    told = dict(zip(names, map(clock.to_wire, moments), strict=True))
    return {"userId": user_id, "username": username, "name": name} | told


def _csv(broadcast: Broadcast):
    _refuse_names()
    broadcast_id = broadcast.id

    def read(after: int | None):
        rows = figures.deliveries(broadcasts.by_id(broadcast_id), after=after or 0, limit=_CHUNK)
        return rows, rows[-1][0] if len(rows) == _CHUNK else None

    header = ("user id", "username", "name", "delivered at", "seen at", "read at", "acknowledged at")
    return signed_csv(f"broadcast-{broadcast_id}-{clock.now():%Y-%m-%d}.csv", header, read)


def _told(broadcast: Broadcast) -> dict[str, Any]:
    """The curve, the roles and the acknowledgements. What took long to count is up to some seconds old."""
    counted: Counted = current_app.extensions["counted"]
    now, id = clock.now(), broadcast.id
    stats = broadcasts.stats([broadcast])[id]
    values = {"broadcast": broadcast, "stats": stats, "pace": None, "curve": None, "roles": [], "missing_count": 0}
    values |= {"shows_names": _shows_names(), "next_reminder_at": None}
    if broadcast.seq is None:
        return values
    pace = counted.get(("pace", id), lambda: figures.pace(broadcast, now=broadcast.ended_at or now))
    roles = counted.get(("roles", id), lambda: figures.by_role(broadcast))
    next_at = reminders.next_at(broadcast)
    return values | {
        "pace": pace,
        "curve": Curve(pace, stats.targeted),
        "roles": [role for role in roles if _tells_names() or role.people >= SMALL_ROLE],
        "missing_count": counted.get(("missing", id), lambda: figures.missing_count(broadcast)),
        "next_reminder_at": next_at if next_at and next_at > now else None,
    }


def _missing(broadcast: Broadcast) -> dict[str, Any]:
    if broadcast.seq is None or not _shows_names():
        return {"missing": [], "next": None}
    stage, _, user_id = request.args.get("after", "").partition("-")
    digits = stage.isascii() and stage.isdigit() and user_id.isascii() and user_id.isdigit() and len(user_id) < 19
    after = (min(int(stage[:2]), len(figures.STAGES)), int(user_id)) if digits else (0, 0)
    counted: Counted = current_app.extensions["counted"]
    key = ("missing page", broadcast.id, after)
    found = counted.get(key, lambda: figures.missing(broadcast, after=after, limit=PAGE + 1))
    shown = found[:PAGE]
    last = shown[-1] if len(found) > PAGE else None
    return {"missing": shown, "next": last and f"{figures.STAGES.index(last.stage)}-{last.user_id}"}


def _tells_names() -> bool:
    return current_app.extensions["settings"].figures_per_person


def _shows_names() -> bool:
    return _tells_names() and me().actor.may(Permission.FIGURES)


def _refuse_names() -> None:
    if not _tells_names():
        raise Forbidden("This system tells how many have read a broadcast, and not who.")


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
