"""Publish, schedule, release, cancel, expire: everything that changes what people see."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from functools import cache

from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from broadcast.actions import audit, notify, overdue_schedules, send_confirmation
from broadcast.actions.audiences import resolve
from broadcast.actions.broadcast_rows import (
    check_may_draft,
    check_may_send,
    check_may_write,
    fill,
    freeze_audience,
    locked,
    new_row,
    refuse_past,
    refuse_unreviewed,
    set_audience,
)
from broadcast.base.cooperative import Breath
from broadcast.base.errors import Conflict, Invalid
from broadcast.content import markdown
from broadcast.domain import confirmation, lifecycle
from broadcast.domain.actor import SYSTEM, Actor
from broadcast.domain.audience import Audience, Users
from broadcast.domain.confirmation import Given
from broadcast.domain.events import EVERY_SESSION, EventType
from broadcast.domain.lifecycle import Status
from broadcast.domain.message import Draft, Priority, is_one_line
from broadcast.domain.overdue_schedules import GRACE
from broadcast.domain.permissions import Permission
from broadcast.domain.visible_text import is_blank
from broadcast.store import audiences, broadcasts, log, users
from broadcast.store.database import writing
from broadcast.store.models import Broadcast, IdempotencyKey


@dataclass(frozen=True, slots=True)
class Published:
    """`is_new` is False when the idempotency key had been used for the same message before."""

    id: int
    is_new: bool


def publish(
    draft: Draft,
    *,
    by: Actor,
    now: datetime,
    key: str | None = None,
    hold_seconds: float = 0,
    test: bool = False,
    confirmed: Given | None = None,
) -> Published:
    """Store a draft: live at once, scheduled, or kept as a draft, as it asks.

    With `hold_seconds`, what would go out at once waits that long, unseen, and can be withdrawn until then. A `test` is
    kept out of the console's lists. `key` makes repeats harmless: the second call with the same key and draft returns the
    first broadcast. Lets other greenlets run. Raises Forbidden, Invalid (unknown role or person, nobody reached, a text that is
    not shown), ConfirmationNeeded, Conflict (the key was used for something else), Busy.
    """
    check_may_write(draft, by)
    if key is not None and (earlier := earlier_with(by, key, draft)):
        return earlier
    audience, html = resolve(draft.target), markdown.render(draft.content)
    if not test:
        demand_for(draft, audience, confirmed, by=by, now=now)
    try:
        with writing() as session:
            if draft.keep_as_draft:
                check_may_draft(by)
            broadcast = _store(session, draft, html, audience, by, now)
            if test:
                broadcast.archived_at = now
            remember_key(session, by, key, draft, broadcast.id, now)
            set_out(session, broadcast, draft, audience, by=by, now=now, hold_seconds=hold_seconds)
            published = Published(broadcast.id, is_new=True)
            is_planned = broadcast.status == Status.SCHEDULED or broadcast.expires_at is not None
    except IntegrityError:
        if key is not None and (earlier := earlier_with(by, key, draft)):
            return earlier
        raise
    notify.ring()
    if is_planned:
        notify.due()
    return published


def demand_for(draft: Draft, audience: Audience, confirmed: Given | None, *, by: Actor, now: datetime) -> None:
    """Raise ConfirmationNeeded unless `by` confirmed what sending this draft takes. Lets other greenlets run."""
    proof = send_confirmation.prove(confirmed, by=by, now=now)
    if proof.is_asked and not draft.keep_as_draft:
        reach = audiences.count(audience)
        send_confirmation.demand(proof, confirmation.needed(draft, reach), reach)


def demand_for_row(broadcast: Broadcast, proof: send_confirmation.Proof) -> None:
    """The same for what is stored, as it is."""
    if proof.is_asked:
        reach = audiences.count(broadcasts.audience(broadcast))
        is_for_all = broadcast.audience_kind == "everyone"
        wanted = confirmation.needed_for(Priority(broadcast.priority), reach, is_for_all=is_for_all)
        send_confirmation.demand(proof, wanted, reach)


def set_out(
    session: Session,
    broadcast: Broadcast,
    draft: Draft,
    audience: Audience,
    *,
    by: Actor,
    now: datetime,
    hold_seconds: float,
) -> None:
    """Move a filled row to where its draft asks to be: kept, scheduled, held, or live. Raises IllegalTransition."""
    is_later = draft.scheduled_at is not None and draft.scheduled_at > now
    past = "edited" if draft.keep_as_draft else "scheduled" if is_later else "held" if hold_seconds else "published"
    broadcast.status = lifecycle.after(broadcast.status, past).value
    broadcast.is_held = past == "held"
    broadcast.planned_by_id, broadcast.decision_reason = by.user_id, None
    if past == "held":
        broadcast.scheduled_at = now + timedelta(seconds=hold_seconds)
    act = "broadcast.drafted" if past == "edited" else f"broadcast.{past}"
    audit.record(session, by, act, "broadcast", broadcast.id, now=now, title=draft.title)
    if past == "published":
        _go_live(session, [(broadcast, audience)], now)


def remember_key(session: Session, by: Actor, key: str | None, draft: Draft, broadcast_id: int, now: datetime) -> None:
    """Write down what a key was used for; a parallel request with it fails here, before it takes a number."""
    if key is None:
        return
    fingerprint = _fingerprint(draft)
    session.add(
        IdempotencyKey(user_id=by.user_id, key=key, fingerprint=fingerprint, broadcast_id=broadcast_id, created_at=now)
    )
    session.flush()


def release(broadcast_id: int, *, by: Actor = SYSTEM, now: datetime, confirmed: Given | None = None) -> None:
    """Send a draft or a scheduled broadcast now.

    Raises Forbidden, NotFound, IllegalTransition, ConfirmationNeeded, Conflict (a draft as it was typed, which nobody has
    reviewed), Busy.
    """
    by.require(Permission.WRITE)
    proof = send_confirmation.prove(confirmed, by=by, now=now)
    with writing() as session:
        broadcast = locked(session, broadcast_id)
        lifecycle.after(broadcast.status, "published")
        refuse_unreviewed(broadcast)
        check_may_send(broadcast, by)
        refuse_past(broadcast, now)
        demand_for_row(broadcast, proof)
        _release(session, [broadcast], by=by, now=now)
    notify.ring()


def release_due(ids: Sequence[int], *, now: datetime, grace: timedelta = GRACE) -> list[int] | None:
    """Send those of these plans that are due, in this order and in one transaction; return which were dealt with.

    What is overdue by more than `grace`, or may not go out by itself for another reason (`domain.plans`), is not sent but
    waits for a decision. Left out is what changed meanwhile or is being changed. None: another worker's clock is at it. Raises
    Busy, and for one that cannot be sent whatever that raises: then none was.
    """
    with writing() as session:
        due = broadcasts.claim(session, Status.SCHEDULED, ids, now)
        fit = overdue_schedules.hold_back_unfit(session, due or [], now=now, grace=grace)
        _release(session, fit, by=SYSTEM, now=now)
        done = due and [broadcast.id for broadcast in due]
    notify.ring()
    return done


def cancel(broadcast_id: int, *, reason: str, by: Actor, now: datetime) -> None:
    """Recall a broadcast: every open screen drops it. Raises Forbidden, Invalid, NotFound, IllegalTransition, Busy."""
    by.require(Permission.WRITE)
    reason = " ".join(reason.split())
    if not 0 < len(reason) <= 500 or not is_one_line(reason) or is_blank(reason):
        raise Invalid({"reason": "Say why it is recalled, in at most 500 characters."})
    with writing() as session:
        broadcast = locked(session, broadcast_id)
        broadcast.cancel_reason = reason
        audit.record(session, by, "broadcast.cancelled", "broadcast", broadcast.id, now=now, reason=reason)
        _end(session, [broadcast], "cancelled", now)
    notify.ring()


def expire_due(ids: Sequence[int], *, now: datetime) -> list[int] | None:
    """End those of these broadcasts whose time is over; as `release_due`."""
    with writing() as session:
        over = broadcasts.claim(session, Status.ACTIVE, ids, now)
        for broadcast in over or []:
            audit.record(session, SYSTEM, "broadcast.expired", "broadcast", broadcast.id, now=now)
        _end(session, over or [], "expired", now)
        done = over and [broadcast.id for broadcast in over]
    notify.ring()
    return done


def _store(session: Session, draft: Draft, html: str, audience: Audience, by: Actor, now: datetime) -> Broadcast:
    broadcast = new_row(by, now)
    fill(broadcast, draft, now, html=html)
    set_audience(session, broadcast, audience, snapshot=draft.target.snapshot, may_be_empty=draft.keep_as_draft)
    return broadcast


def _release(session: Session, rows: Sequence[Broadcast], *, by: Actor, now: datetime) -> None:
    """Send rows that are locked."""
    sent = []
    for broadcast in rows:
        broadcast.status = lifecycle.after(broadcast.status, "published")
        broadcast.decision_reason = None
        refuse_unreviewed(broadcast)
        if broadcast.is_held:
            broadcast.is_held, broadcast.scheduled_at = False, None
        audit.record(session, by, "broadcast.published", "broadcast", broadcast.id, now=now)
        sent.append((broadcast, broadcasts.audience(broadcast)))
    count, breath = cache(users.count), Breath()  # many go to the same audience
    with session.no_autoflush:
        for broadcast, audience in sent:
            broadcast.audience_count = count(audience)  # people may have come and gone since it was planned
            breath.take()
    _go_live(session, sent, now)


def _go_live(session: Session, sent: Sequence[tuple[Broadcast, Audience]], now: datetime) -> None:
    """Number them and append their MESSAGEs. The log is locked from the numbers to the commit, so nothing slow follows."""
    entries: list[log.Entry] = []
    place: dict[int, Broadcast] = {}  # of each broadcast's MESSAGE among the entries
    breath = Breath()
    with session.no_autoflush:  # each row is updated once, with its number
        for broadcast, audience in sent:
            audience = freeze_audience(session, broadcast, audience)
            broadcast.published_at = broadcast.updated_at = now
            place[len(entries)] = broadcast
            entries += [message(broadcast, audience), *_signed_out(session, broadcast, audience, now)]
            breath.take()
        if entries:
            first = log.take_numbers(session, len(entries))
            for n, broadcast in place.items():
                broadcast.seq = first.seq + n
            log.append(session, entries, at=now, first=first)


def _signed_out(session: Session, broadcast: Broadcast, audience: Audience, now: datetime) -> list[log.Entry]:
    """The event that follows a broadcast which signs its chosen people out, once they are told why; their sessions end."""
    if not broadcast.close_sessions or not isinstance(audience, Users):
        return []
    users.end_sessions(session, sorted(audience.ids), at=now)
    return [log.Entry(EventType.SESSION_ENDED, broadcast.id, audience, {"session": EVERY_SESSION})]


def message(broadcast: Broadcast, audience: Audience) -> log.Entry:
    """The event that brings a broadcast to its audience."""
    return log.Entry(EventType.MESSAGE, broadcast.id, audience, broadcast.as_card().as_payload())


def update(broadcast: Broadcast, audience: Audience, *, again: bool) -> log.Entry:
    """The event that brings a new text of a live broadcast; with `again`, to those who have read it as well."""
    payload = broadcast.as_card().as_payload() | {"seq": broadcast.seq, "again": again}
    return log.Entry(EventType.MESSAGE_UPDATED, broadcast.id, audience, payload)


def removal(broadcast: Broadcast, audience: Audience, past: str) -> log.Entry:
    """The event that takes a broadcast away again; `past` is "cancelled" or "expired"."""
    payload = {"id": broadcast.id, "reason": past.upper()}
    return log.Entry(EventType.MESSAGE_REMOVED, broadcast.id, audience, payload)


def _end(session: Session, rows: Sequence[Broadcast], past: str, now: datetime) -> None:
    gone = [removal(row, broadcasts.audience(row), past) for row in rows if row.is_live]
    for row in rows:
        row.status = lifecycle.after(row.status, past).value
        row.ended_at = row.updated_at = now
    session.flush()
    log.append(session, gone, at=now)


def earlier_with(by: Actor, key: str, draft: Draft) -> Published | None:
    """What this key was used for, None if for nothing yet. Raises Conflict when that was another message."""
    row = broadcasts.by_idempotency_key(by.user_id, key)
    if row is None:
        return None
    if row.fingerprint != _fingerprint(draft):
        raise Conflict("This Idempotency-Key was used for another message. Use a new key for a new message.")
    return Published(row.broadcast_id, is_new=False)


def _fingerprint(draft: Draft) -> str:
    return hashlib.sha256(json.dumps(asdict(draft), default=str, sort_keys=True).encode()).hexdigest()
