"""Fragments of the compose page that scripts load: card, reach, review, users, pasted lists, diff."""

from dataclasses import replace
from datetime import datetime

from flask import Blueprint, request

from broadcast.actions.audiences import resolve_audience
from broadcast.actions.broadcast_rows import build_draft_columns, fill_columns
from broadcast.base.errors import Invalid
from broadcast.content import markdown
from broadcast.domain import clock, csv_reader
from broadcast.domain.message import Draft, Link, parse_draft
from broadcast.domain.permissions import Permission
from broadcast.store import users
from broadcast.store.fast.broadcast_row import NewBroadcast
from broadcast.web.console.broadcasts import compose, compose_form, live_edit, recipient_import
from broadcast.web.console.broadcasts import review as reviewing
from broadcast.web.core.identity import allow, current_identity
from broadcast.web.core.lookup import get_broadcast_or_404
from broadcast.web.core.rendering import CardView, format_people_count, render_page
from broadcast.web.core.request_parsing import read_text

blueprint = Blueprint("parts", __name__)
blueprint.url_value_preprocessor(compose.raise_body_limit)

_MAX_USERS_OFFERED = 8  # in one search


@blueprint.post("/preview")
@allow(Permission.WRITE)
def preview():
    """The card of an unfinished form: missing fields stay empty, invalid ones are reported."""
    now, form = clock.now(), request.form
    title, content = form.get("title", "").strip(), form.get("content", "")
    if not title and not content.strip():
        return _render_preview(None, error="The card appears here while you write.")
    raw = {name: form.get(name) or None for name in ("priority", "category")} | {"targetType": "ALL"}
    try:
        draft = parse_draft(raw | {"title": title or "…", "content": content.strip() or "…"}, now=now)
        card = _build_preview_card(draft, markdown.render(draft.content), now)
    except Invalid as invalid:
        return _render_preview(None, error=str(invalid))
    return _render_preview(card, seen_by=_preview_as_user())


def _render_preview(card: CardView | None, *, error: str | None = None, seen_by: dict | None = None) -> str:
    return render_page("console/broadcasts/_preview.html", card=card, error=error, seen_by=seen_by)


@blueprint.post("/audience")
@allow(Permission.WRITE)
def audience():
    form = request.form
    reach = reviewing.count_reach(form)
    sentence = f"{format_people_count(reach.people)} will get this"
    if not reach.people:
        sentence = "There is nobody in this audience now. Choose another audience."
    return render_page(
        "console/broadcasts/_audience.html",
        reach=None if reach.error else reach.people,
        online=reach.online,
        of_muted=reach.muted_note,
        sentence=sentence,
        error=reach.error or None,
        scheduled=form.get("when") == "later",
        asked=_preview_as_user(),
    )


@blueprint.post("/review")
@allow(Permission.WRITE)
def review():
    form, review = compose_form.collect_values(request.form), reviewing.build_review(request.form)
    return render_page("console/broadcasts/_review.html", review=review, form=form, errors={})


@blueprint.get("/people-found")
@allow(Permission.WRITE)
def search_users():
    """Enabled users whose name or username contains the query."""
    q = read_text(request.args, "pick", 64)
    fetched = users.search(q, limit=_MAX_USERS_OFFERED + 1) if q else []
    offered, has_more = fetched[:_MAX_USERS_OFFERED], len(fetched) > _MAX_USERS_OFFERED
    return render_page("console/broadcasts/_user_search.html", found=offered, more=has_more, q=q)


@blueprint.post("/names")
@allow(Permission.WRITE)
def check_names():
    upload, report, error = request.files.get("file"), recipient_import.ImportReport(), None
    try:
        text = csv_reader.decode_table(upload.read())[0] if upload else request.form.get("list", "")
        report = recipient_import.check_recipients(text)
    except Invalid as invalid:
        error = str(invalid)
    shown = recipient_import.MAX_BAD_ROWS_SHOWN
    return render_page("console/broadcasts/_recipient_import.html", report=report, shown=shown, error=error)


@blueprint.post("/broadcasts/<int:broadcast_id>/difference")
@allow(Permission.WRITE)
def difference(broadcast_id: int):
    """The changes that the posted form would make to a live broadcast."""
    changed = live_edit.diff_posted_form(get_broadcast_or_404(broadcast_id))
    return render_page("console/broadcasts/_difference.html", changed=changed)


def _preview_as_user() -> dict | None:
    """What the user named in `asWhom` would receive, and why; None when nobody is named."""
    name = request.form.get("asWhom", "").strip()[:64]
    if not name:
        return None
    user = users.find(name)
    if user is None:
        return {"name": name, "included": None, "because": "no user has this username"}
    try:
        verdict = resolve_audience(compose_form.read_audience(request.form)).explain(user.as_viewer)
    except Invalid as invalid:
        return {"name": user.name, "included": None, "because": str(invalid).rstrip(".").lower()}
    return {"name": user.name, "included": verdict.included, "because": verdict.because}


def _build_preview_card(draft: Draft, html: str, now: datetime) -> CardView:
    form, row = request.form, NewBroadcast(**build_draft_columns(current_identity().actor, now))
    fill_columns(row, draft, now, html=html)
    row.id, row.audience_kind, row.published_at, row.requires_ack = 0, "everyone", now, bool(form.get("requiresAck"))
    links = tuple(Link(form[f"label{n}"][:40], "#") for n in (1, 2) if form.get(f"label{n}", "").strip())
    return CardView(replace(row.to_card(), actions=links, why="Sent to its audience"), seq=0, is_read=False)
