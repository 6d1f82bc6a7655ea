"""Changing a live broadcast on every open screen: the words and the end, with the difference in view."""

from typing import Any

from flask import redirect, request, url_for

from broadcast.actions import edits
from broadcast.domain import clock
from broadcast.domain.message import Priority
from broadcast.errors import Invalid
from broadcast.store.models import Broadcast
from broadcast.web import forms
from broadcast.web.console import reviewing
from broadcast.web.identity import me
from broadcast.web.render import page


def draw(broadcast: Broadcast, form: dict[str, Any], errors: dict[str, str], *, changed: list | None = None) -> str:
    """The form of a live broadcast; `changed` is the difference, once it was asked for."""
    return page(
        "console/live_edit.html",
        broadcast=broadcast,
        form=form,
        utc=forms.utc_of(form),
        errors=errors,
        priorities=[priority.value for priority in Priority],
        version=request.form.get("version") or broadcast.version,
        again=bool(request.form.get("notifyAgain")),
        changed=changed,
    )


def save(broadcast: Broadcast) -> Any:
    """Save the posted form, or show what it would change. Raises Outdated, IllegalTransition."""
    form = request.form
    if form.get("do") == "review" or form.get("resume"):
        return draw(broadcast, _typed(), {}, changed=difference_to(broadcast))
    try:
        edits.edit(
            broadcast.id,
            forms.read_content(form),
            version=form.get("version", ""),
            by=me().actor,
            now=clock.now(),
            notify_again=bool(form.get("notifyAgain")),
        )
    except Invalid as invalid:
        return draw(broadcast, _typed(), invalid.fields), invalid.status
    return redirect(url_for("console.one.show", broadcast_id=broadcast.id), 303)


def difference_to(broadcast: Broadcast) -> list[reviewing.Both]:
    """What the posted form would change."""
    now = forms.from_fields(edits.as_fields(broadcast), {})
    return reviewing.both(now, as_shown(now, _typed()))


def as_shown(theirs: dict[str, Any], mine: dict[str, Any]) -> dict[str, Any]:
    """What the form of a live broadcast can say, times in UTC; of the rest nothing was posted, so nothing differs."""
    times = {name: forms.utc_of(mine).get(name, "")[:16] for name in ("expiresAt", "ackDueAt")}
    return theirs | {name: value for name, value in mine.items() if name in _SHOWN} | times


_SHOWN = ("title", "content", "priority", "category", "label1", "url1", "label2", "url2", "requiresAck")


def _typed() -> dict[str, Any]:
    return forms.as_typed(request.form)
