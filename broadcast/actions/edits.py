"""Changing what is there: drafts as they are typed, plans, and live broadcasts on every open screen.

Every edit names the version it was made from and is refused when that is no longer the newest (Outdated), so that two
editors, or an edit and the clock, never overwrite each other silently.
"""

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from broadcast.actions import audit, broadcast_rows, notify, send_confirmation
from broadcast.actions.audiences import resolve
from broadcast.actions.broadcasts import (
    Published,
    demand_for,
    demand_for_row,
    earlier_with,
    remember_key,
    set_out,
    update,
)
from broadcast.base.errors import Invalid, Outdated
from broadcast.content import markdown
from broadcast.domain import clock, confirmation, lifecycle
from broadcast.domain.actor import Actor
from broadcast.domain.confirmation import Given
from broadcast.domain.lifecycle import Status
from broadcast.domain.message import Draft, Priority, read_content, read_draft
from broadcast.domain.permissions import Permission
from broadcast.store import acknowledged_revisions, audiences, broadcasts, log
from broadcast.store.database import writing
from broadcast.store.models import Broadcast

_CONTENT = ("title", "content", "priority", "category", "actions", "requiresAck", "ackDueAt", "expiresAt")
_AUDIENCE = ("targetType", "targetIds", "targetMatch", "exceptRoles", "exceptIds", "snapshot", "closeSessions")


class Saved(NamedTuple):
    id: int
    version: str


def save_draft(
    typed: Mapping[str, Any],
    draft: Draft | None,
    *,
    broadcast_id: int | None,
    version: str | None,
    by: Actor,
    now: datetime,
) -> Saved:
    """Keep a form as it was typed, finished or not, in a new draft or in the one it belongs to.

    `draft` is what the form says when it is in order, None while it is not: it then reaches nobody, as does one whose text
    is not shown. One audit row stands for a writer's whole row of autosaves. Lets other greenlets run. Raises Forbidden,
    NotFound, Invalid (a new one beyond the person's quota), Outdated, IllegalTransition, Busy.
    """
    by.require(Permission.WRITE)
    html = _html_if_shown(draft)
    if html is None:
        draft = None
    audience = resolve(draft.target) if draft else None
    with writing() as session:
        if broadcast_id is None:
            broadcast_rows.check_may_draft(by)
            broadcast = broadcast_rows.new_row(by, now)
            session.add(broadcast)
            session.flush()
            audit.record(session, by, "broadcast.drafted", "broadcast", broadcast.id, now=now)
        else:
            broadcast = broadcast_rows.locked(session, broadcast_id, version=version)
            lifecycle.after(broadcast.status, "saved")
            broadcast.revision += 1
            _record_once(session, by, broadcast, now)
        _take_down(session, broadcast, typed, draft, html, now)
        if audience:
            broadcast_rows.clear_audience(session, broadcast)
            snapshot = draft.target.snapshot
            broadcast_rows.set_audience(session, broadcast, audience, snapshot=snapshot, may_be_empty=True)
        else:
            broadcast_rows.choose_nobody(session, broadcast)
        return Saved(broadcast.id, broadcast.version)


def _html_if_shown(draft: Draft | None) -> str | None:
    try:
        return draft and markdown.render(draft.content)
    except Invalid:
        return None


def _take_down(
    session: Session,
    broadcast: Broadcast,
    typed: Mapping[str, Any],
    draft: Draft | None,
    html: str | None,
    now: datetime,
) -> None:
    if draft:
        broadcast_rows.fill(broadcast, draft, now, html=html)
    else:
        broadcast.title = " ".join(str(typed.get("title", "")).split())[:200]
        broadcast.updated_at = now
    broadcast.typed = dict(typed)
    session.flush()


def _record_once(session: Session, by: Actor, broadcast: Broadcast, now: datetime) -> None:
    last = broadcasts.timeline(broadcast.id)[-1:]
    if not last or last[0].actor_id != by.user_id or last[0].action not in ("broadcast.drafted", "broadcast.saved"):
        audit.record(session, by, "broadcast.saved", "broadcast", broadcast.id, now=now)


def send(
    broadcast_id: int,
    draft: Draft,
    *,
    version: str | None,
    by: Actor,
    now: datetime,
    key: str | None = None,
    hold_seconds: float = 0,
    confirmed: Given | None = None,
) -> Published:
    """Give a draft or a plan its final words, and send or schedule it as they say.

    Lets other greenlets run. Raises Forbidden, NotFound, Invalid, ConfirmationNeeded, Outdated, IllegalTransition, Conflict
    (see `publish`), Busy.
    """
    broadcast_rows.check_may_write(draft, by)
    if key is not None and (earlier := earlier_with(by, key, draft)):
        return earlier
    audience, html = resolve(draft.target), markdown.render(draft.content)
    demand_for(draft, audience, confirmed, by=by, now=now)
    try:
        with writing() as session:
            broadcast = broadcast_rows.locked(session, broadcast_id, version=version)
            lifecycle.after(broadcast.status, "held")  # before anything is changed
            broadcast_rows.clear_audience(session, broadcast)
            broadcast_rows.fill(broadcast, draft, now, html=html)
            snapshot = draft.target.snapshot
            broadcast_rows.set_audience(session, broadcast, audience, snapshot=snapshot, may_be_empty=False)
            broadcast.typed = None
            broadcast.revision += 1
            remember_key(session, by, key, draft, broadcast.id, now)
            set_out(session, broadcast, draft, audience, by=by, now=now, hold_seconds=hold_seconds)
    except IntegrityError:
        if key is not None and (earlier := earlier_with(by, key, draft)):
            return earlier
        raise
    notify.ring()
    notify.due()
    return Published(broadcast_id, is_new=True)


def hold(broadcast_id: int, *, by: Actor, now: datetime, until: datetime, confirmed: Given | None = None) -> None:
    """Send a finished draft or a plan at `until`, a few seconds ahead: it can be withdrawn until then.

    Raises Forbidden, NotFound, IllegalTransition, ConfirmationNeeded, Conflict (a draft nobody has reviewed), Busy.
    """
    by.require(Permission.WRITE)
    proof = send_confirmation.prove(confirmed, by=by, now=now)
    with writing() as session:
        broadcast = broadcast_rows.locked(session, broadcast_id)
        lifecycle.after(broadcast.status, "held")
        broadcast_rows.refuse_unreviewed(broadcast)
        broadcast_rows.check_may_send(broadcast, by)
        broadcast_rows.refuse_past(broadcast, now)
        demand_for_row(broadcast, proof)
        broadcast.status = lifecycle.after(broadcast.status, "held").value
        broadcast.is_held, broadcast.scheduled_at, broadcast.updated_at = True, until, now
        broadcast.planned_by_id, broadcast.decision_reason = by.user_id, None
        audit.record(session, by, "broadcast.held", "broadcast", broadcast.id, now=now)
    notify.due()


def withdraw(broadcast_id: int, *, by: Actor, now: datetime) -> None:
    """Take a held or scheduled broadcast back before it goes out; it is a draft again.

    Raises Forbidden, NotFound, IllegalTransition (it has gone out), Busy.
    """
    by.require(Permission.WRITE)
    with writing() as session:
        broadcast = broadcast_rows.locked(session, broadcast_id)
        broadcast.status = lifecycle.after(broadcast.status, "withdrawn").value
        if broadcast.is_held:
            broadcast.is_held, broadcast.scheduled_at = False, None
        broadcast.updated_at, broadcast.decision_reason = now, None
        audit.record(session, by, "broadcast.withdrawn", "broadcast", broadcast.id, now=now)


def edit(
    broadcast_id: int,
    changes: Mapping[str, Any],
    *,
    version: str | None,
    by: Actor,
    now: datetime,
    notify_again: bool = False,
    acknowledge_again: bool = False,
    confirmed: Given | None = None,
) -> str:
    """Change the named public fields of a draft, a plan or a live broadcast; return the new version.

    A live one changes on every open screen, and with `notify_again` it is unread once more for those who had read it. Without
    `acknowledge_again` the edit is a correction, and acknowledgements stand; with it everybody is asked anew, which shows it
    again too. Its audience and its start are history and cannot change. `version` None means whatever is there now. Lets
    other greenlets run. Raises Forbidden, NotFound, Invalid, ConfirmationNeeded, Outdated, IllegalTransition, Busy.
    """
    by.require(Permission.WRITE)
    new_text, proof = _rendered(broadcast_id, changes), send_confirmation.prove(confirmed, by=by, now=now)
    with writing() as session:
        broadcast = broadcast_rows.locked(session, broadcast_id, version=version)
        lifecycle.after(broadcast.status, "edited")
        before = as_fields(broadcast)
        draft = _changed(broadcast, before, changes, now, notify_again, acknowledge_again)
        notify_again = notify_again or acknowledge_again
        broadcast_rows.check_may_write(draft, by)
        if not broadcast.is_live:
            audience = resolve(draft.target)
            broadcast_rows.clear_audience(session, broadcast)
            is_draft = broadcast.status == Status.DRAFT
            broadcast_rows.set_audience(
                session, broadcast, audience, snapshot=draft.target.snapshot, may_be_empty=is_draft
            )
        elif broadcast.requires_ack:  # somebody may be acknowledging what is still on their screen
            acknowledged_revisions.keep(session, broadcast.as_card())
        started_at, priority = broadcast.scheduled_at, Priority(broadcast.priority)
        broadcast_rows.fill(broadcast, draft, now, html=_html_of(draft.content, broadcast, new_text))
        if broadcast.status == Status.SCHEDULED:
            broadcast.planned_by_id, broadcast.decision_reason = by.user_id, None
        again = notify_again or acknowledge_again
        if confirmation.is_asked_again(broadcast.status, priority, draft.priority, again=again):
            demand_for_row(broadcast, proof)
        if broadcast.is_live:
            broadcast.scheduled_at = started_at
        after = as_fields(broadcast)
        changed = sorted(name for name in after if after[name] != before[name])
        if not changed and not notify_again:
            return broadcast.version
        broadcast.revision += 1
        broadcast.typed = None
        if acknowledge_again:
            broadcast.ack_revision = broadcast.revision
        detail = {"fields": changed, "revision": broadcast.revision} | ({"again": True} if notify_again else {})
        detail |= {"acknowledgeAgain": True} if acknowledge_again else {}
        audit.record(session, by, "broadcast.edited", "broadcast", broadcast.id, now=now, **detail)
        if broadcast.is_live:
            _tell_everybody(session, broadcast, now, notify_again)
        version = broadcast.version
    notify.ring()
    notify.due()
    return version


class _Text(NamedTuple):
    markdown: str
    html: str


def _rendered(broadcast_id: int, changes: Mapping[str, Any]) -> _Text | None:
    """The new text, rendered; None when the text stays as it is stored, or is none. Raises Invalid."""
    if changes.get("content") is None:
        return None
    try:
        text = read_content(changes["content"])
    except ValueError:
        return None  # `read_draft` says what is wrong, with all else that is
    stored = broadcasts.by_id(broadcast_id)
    if stored is None or stored.content == text:  # shown already, whatever the limits were then
        return None
    return _Text(text, markdown.render(text))


def _html_of(content: str, broadcast: Broadcast, new_text: _Text | None) -> str:
    if new_text is not None and new_text.markdown == content:
        return new_text.html
    if broadcast.content != content:  # it was this text when the edit began
        raise Outdated(broadcast.version)
    return broadcast.content_html


def _changed(
    broadcast: Broadcast,
    before: dict[str, Any],
    changes: Mapping[str, Any],
    now: datetime,
    notify_again: bool,
    acknowledge_again: bool,
) -> Draft:
    """What the broadcast says after the changes. Raises Invalid."""
    may_change = _CONTENT if broadcast.is_live else (*_CONTENT, *_AUDIENCE, "scheduledAt")
    problems = {name: _refusal(name, broadcast) for name in changes if name not in may_change}
    if notify_again and not broadcast.is_live:
        problems["notifyAgain"] = "Only what is live can be shown again."
    if acknowledge_again and not broadcast.is_live:
        problems["acknowledgeAgain"] = "Only what is live can be acknowledged again."
    if broadcast.status == Status.SCHEDULED and changes.get("scheduledAt", "") is None:
        problems["scheduledAt"] = "Give the time at which it is sent, or send it now."
    raw = before | dict(changes)
    if broadcast.is_live:  # these are not up for change, and were judged when it was sent
        raw = {name: value for name, value in raw.items() if name in _CONTENT} | {"targetType": "ALL"}
        if raw["ackDueAt"] == before["ackDueAt"] and raw["requiresAck"]:
            del raw["ackDueAt"]
    elif broadcast.status == Status.DRAFT:
        raw["draft"] = True
    try:
        draft = read_draft(raw, now=now)
    except Invalid as invalid:
        raise Invalid(invalid.fields | problems) from None
    if problems:
        raise Invalid(problems)
    if acknowledge_again and not draft.requires_ack:
        raise Invalid({"acknowledgeAgain": "This message asks for no acknowledgement."})
    if broadcast.is_live and "ackDueAt" not in raw:
        return replace(draft, ack_due_at=broadcast.ack_due_at)
    return draft


def _refusal(name: str, broadcast: Broadcast) -> str:
    if broadcast.is_live and name in (*_AUDIENCE, "scheduledAt"):
        return "It is live: who gets it, and since when, cannot change any more. Recall it and send another."
    return "There is no such field, or it cannot be changed."


def _tell_everybody(session: Session, broadcast: Broadcast, now: datetime, notify_again: bool) -> None:
    broadcast.edited_at = now
    audience = audiences.of(broadcast)
    session.flush()
    first = log.take_numbers(session, 1)
    if notify_again:  # the newest in every inbox, and unread: no watermark reaches up to it
        broadcast.seq, broadcast.renewed_at = first.seq, now
    log.append(session, [update(broadcast, audience, again=notify_again)], at=now, first=first)


def as_fields(broadcast: Broadcast) -> dict[str, Any]:
    """A stored broadcast in the public fields that `read_draft` reads."""
    names = audiences.chosen(broadcast) if broadcast.audience_kind == "users" else broadcast.role_names
    return {
        "title": broadcast.title,
        "content": broadcast.content,
        "priority": broadcast.priority,
        "category": broadcast.category,
        "actions": broadcast.actions,
        "requiresAck": broadcast.requires_ack,
        "ackDueAt": clock.to_wire(broadcast.ack_due_at),
        "scheduledAt": clock.to_wire(broadcast.scheduled_at),
        "expiresAt": clock.to_wire(broadcast.expires_at),
        "targetType": broadcast.target_type,
        "targetIds": names,
        "targetMatch": "ALL" if broadcast.match_all else "ANY",
        "exceptRoles": broadcast.except_role_names,
        "exceptIds": audiences.left_out(broadcast),
        "snapshot": broadcast.is_snapshot,
        "closeSessions": broadcast.close_sessions,
    }
