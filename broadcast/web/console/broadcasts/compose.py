"""The compose page: one form in four steps, with drafts saved as typed, a review, and sending.

Every button posts the whole form, with its action in `do`: save, review, test or send. So it works with plain forms;
scripts only load parts of the page earlier.
"""

import secrets
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from flask import Blueprint, jsonify, request, url_for
from werkzeug.wrappers import Response

from broadcast.actions import broadcasts as actions
from broadcast.actions import edits, library
from broadcast.base.errors import Conflict, Invalid, VersionConflict
from broadcast.base.numbers import parse_number
from broadcast.config.settings import SETTINGS
from broadcast.domain import clock, lifecycle
from broadcast.domain.lifecycle import Status
from broadcast.domain.message import Draft, Target, TargetType, parse_draft
from broadcast.domain.permissions import Permission
from broadcast.domain.visible_text import is_blank
from broadcast.store import audiences, broadcasts, escalation_policies, users
from broadcast.store.models import Broadcast
from broadcast.web.console.broadcasts import compose_form, live_edit
from broadcast.web.console.broadcasts import review as reviewing
from broadcast.web.core.identity import allow, current_identity
from broadcast.web.core.lookup import get_broadcast_or_404
from broadcast.web.core.rendering import redirect_to, render_page
from broadcast.web.core.request_parsing import read_choice, to_form_errors
from broadcast.web.core.resumable_forms import FormResumed, raise_if_resumed

blueprint = Blueprint("compose", __name__)

CATEGORIES = ["Incident", "Maintenance", "News", "Policy", "Sales"]
_MAX_BODY_BYTES = 4 * 1024 * 1024
_TEST_HOURS = 1


@blueprint.url_value_preprocessor
def raise_body_limit(endpoint: str | None, values: dict | None) -> None:
    """Raise the limit before anything reads the body: 50,000 usernames exceed the usual one."""
    request.max_content_length = request.max_form_memory_size = _MAX_BODY_BYTES


@blueprint.get("/broadcasts/new")
@allow(Permission.WRITE)
def compose():
    form, audience_id = compose_form.build_empty_form(), parse_number(request.args.get("audience"))
    if audience_id is not None and (saved_audience := audiences.get_saved(audience_id)):
        form |= compose_form.from_target(saved_audience.target)
    return render_form(form)


@blueprint.post("/broadcasts")
@allow(Permission.WRITE, is_resumable=True)
def create():
    return _handle_action(None)


@blueprint.get("/broadcasts/<int:broadcast_id>/edit")
@allow(Permission.WRITE)
def edit(broadcast_id: int):
    broadcast = get_broadcast_or_404(broadcast_id)
    lifecycle.transition(broadcast.status, "edited")
    if broadcast.is_live:
        return live_edit.render_form(broadcast, load_form(broadcast), {})
    return render_form(load_form(broadcast), broadcast=broadcast)


@blueprint.post("/broadcasts/<int:broadcast_id>/edit")
@allow(Permission.WRITE, is_resumable=True)
def save(broadcast_id: int):
    broadcast = get_broadcast_or_404(broadcast_id)
    try:
        if "live" in request.form:
            return live_edit.save(broadcast)
        return _handle_action(broadcast)
    except VersionConflict:
        return _render_conflict(get_broadcast_or_404(broadcast_id)), 409


@blueprint.post("/drafts")
@allow(Permission.WRITE)
def autosave():
    """Save the form as a draft in the background. The response has its address and version."""
    try:
        saved = _save_draft(parse_number(request.form.get("broadcastId")))
    except (Conflict, Invalid) as problem:
        return jsonify(problem=str(problem)), problem.status
    edit_url = url_for("console.compose.edit", broadcast_id=saved.id)
    return jsonify(id=saved.id, version=saved.version, edit=edit_url)


def _handle_action(broadcast: Broadcast | None) -> Any:
    """Run the action of the pressed button. Raises VersionConflict."""
    broadcast_id = broadcast.id if broadcast else None
    render_typed = partial(render_form, compose_form.collect_values(request.form), broadcast=broadcast)
    try:
        raise_if_resumed()
        match read_choice("do", ("send", "save", "review", "keep", "test"), "send"):
            case "save":
                saved = _save_draft(broadcast_id)
                return redirect_to("console.compose.edit", broadcast_id=saved.id, saved="")
            case "review":
                return render_typed(review=reviewing.build_review(request.form))
            case "keep":
                return render_typed(notice=_save_audience())
            case "test":
                _send_test()
                return render_typed(is_test_sent=True)
        return _send_broadcast(broadcast_id)
    except FormResumed:
        return render_typed()
    except Invalid as invalid:
        errors = compose_form.map_to_form_fields(invalid, request.form).fields
        return render_typed(errors, review=reviewing.build_review(request.form)), invalid.status


def _send_broadcast(broadcast_id: int | None) -> Response:
    form, now, actor = request.form, clock.now(), current_identity().actor
    idempotency_key = form.get("idempotencyKey", "").replace("\0", "")[:200] or None
    sent = actions.publish(
        _parse_draft(broadcast_id, now),
        broadcast_id=broadcast_id,
        version=form.get("version", "") if broadcast_id else None,
        by=actor,
        now=now,
        idempotency_key=idempotency_key,
        undo_seconds=SETTINGS.current.undo_seconds,
        confirmed=reviewing.read_confirmation(form),
    )
    return redirect_to("console.one.show", broadcast_id=sent.id)


def _save_draft(broadcast_id: int | None) -> edits.SavedDraft:
    form, now, by = request.form, clock.now(), current_identity().actor
    version, typed = form.get("version", "") if broadcast_id else None, compose_form.collect_values(form)
    compose_form.check_lengths(typed)
    try:
        draft = _parse_draft(broadcast_id, now)
    except Invalid:
        draft = None  # saved as typed all the same
    return edits.save_draft(typed, draft, broadcast_id=broadcast_id, version=version, by=by, now=now)


def _parse_draft(broadcast_id: int | None, now: datetime) -> Draft:
    """The posted form, with `close_sessions` of the stored broadcast, which the form lacks. Raises Invalid."""
    draft = compose_form.parse_form(request.form, now=now)
    broadcast = broadcasts.get(broadcast_id) if broadcast_id else None
    if broadcast is None or not broadcast.close_sessions:
        return draft
    if not draft.target.is_users_only:
        raise Invalid({"targetType": "This broadcast signs people out. Choose them by name, without exclusions."})
    return replace(draft, close_sessions=True)


def _save_audience() -> str:
    """Save the chosen audience under a name; return the notice. Raises Invalid."""
    name, fields = request.form.get("audienceName", ""), compose_form.collect_audience_fields(request.form)
    try:
        library.save_audience(name, fields, by=current_identity().actor, now=clock.now())
    except (Invalid, Conflict) as problem:
        errors = to_form_errors(problem, "audienceName")
        raise Invalid({"audienceName" if name == "name" else name: says for name, says in errors.items()}) from None
    return f"Audience saved as “{' '.join(name.split())}”."


def _send_test() -> None:
    """Send the message to the sender alone, for an hour, marked as a test. Raises Invalid."""
    now, actor = clock.now(), current_identity().actor
    form = request.form.copy()
    form.pop("expiresAt", None)  # it ends in an hour
    fields = compose_form.read_content(form) | {"targetType": "ALL"}
    if not is_blank(fields["title"]):
        fields["title"] = f"Test: {fields['title']}"[:200]
    own_target = Target(TargetType.SELECTED, (actor.user_id,))
    test = replace(parse_draft(fields, now=now), target=own_target, expires_at=now + timedelta(hours=_TEST_HOURS))
    actions.publish(test, by=actor, now=now, is_test=True)


def render_form(
    form: dict[str, Any],
    errors: dict[str, str] | None = None,
    *,
    broadcast: Broadcast | None = None,
    review: reviewing.Review | None = None,
    is_test_sent: bool = False,
    notice: str = "",
) -> str:
    """The whole page, filled in. `broadcast` is the draft or scheduled broadcast that is edited."""
    return render_page(
        "console/broadcasts/compose.html",
        **compose_form.build_form_context(form, errors or {}),
        roles=users.count_users_by_role(),
        categories=CATEGORIES,
        nonce_key=request.form.get("idempotencyKey") or secrets.token_urlsafe(16),
        broadcast=broadcast,
        version=request.form.get("version") or (broadcast.version if broadcast else ""),
        is_draft=broadcast is None or broadcast.status == Status.DRAFT,
        saved_audiences=audiences.list_saved(),
        policies=escalation_policies.list_policies(),
        review=review,
        tested=is_test_sent,
        note=notice,
        undo_seconds=SETTINGS.current.undo_seconds,
    )


def load_form(broadcast: Broadcast) -> dict[str, Any]:
    """The form values of a stored broadcast: as typed for a draft, else from its fields."""
    if broadcast.typed is not None:
        return compose_form.from_typed(broadcast.typed)
    fields = edits.to_public_fields(broadcast)
    ids = [n for n in (*fields["targetIds"], *fields["exceptIds"]) if isinstance(n, int)]
    return compose_form.from_fields(fields, users.get_usernames(ids))


def _render_conflict(broadcast: Broadcast) -> str:
    """Both versions side by side, and what can be done. Nothing was overwritten."""
    theirs, mine = load_form(broadcast), compose_form.collect_values(request.form)
    is_live = "live" in request.form
    if is_live:
        mine = live_edit.overlay_editable_fields(theirs, mine)
    return render_page(
        "console/broadcasts/conflict.html",
        broadcast=broadcast,
        texts=reviewing.diff_forms(theirs, mine),
        mine=compose_form.to_multidict(mine),
        is_live=is_live,
        may_edit=lifecycle.can_transition(broadcast.status, "edited") and broadcast.is_live == is_live,
        who=broadcasts.list_audit_entries(broadcast.id)[-1:],
    )
