"""Composing: one form in four steps, kept as it is typed, reviewed, and sent.

Every button of the form posts the whole form and says in `do` what is meant: save, review, test or send. So it works the same
by plain forms; scripts only ask for parts of the page earlier.
"""

import secrets
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from flask import Blueprint, jsonify, redirect, request, url_for
from werkzeug.wrappers import Response

from broadcast.actions import audiences as audience_actions
from broadcast.actions import broadcasts as actions
from broadcast.actions import edits
from broadcast.base.errors import Conflict, Invalid, NotFound, Outdated
from broadcast.config.settings import SETTINGS
from broadcast.domain import clock, lifecycle
from broadcast.domain.lifecycle import Status
from broadcast.domain.message import Draft, Priority, Target, TargetType
from broadcast.domain.permissions import Permission
from broadcast.domain.visible_text import is_blank
from broadcast.store import audiences, broadcasts, users
from broadcast.store.models import Broadcast
from broadcast.web.console.broadcasts import compose_form, live_edit
from broadcast.web.console.broadcasts import review as reviewing
from broadcast.web.core.identity import allow, me
from broadcast.web.core.rendering import page
from broadcast.web.core.request_parsing import choice
from broadcast.web.core.resumable_forms import Resumed, pause_if_resumed, resumable

blueprint = Blueprint("compose", __name__)

CATEGORIES = ["Incident", "Maintenance", "News", "Policy", "Sales"]
_MOST_BYTES = 4 * 1024 * 1024
_TEST_HOURS = 1


@blueprint.url_value_preprocessor
def allow_long_lists(endpoint: str | None, values: dict | None) -> None:
    """Before anything reads the body: 50,000 names are more than other requests may carry."""
    request.max_content_length = request.max_form_memory_size = _MOST_BYTES


@blueprint.get("/broadcasts/new")
@allow(Permission.WRITE)
def compose():
    form, saved_id = compose_form.empty(), request.args.get("audience", "")
    if saved_id.isascii() and saved_id.isdigit() and len(saved_id) < 19:
        saved = audiences.saved_by_id(int(saved_id))
        form |= with_audience(saved.target) if saved else {}
    return draw(form, {})


@blueprint.post("/broadcasts")
@resumable
@allow(Permission.WRITE)
def create():
    return _act(None)


@blueprint.get("/broadcasts/<int:broadcast_id>/edit")
@allow(Permission.WRITE)
def edit(broadcast_id: int):
    broadcast = found(broadcast_id)
    lifecycle.after(broadcast.status, "edited")
    if broadcast.is_live:
        return live_edit.draw(broadcast, stored_form(broadcast), {})
    return draw(stored_form(broadcast), {}, broadcast=broadcast)


@blueprint.post("/broadcasts/<int:broadcast_id>/edit")
@resumable
@allow(Permission.WRITE)
def save(broadcast_id: int):
    broadcast = found(broadcast_id)
    try:
        if "live" in request.form:
            return live_edit.save(broadcast)
        return _act(broadcast)
    except Outdated:
        return _conflict(found(broadcast_id)), 409


@blueprint.post("/drafts")
@allow(Permission.WRITE)
def autosave():
    """Keep the form as it is, in the background; the answer says where, and which version it is now."""
    try:
        saved = _save_draft(_number(request.form.get("broadcastId")))
    except Conflict as conflict:
        return jsonify(problem=str(conflict)), 409
    except Invalid as invalid:
        return jsonify(problem=str(invalid)), invalid.status
    edit_url = url_for("console.compose.edit", broadcast_id=saved.id)
    return jsonify(id=saved.id, version=saved.version, edit=edit_url)


def _act(broadcast: Broadcast | None) -> Any:
    """Do what the pressed button means. Raises Outdated."""
    broadcast_id = broadcast.id if broadcast else None
    try:
        pause_if_resumed()
        match choice("do", ("send", "save", "review", "keep", "test"), "send"):
            case "save":
                saved = _save_draft(broadcast_id)
                return redirect(url_for("console.compose.edit", broadcast_id=saved.id, saved=""), 303)
            case "review":
                return draw(
                    compose_form.as_typed(request.form), {}, broadcast=broadcast, review=reviewing.review(request.form)
                )
            case "keep":
                note = _keep_audience()
                return draw(compose_form.as_typed(request.form), {}, broadcast=broadcast, note=note)
            case "test":
                _send_test()
                return draw(compose_form.as_typed(request.form), {}, broadcast=broadcast, tested=True)
        return _send(broadcast_id)
    except Resumed:
        return draw(compose_form.as_typed(request.form), {}, broadcast=broadcast)
    except Invalid as invalid:
        errors = compose_form.on_form(invalid, request.form).fields
        review = reviewing.review(request.form)
        return draw(compose_form.as_typed(request.form), errors, broadcast=broadcast, review=review), invalid.status


def _send(broadcast_id: int | None) -> Response:
    form, now, by = request.form, clock.now(), me().actor
    draft = _with_sign_out(compose_form.read(form, now=now), broadcast_id)
    key = form.get("idempotencyKey", "").replace("\0", "")[:200] or None
    earlier = actions.earlier_with(by, key, draft) if key else None
    if earlier is None:
        confirmed = reviewing.given(form)
        hold_seconds = SETTINGS.current.undo_seconds
        if broadcast_id is None:
            earlier = actions.publish(draft, by=by, now=now, key=key, hold_seconds=hold_seconds, confirmed=confirmed)
        else:
            version = form.get("version", "")
            earlier = edits.send(
                broadcast_id,
                draft,
                version=version,
                by=by,
                now=now,
                key=key,
                hold_seconds=hold_seconds,
                confirmed=confirmed,
            )
    return redirect(url_for("console.one.show", broadcast_id=earlier.id), 303)


def _save_draft(broadcast_id: int | None) -> edits.Saved:
    form, now = request.form, clock.now()
    version, typed = form.get("version", "") if broadcast_id else None, compose_form.as_typed(form)
    compose_form.check_fits(typed)
    return edits.save_draft(
        typed, _finished(form, now, broadcast_id), broadcast_id=broadcast_id, version=version, by=me().actor, now=now
    )


def _finished(form: Any, now: datetime, broadcast_id: int | None) -> Draft | None:
    """What the form says when all of it is in order."""
    try:
        draft = _with_sign_out(compose_form.read(form, now=now), broadcast_id)
        actions.resolve(draft.target)
    except Invalid:
        return None
    return draft


def _with_sign_out(draft: Draft, broadcast_id: int | None) -> Draft:
    """Keep that a stored broadcast signs its people out, which the form cannot say. Raises Invalid for others than people."""
    broadcast = broadcasts.by_id(broadcast_id) if broadcast_id else None
    if broadcast is None or not broadcast.close_sessions:
        return draft
    if not draft.target.is_plain_people:
        raise Invalid({"targetType": "It signs people out when it is sent: choose them by name, without exceptions."})
    return replace(draft, close_sessions=True)


def _keep_audience() -> str:
    """Keep the chosen audience under a name; return what to say. Raises Invalid."""
    name = request.form.get("audienceName", "")
    try:
        audience_actions.save(name, compose_form.audience_fields(request.form), by=me().actor, now=clock.now())
    except Conflict as conflict:
        raise Invalid({"audienceName": str(conflict)}) from None
    except Invalid as invalid:
        raise Invalid(
            {"audienceName" if field == "name" else field: says for field, says in invalid.fields.items()}
        ) from None
    return f"The audience is kept as “{' '.join(name.split())}”."


def _send_test() -> None:
    """Send the words to oneself alone, for an hour, marked as a test. Raises Invalid."""
    now, by = clock.now(), me().actor
    words = request.form.copy()
    words.setlist("targetType", ["ALL"])
    words["when"] = "now"
    if not is_blank(words.get("title", "")):
        words["title"] = f"Test: {words['title']}"[:200]
    for name in ("exceptRoles", "exceptPeople", "expiresAt", "draft", "targetMatch", "snapshot"):
        words.pop(name, None)
    draft = compose_form.read(words, now=now)
    to_me = Target(TargetType.SELECTED, (by.user_id,))
    test = replace(draft, target=to_me, expires_at=now + timedelta(hours=_TEST_HOURS), scheduled_at=None)
    actions.publish(test, by=by, now=now, test=True)


def draw(
    form: dict[str, Any],
    errors: dict[str, str],
    *,
    broadcast: Broadcast | None = None,
    review: reviewing.Review | None = None,
    tested: bool = False,
    note: str = "",
) -> str:
    """The whole page, filled in. `broadcast` is the draft or plan that the form belongs to."""
    counted = [{"name": name, "people": count} for name, count in users.people_by_role().items()]
    return page(
        "console/broadcasts/compose.html",
        form=form,
        utc=compose_form.utc_of(form),
        twice=compose_form.twice_of(form),
        errors=errors,
        roles=counted,
        priorities=[priority.value for priority in Priority],
        categories=CATEGORIES,
        nonce_key=request.form.get("idempotencyKey") or secrets.token_urlsafe(16),
        broadcast=broadcast,
        version=request.form.get("version") or (broadcast.version if broadcast else ""),
        is_draft=broadcast is None or broadcast.status == Status.DRAFT,
        saved_audiences=audiences.saved(),
        review=review,
        tested=tested,
        note=note,
        undo_seconds=SETTINGS.current.undo_seconds,
    )


def stored_form(broadcast: Broadcast) -> dict[str, Any]:
    """The form of what is stored: as it was typed, or as the broadcast says."""
    if broadcast.typed is not None:
        return compose_form.from_typed(broadcast.typed)
    fields = edits.as_fields(broadcast)
    ids = [n for n in (*fields["targetIds"], *fields["exceptIds"]) if isinstance(n, int)]
    return compose_form.from_fields(fields, users.usernames(ids))


def with_audience(target: dict[str, Any]) -> dict[str, Any]:
    """The part of the form that a named audience fills in."""
    by_role = target["targetType"] == "ROLE"
    ids = target.get("targetIds", [])
    return {
        "targetType": target["targetType"],
        "targetMatch": target.get("targetMatch", "ANY"),
        "roles": ids if by_role else [],
        "people": "" if by_role else "\n".join(map(str, ids)),
        "exceptRoles": target.get("exceptRoles", []),
        "exceptPeople": "\n".join(map(str, target.get("exceptIds", []))),
        "snapshot": bool(target.get("snapshot")),
    }


def found(broadcast_id: int) -> Broadcast:
    broadcast = broadcasts.by_id(broadcast_id)
    if broadcast is None:
        raise NotFound("There is no such broadcast.")
    return broadcast


def _conflict(broadcast: Broadcast) -> str:
    """Both texts, side by side, and what may be done: nothing was saved over anything."""
    theirs, mine = stored_form(broadcast), compose_form.as_typed(request.form)
    if "live" in request.form:
        mine = live_edit.as_shown(theirs, mine)
    return page(
        "console/broadcasts/conflict.html",
        broadcast=broadcast,
        texts=reviewing.both(theirs, mine),
        mine=compose_form.to_multi(mine),
        is_live="live" in request.form,
        may_edit=lifecycle.may(broadcast.status, "edited") and broadcast.is_live == ("live" in request.form),
        who=broadcasts.timeline(broadcast.id)[-1:],
    )


def _number(text: str | None) -> int | None:
    return int(text) if text and text.isascii() and text.isdigit() and len(text) < 19 else None
