"""What people do with what they got: read, archive, snooze, acknowledge, and take it back. Only with what is addressed to them.

Each verb locks the person, looks at the messages as they are now, writes, and raises the version of the person's inbox, in one
transaction; then the person's other tabs and devices are told. What changes nothing is neither counted nor told.
"""

import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy.orm import Session

from broadcast.actions import notify
from broadcast.base.errors import Conflict, Invalid, NotFound, TextChanged
from broadcast.domain.actor import Actor
from broadcast.domain.message import Priority
from broadcast.domain.revisions import stands
from broadcast.store import acknowledged_revisions, ended_inbox, inbox, log, receipts
from broadcast.store.database import writing
from broadcast.store.inbox import Filters, Item

UNDO = timedelta(seconds=60)  # pages offer it for 8 s; a form without JavaScript needs longer
LONGEST_SNOOZE = timedelta(days=366)
_MOST_TO_UNDO = 1000  # rows that one step remembers
_MOST_TO_WAKE = 500  # in one transaction


@dataclass(frozen=True, slots=True)
class Done:
    """What an act changed. `version` is the inbox's then, 0 when nothing changed; `undo` is the key to take it back with.

    `refused` are those of several with which it could not be done, the first of them because of what `because` says.
    """

    kind: str
    ids: list[int]
    version: int = 0
    undo: str | None = None
    refused: tuple[int, ...] = ()
    because: str = ""


def mark_read(ids: Sequence[int], *, by: Actor, now: datetime) -> Done:
    """Mark messages read; idempotent, the first reading stays. Raises NotFound when none is this person's, Busy."""

    def write(session: Session, items: list[Item]) -> None:
        done = [item.card.id for item in items]
        receipts.mark(session, ((broadcast_id, by.user_id) for broadcast_id in done), "read_at", at=now)
        receipts.put(session, by.user_id, [i.card.id for i in items if i.unread_at], unread_at=None)

    return _act("read", ids, lambda item: not item.is_read, write, by=by, now=now)


def mark_unread(ids: Sequence[int], *, by: Actor, now: datetime) -> Done:
    """Mark messages unread again, for this person alone: the sender's figures keep the reading. Raises NotFound, Busy."""
    return _act("unread", ids, lambda item: item.is_read, _putting(by, now, unread_at=now), by=by, now=now)


def acknowledge(ids: Sequence[int], *, by: Actor, now: datetime, seen: Mapping[int, int] | None = None) -> Done:
    """Say "I have read and understood": for ever, and it reads too. Raises NotFound, Conflict, TextChanged, Busy.

    `seen` are the revisions that were on the screen, by id; of the others the present one is taken. An older one is
    acknowledged as such if its words are kept and may still be acknowledged, and refused otherwise.
    """
    on_screen = seen or {}
    kept = acknowledged_revisions.hashes(on_screen.items())

    def write(session: Session, items: list[Item]) -> None:
        given = []
        for card in (item.card for item in items):
            revision = on_screen.get(card.id, card.revision)
            if revision == card.revision:
                acknowledged_revisions.keep(session, card, is_acknowledged=True)
                given.append((card.id, revision, acknowledged_revisions.hash_of(card)))
            else:
                acknowledged_revisions.note_acknowledged(session, card.id, revision)
                given.append((card.id, revision, kept[card.id, revision]))
        acknowledged_revisions.acknowledge(session, by.user_id, given, at=now)
        receipts.mark(session, [(item.card.id, by.user_id) for item in items], "read_at", at=now)
        receipts.put(session, by.user_id, [item.card.id for item in items], unread_at=None)

    def refuse(item: Item) -> Conflict | None:
        card = item.card
        if not card.requires_ack:
            return Conflict("This message asks for no acknowledgement.")
        revision = on_screen.get(card.id, card.revision)
        may_be = stands(revision, card.ack_revision) and (card.id, revision) in kept and revision < card.revision
        return None if revision == card.revision or may_be or not item.needs_ack else TextChanged()

    return _act("acknowledged", ids, lambda item: item.needs_ack, write, by=by, now=now, refuse=refuse)


def archive(ids: Sequence[int], *, by: Actor, now: datetime) -> Done:
    """Put messages away. Raises NotFound, Conflict for what must be acknowledged first, Busy."""

    def refuse(item: Item) -> Conflict | None:
        return Conflict("Acknowledge this message before you archive it.") if item.needs_ack else None

    write = _putting(by, now, archived_at=now)
    return _act(
        "archived", ids, lambda i: not i.archived_at, write, by=by, now=now, refuse=refuse, undo=["archived_at"]
    )


def unarchive(ids: Sequence[int], *, by: Actor, now: datetime) -> Done:
    """Put messages back into the inbox, out of the archive or out of their sleep. Raises NotFound, Busy."""
    write = _putting(by, now, archived_at=None, snoozed_until=None)
    return _act("unarchived", ids, lambda i: i.archived_at or _sleeps(i, now), write, by=by, now=now)


def snooze(ids: Sequence[int], *, until: datetime, by: Actor, now: datetime) -> Done:
    """Hide messages until that time, when they return as unread by themselves.

    Raises Invalid for a time in the past or more than a year ahead, NotFound, Conflict for what ends before that time, or must
    be acknowledged at once or before it, Busy.
    """
    if not now < until <= now + LONGEST_SNOOZE:
        raise Invalid({"until": "Choose a time ahead, within a year."})

    def refuse(item: Item) -> Conflict | None:
        if item.card.expires_at and item.card.expires_at <= until:
            return Conflict(
                "This message ends before that time, and would not come back. Choose an earlier time, or archive it."
            )
        if not item.needs_ack:
            return None
        if item.card.priority == Priority.URGENT:
            return Conflict("This message is urgent and must be acknowledged; it cannot wait.")
        due = item.card.ack_due_at
        return Conflict("It must be acknowledged before that time.") if due and due < until else None

    write = _putting(by, now, snoozed_until=until, snoozed_at=now, unread_at=now, archived_at=None, returned_at=None)
    columns = ["snoozed_until", "snoozed_at", "unread_at", "archived_at", "returned_at"]
    return _act("snoozed", ids, lambda i: i.snoozed_until != until, write, by=by, now=now, refuse=refuse, undo=columns)


def dismiss(ids: Sequence[int], *, by: Actor, now: datetime) -> Done:
    """Put the alerts of messages away, on every page of this person. The messages stay as they are, and count as seen.

    One that is shown again or reminded of later is told again. Raises NotFound, Busy.
    """

    def write(session: Session, items: list[Item]) -> None:
        done = [item.card.id for item in items]
        receipts.put(session, by.user_id, done, dismissed_at=now)
        receipts.mark(session, ((broadcast_id, by.user_id) for broadcast_id in done), "first_seen_at", at=now)

    return _act("dismissed", ids, lambda item: True, write, by=by, now=now)


def mark_all_read(filters: Filters, *, through: int, by: Actor, now: datetime) -> Done:
    """Mark read what `filters` show up to seq `through`, so that what arrived meanwhile stays unread.

    For the whole inbox this is one watermark; only messages that never had a receipt get a row, so that their senders' figures
    count this person.
    """
    with writing() as session:
        receipts.lock_person(session, by.user_id)
        through = min(through, log.head().seq)
        unread = inbox.unread_ids(by.viewer, filters, now=now, through=through)
        if not unread:
            return Done("read", [])
        by_hand = receipts.unread_by_hand(session, by.user_id, unread)
        if filters.narrow or filters.view not in ("inbox", "unread"):
            before = receipts.snapshot(session, by.user_id, unread, ["read_at", "unread_at"])
            receipts.mark(session, ((broadcast_id, by.user_id) for broadcast_id in unread), "read_at", at=now)
        else:
            before = receipts.snapshot(session, by.user_id, by_hand, ["unread_at"])
            before["watermark"] = [receipts.watermark(session, by.user_id), through]
            missing = receipts.without_receipt(session, by.user_id, unread)
            receipts.mark(session, ((broadcast_id, by.user_id) for broadcast_id in missing), "delivered_at", at=now)
            receipts.keep_unread_out_of_sight(session, by.user_id, through=through, at=now)
            receipts.advance_watermark(session, by.user_id, through=through, at=now)
        receipts.put(session, by.user_id, by_hand, unread_at=None)
        key = _keep_step(session, by, before, now)
        done = Done("read", unread, receipts.raise_version(session, by.user_id, at=now), key)
    notify.receipt(by.user_id, done.kind, done.ids, done.version)
    return done


def undo(key: str, *, by: Actor, now: datetime) -> Done:
    """Take the newest act back. Raises Conflict when it is too late or something else was done since, Busy."""
    with writing() as session:
        receipts.lock_person(session, by.user_id)
        step = receipts.step(session, by.user_id)
        if step is None or not secrets.compare_digest(step.key, key) or now > step.at + UNDO:
            raise Conflict("It is too late to undo that.")
        if "watermark" in step.before:
            former, through = step.before["watermark"]
            receipts.move_watermark_back(session, by.user_id, through=through, to=former)
        ids = receipts.restore(session, by.user_id, step.before)
        session.delete(step)
        ids = [] if "watermark" in step.before else ids  # not only those: the watermark moved
        done = Done("undone", ids, receipts.raise_version(session, by.user_id, at=now))
    notify.receipt(by.user_id, done.kind, done.ids, done.version)
    return done


def wake(now: datetime) -> None:
    """Tell open pages of messages whose snooze is over, each once in the whole system. (They are back already.) Raises Busy."""
    with writing() as session:
        back: dict[int, list[int]] = {}
        for user_id, broadcast_id in receipts.wake(session, now=now, limit=_MOST_TO_WAKE):
            back.setdefault(user_id, []).append(broadcast_id)
        versions = {user_id: receipts.raise_version(session, user_id, at=now) for user_id in sorted(back)}
    for user_id, ids in back.items():
        notify.receipt(user_id, "returned", ids, versions[user_id])


def _act(
    kind: str,
    ids: Sequence[int],
    is_wanted: Callable[[Item], Any],
    write: Callable[[Session, list[Item]], None],
    *,
    by: Actor,
    now: datetime,
    refuse: Callable[[Item], Conflict | None] = lambda item: None,
    undo: Sequence[str] = (),
) -> Done:
    """Do something with those of `ids` that are this person's and that it would change.

    `refuse` gives the error for one message with which it cannot be done; of many, the others are done. `undo` names the
    columns that undoing puts back.
    """
    key = None
    with writing() as session:
        receipts.lock_person(session, by.user_id)
        items = inbox.some(by.viewer, Filters("all"), ids, now=now)
        if not items and ended_inbox.some(by.viewer, Filters("ended"), ids, now=now):
            raise Conflict("This message has ended: it can be read, and nothing else can be done with it.")
        if not items:
            raise NotFound()
        refusals = {item.card.id: refusal for item in items if (refusal := refuse(item))}
        if len(refusals) == len(items):
            raise refusals[items[0].card.id]
        refused, because = tuple(refusals), str(next(iter(refusals.values()), ""))
        changed = [item for item in items if item.card.id not in refusals and is_wanted(item)]
        if not changed:
            return Done(kind, [], refused=refused, because=because)
        done = [item.card.id for item in changed]
        if undo:
            key = _keep_step(session, by, receipts.snapshot(session, by.user_id, done, undo), now)
        write(session, changed)
        version = receipts.raise_version(session, by.user_id, at=now)
    notify.receipt(by.user_id, kind, done, version)
    return Done(kind, done, version, key, refused, because)


def _keep_step(session: Session, by: Actor, before: dict[str, Any], now: datetime) -> str | None:
    """Return the key of the step, None when it touched too many messages to be remembered."""
    if len(before["rows"]) > _MOST_TO_UNDO:
        return None
    key = secrets.token_hex(8)
    receipts.keep_step(session, by.user_id, key=key, at=now, before=before)
    return key


def _putting(by: Actor, now: datetime, **columns: Any) -> Callable[[Session, list[Item]], None]:
    """Whoever does something with a message has received it, whatever the stream of it told."""

    def write(session: Session, items: list[Item]) -> None:
        ids = [item.card.id for item in items]
        receipts.mark(session, [(broadcast_id, by.user_id) for broadcast_id in ids], "delivered_at", at=now)
        receipts.put(session, by.user_id, ids, **columns)

    return write


def _sleeps(item: Item, now: datetime) -> bool:
    return item.snoozed_until is not None and item.snoozed_until > now
