"""Parts of the compose page that scripts ask for while one writes: card, reach, review, people, pasted lists, difference."""

from datetime import datetime

from flask import Blueprint, request

from broadcast.actions.audiences import resolve
from broadcast.base.errors import Invalid
from broadcast.content import markdown
from broadcast.domain import clock, csv_reader
from broadcast.domain.card import Card
from broadcast.domain.message import Draft, Link, read_draft
from broadcast.domain.permissions import Permission
from broadcast.store import users
from broadcast.web.console.broadcasts import compose, compose_form, live_edit, recipient_import
from broadcast.web.console.broadcasts import review as reviewing
from broadcast.web.core.identity import allow, me
from broadcast.web.core.rendering import CardView, in_people, page

blueprint = Blueprint("parts", __name__)
blueprint.url_value_preprocessor(compose.allow_long_lists)

_FOUND = 8  # people offered while searching


@blueprint.post("/preview")
@allow(Permission.WRITE)
def preview():
    """The real card of a form that is still being written: what is missing is left empty, what is wrong is told."""
    now, form = clock.now(), request.form
    title, content = form.get("title", "").strip(), form.get("content", "")
    if not title and not content.strip():
        return page(
            "console/broadcasts/_preview.html", card=None, error="The card appears here while you write.", seen_by=None
        )
    raw = {"title": title or "…", "content": content.strip() or "…", "targetType": "ALL"}
    raw |= {"priority": form.get("priority") or None, "category": form.get("category") or None}
    try:
        draft = read_draft(raw, now=now)
        html = markdown.render(draft.content)
    except Invalid as invalid:
        return page("console/broadcasts/_preview.html", card=None, error=str(invalid), seen_by=None)
    card = _previewed(draft, html, bool(form.get("requiresAck")), now)
    return page("console/broadcasts/_preview.html", card=card, error=None, seen_by=_seen_by())


@blueprint.post("/audience")
@allow(Permission.WRITE)
def audience():
    """How many people the form reaches as it stands."""
    form = request.form
    reach = reviewing.reach(form)
    sentence = f"{in_people(reach.people)} will get this"
    if not reach.people:
        sentence = "Nobody is in this audience at present: this would reach nobody."
    return page(
        "console/broadcasts/_audience.html",
        reach=None if reach.error else reach.people,
        online=reach.online,
        of_muted=reach.of_muted,
        sentence=sentence,
        error=reach.error or None,
        scheduled=form.get("when") == "later",
        asked=_seen_by(),
    )


@blueprint.post("/review")
@allow(Permission.WRITE)
def review():
    return page(
        "console/broadcasts/_review.html",
        review=reviewing.review(request.form),
        form=compose_form.as_typed(request.form),
        errors={},
    )


@blueprint.get("/people-found")
@allow(Permission.WRITE)
def people_found():
    """Enabled people whose name or username contains what was typed."""
    q = request.args.get("pick", "").strip()[:64].replace("\0", "")
    found = users.search(q, limit=_FOUND + 1) if q else []
    return page("console/broadcasts/_user_search.html", found=found[:_FOUND], more=len(found) > _FOUND, q=q)


@blueprint.post("/names")
@allow(Permission.WRITE)
def judge_names():
    """Which rows of a pasted list or a CSV file are people, and which are not."""
    upload = request.files.get("file")
    try:
        text = csv_reader.decode(upload.read())[0] if upload else request.form.get("list", "")
    except Invalid as invalid:
        return page(
            "console/broadcasts/_recipient_import.html", report=recipient_import.Report(), shown=0, error=str(invalid)
        )
    return page(
        "console/broadcasts/_recipient_import.html",
        report=recipient_import.judge(text),
        shown=recipient_import.SHOWN,
        error=None,
    )


@blueprint.post("/broadcasts/<int:broadcast_id>/difference")
@allow(Permission.WRITE)
def difference(broadcast_id: int):
    """What the posted form of a live broadcast would change."""
    return page("console/broadcasts/_difference.html", changed=live_edit.difference_to(compose.found(broadcast_id)))


def _seen_by() -> dict | None:
    """What the person named in `asWhom` would get, and why; None when nobody is named."""
    name = request.form.get("asWhom", "").strip()[:64]
    if not name:
        return None
    person = users.find(name)
    if person is None:
        return {"name": name, "included": None, "because": "there is nobody with this username"}
    try:
        verdict = resolve(compose_form.read_audience(request.form)).judge(person.as_viewer)
    except Invalid as invalid:
        return {"name": person.name, "included": None, "because": str(invalid).rstrip(".").lower()}
    return {"name": person.name, "included": verdict.included, "because": verdict.because}


def _previewed(draft: Draft, html: str, requires_ack: bool, now: datetime) -> CardView:
    form = request.form
    links = tuple(Link(form[f"label{n}"][:40], "#") for n in (1, 2) if form.get(f"label{n}", "").strip())
    card = Card(
        id=0,
        title=draft.title,
        content=draft.content,
        content_html=html,
        priority=draft.priority.value,
        category=draft.category,
        sender_name=me().name,
        created_at=now,
        published_at=now,
        expires_at=None,
        requires_ack=requires_ack,
        ack_due_at=None,
        revision=1,
        edited_at=None,
        actions=links,
        target_type=draft.target.type.value,
        why="Sent to its audience",
    )
    return CardView(card, seq=0, is_read=False)
