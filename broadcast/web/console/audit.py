"""The audit log: who did what, with filters, as a page and as CSV. `flask audit verify` checks its integrity."""

import json
from datetime import UTC, datetime, timedelta

from flask import Blueprint, request

from broadcast.base.numbers import parse_number
from broadcast.domain.permissions import Permission
from broadcast.store import audit
from broadcast.store.audit import AuditFilters
from broadcast.web.core.csv_download import stream_csv
from broadcast.web.core.identity import allow
from broadcast.web.core.rendering import is_htmx, render_page
from broadcast.web.core.request_parsing import read_text

blueprint = Blueprint("audit", __name__, url_prefix="/console/audit")

PAGE_SIZE = 50
_CHUNK_ROWS = 500  # rows per read of an export
_TEXT_FILTERS = {"who": "who", "what": "what", "objectType": "object_type", "objectId": "object_id"}


@blueprint.get("")
@allow(Permission.AUDIT)
def listing():
    filters, typed = _read_filters()
    before = request.args.get("before", "")
    fetched = audit.list_page(filters, before=parse_number(before), limit=PAGE_SIZE + 1)
    values = {
        "rows": fetched[:PAGE_SIZE],
        "next": fetched[PAGE_SIZE - 1].id if len(fetched) > PAGE_SIZE else None,
        "typed": typed,
    }
    if is_htmx() and before:
        return render_page("console/audit/_rows.html", **values)
    return render_page("console/audit/page.html", object_types=audit.list_object_types(), **values)


@blueprint.get("/csv")
@allow(Permission.AUDIT)
def export():
    """All rows that match the filters, newest first."""
    filters, _ = _read_filters()

    def read_chunk(before):
        rows = audit.list_page(filters, before=before, limit=_CHUNK_ROWS)
        cells = [
            (r.id, r.at, r.actor_id, r.actor_name, r.action, r.object_type, r.object_id, json.dumps(r.detail), r.hash)
            for r in rows
        ]
        return cells, rows[-1].id if len(rows) == _CHUNK_ROWS else None

    header = ("id", "at", "actor id", "actor", "action", "object type", "object id", "detail", "hash")
    return stream_csv("audit", header, read_chunk)


def _read_filters() -> tuple[AuditFilters, dict[str, str]]:
    """The filters, and how they were typed. Days are UTC; an invalid day is ignored."""
    typed = {name: read_text(request.args, name, 100) for name in (*_TEXT_FILTERS, "since", "until")}
    since, until = _parse_day(typed["since"]), _parse_day(typed["until"])
    texts = {field: typed[name] for name, field in _TEXT_FILTERS.items()}
    return AuditFilters(**texts, since=since, until=until and until + timedelta(days=1)), typed


def _parse_day(text: str) -> datetime | None:
    try:
        day = datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=UTC)
    except ValueError:
        return None
    return day if 2000 <= day.year < 3000 else None
