"""Changing a live broadcast on every open screen: the words and the end, with the difference in view."""

from collections.abc import Mapping
from typing import Any

from flask import redirect, request, url_for

from broadcast.actions import edits
from broadcast.base.errors import ConfirmationNeeded, Invalid
from broadcast.domain import clock
from broadcast.domain.message import Priority
from broadcast.store.models import Broadcast
from broadcast.web.console import viewer_stats
from broadcast.web.console.broadcasts import compose_form, review
from broadcast.web.core.identity import me
from broadcast.web.core.rendering import page
from broadcast.web.core.request_parsing import choice


def draw(
    broadcast: Broadcast,
    form: dict[str, Any],
    errors: dict[str, str],
    *,
    changed: list | None = None,
    needed: ConfirmationNeeded | None = None,
) -> str:
    """The form of a live broadcast; `changed` is the difference, once it was asked for; `needed` what must be confirmed."""
    return page(
        "console/broadcasts/live_edit.html",
        broadcast=broadcast,
        form=form,
        utc=compose_form.utc_of(form),
        twice=compose_form.twice_of(form),
        errors=errors,
        priorities=[priority.value for priority in Priority],
        version=request.form.get("version") or broadcast.version,
        again=bool(request.form.get("notifyAgain")),
        acknowledge_again=request.form.get("acknowledgeAgain", ""),
        changed=changed,
        needed=needed,
        reach=viewer_stats.of_one(broadcast).here,
    )


def save(broadcast: Broadcast) -> Any:
    """Save the posted form, or show what it would change. Raises Outdated, IllegalTransition."""
    form = request.form
    try:
        if choice("do", ("send", "review"), "send") == "review" or form.get("resume"):
            return draw(broadcast, _typed(), {}, changed=difference_to(broadcast))
        fields = compose_form.read_content(form)
        edits.edit(
            broadcast.id,
            fields,
            version=form.get("version", ""),
            by=me().actor,
            now=clock.now(),
            notify_again=bool(form.get("notifyAgain")),
            acknowledge_again=_asks_again(broadcast, fields),
            confirmed=review.given(form),
        )
    except ConfirmationNeeded as needed:
        return draw(broadcast, _typed(), needed.fields, needed=needed), needed.status
    except Invalid as invalid:
        return draw(broadcast, _typed(), invalid.fields), invalid.status
    return redirect(url_for("console.one.show", broadcast_id=broadcast.id), 303)


def _asks_again(broadcast: Broadcast, fields: Mapping[str, Any]) -> bool:
    """What the author chose: acknowledgements stand, or everybody is asked anew. Raises Invalid where that must be chosen."""
    if not (broadcast.requires_ack and fields["requiresAck"]):
        return False
    choice = request.form.get("acknowledgeAgain", "")
    before = edits.as_fields(broadcast)
    if choice not in ("no", "yes") and any(_plain(fields[name]) != _plain(before[name]) for name in _WORDS):
        raise Invalid({"acknowledgeAgain": "Choose whether the acknowledgements given so far stand."})
    return choice == "yes"


def _plain(value: Any) -> Any:
    """As a browser may post what it was given: with other line ends, and nothing for an empty list."""
    return "\n".join(value.split("\r\n")).strip() if isinstance(value, str) else value or None


def difference_to(broadcast: Broadcast) -> list[review.Both]:
    """What the posted form would change."""
    now = compose_form.from_fields(edits.as_fields(broadcast), {})
    return review.both(now, as_shown(now, _typed()))


def as_shown(theirs: dict[str, Any], mine: dict[str, Any]) -> dict[str, Any]:
    """What the form of a live broadcast can say, times in UTC; of the rest nothing was posted, so nothing differs."""
    times = {name: compose_form.utc_of(mine).get(name, "")[:16] for name in ("expiresAt", "ackDueAt")}
    return theirs | {name: value for name, value in mine.items() if name in _SHOWN} | times


_WORDS = ("title", "content", "actions")  # what a person acknowledges
_SHOWN = ("title", "content", "priority", "category", "label1", "url1", "label2", "url2", "requiresAck")


def _typed() -> dict[str, Any]:
    return compose_form.as_typed(request.form)
