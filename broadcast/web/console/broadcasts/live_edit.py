"""Editing a live broadcast on every open screen: content and end, with a diff."""

from collections.abc import Mapping
from functools import partial
from typing import Any

from flask import request

from broadcast.actions import edits
from broadcast.base.errors import ConfirmationRequired, Invalid
from broadcast.domain import clock
from broadcast.store.models import Broadcast
from broadcast.web.console import viewer_stats
from broadcast.web.console.broadcasts import compose_form, review
from broadcast.web.core.identity import current_identity
from broadcast.web.core.rendering import redirect_to, render_page
from broadcast.web.core.request_parsing import read_choice
from broadcast.web.core.text_diff import FieldDiff


def render_form(
    broadcast: Broadcast,
    form: dict[str, Any],
    errors: dict[str, str],
    *,
    changed: list | None = None,
    needed: ConfirmationRequired | None = None,
) -> str:
    """The edit form. `changed` is the diff, once requested; `needed` is what must be confirmed."""
    return render_page(
        "console/broadcasts/live_edit.html",
        **compose_form.build_form_context(form, errors),
        broadcast=broadcast,
        version=request.form.get("version") or broadcast.version,
        again=bool(request.form.get("notifyAgain")),
        acknowledge_again=request.form.get("acknowledgeAgain", ""),
        changed=changed,
        needed=needed,
        reach=viewer_stats.load_broadcast_stats(broadcast).remaining,
    )


def save(broadcast: Broadcast) -> Any:
    """Save the posted form, or show its diff. Raises VersionConflict, IllegalTransition."""
    form = request.form
    render_typed = partial(render_form, broadcast, compose_form.collect_values(form))
    try:
        if read_choice("do", ("send", "review"), "send") == "review" or form.get("resume"):
            return render_typed({}, changed=diff_posted_form(broadcast))
        fields = compose_form.read_content(form)
        edits.edit(
            broadcast.id,
            fields,
            version=form.get("version", ""),
            by=current_identity().actor,
            now=clock.now(),
            notify_again=bool(form.get("notifyAgain")),
            acknowledge_again=_read_acknowledge_again(broadcast, fields),
            confirmed=review.read_confirmation(form),
        )
    except ConfirmationRequired as needed:
        return render_typed(needed.fields, needed=needed), needed.status
    except Invalid as invalid:
        return render_typed(invalid.fields), invalid.status
    return redirect_to("console.one.show", broadcast_id=broadcast.id)


def _read_acknowledge_again(broadcast: Broadcast, fields: Mapping[str, Any]) -> bool:
    """Whether acknowledgements are requested again or stand. Raises Invalid where the author must choose."""
    if not (broadcast.requires_ack and fields["requiresAck"]):
        return False
    chosen = request.form.get("acknowledgeAgain", "")
    stored_fields = edits.to_public_fields(broadcast)
    if chosen not in ("no", "yes") and any(
        _normalize(fields[name]) != _normalize(stored_fields[name]) for name in _ACKNOWLEDGED_FIELDS
    ):
        raise Invalid({"acknowledgeAgain": "Choose whether existing acknowledgements still count."})
    return chosen == "yes"


def _normalize(value: Any) -> Any:
    """Normalize a value as a browser may post it back: other line ends, and nothing for an empty list."""
    return "\n".join(value.split("\r\n")).strip() if isinstance(value, str) else value or None


def diff_posted_form(broadcast: Broadcast) -> list[FieldDiff]:
    stored_form = compose_form.from_fields(edits.to_public_fields(broadcast), {})
    typed = compose_form.collect_values(request.form)
    return review.diff_forms(stored_form, overlay_editable_fields(stored_form, typed))


def overlay_editable_fields(theirs: dict[str, Any], mine: dict[str, Any]) -> dict[str, Any]:
    """`theirs` with the live form's fields from `mine`, times in UTC. Others are not posted and stay equal."""
    times = {name: compose_form.convert_times_to_utc(mine).get(name, "")[:16] for name in ("expiresAt", "ackDueAt")}
    return theirs | {name: value for name, value in mine.items() if name in _EDITABLE_FIELDS} | times


_ACKNOWLEDGED_FIELDS = ("title", "content", "actions")  # what a recipient acknowledges
_EDITABLE_FIELDS = ("title", "content", "priority", "category", "label1", "url1", "label2", "url2", "requiresAck")
