"""What is done with dead letters: tried again on the path of a first arrival, or emptied. All of it is audited."""

from dataclasses import replace
from datetime import datetime

from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from broadcast.actions import audit, inbound_events, notify, send_confirmation
from broadcast.actions.inbound_events import Outcome
from broadcast.base.errors import Conflict, NotFound
from broadcast.domain import confirmation
from broadcast.domain.actor import Actor
from broadcast.domain.confirmation import Given
from broadcast.domain.inbound import Arrival, Publish
from broadcast.domain.permissions import Permission
from broadcast.store import dead_letters
from broadcast.store.database import ROW_LOCK, writing
from broadcast.store.models.ingest import DeadLetter, LetterStatus


def redrive(
    letter_id: int, arrival: Arrival, *, edited: bool, by: Actor, now: datetime, confirmed: Given | None = None
) -> Outcome:
    """Hand a letter in once more, read anew as `arrival`; what is still wrong stays in it with its new reason.

    Raises Forbidden, NotFound, ConfirmationNeeded, Conflict (it is waiting no more), Busy.
    """
    by.require(Permission.OPERATE)
    _demand(arrival, send_confirmation.prove(confirmed, by=by, now=now))
    account = inbound_events.account(now=now)
    try:
        outcome = _redrive(letter_id, arrival, edited, account, by, now)
    except DBAPIError as problem:
        arrival = replace(arrival, reading=inbound_events.failed(arrival, problem))
        outcome = _redrive(letter_id, arrival, edited, account, by, now)
    notify.ring()
    return outcome


def _demand(arrival: Arrival, proof: send_confirmation.Proof) -> None:
    """Raise ConfirmationNeeded unless what would be published was confirmed as any sending is."""
    if proof.is_asked and isinstance(arrival.reading, Publish) and not arrival.reading.draft.keep_as_draft:
        [ready] = inbound_events.prepare([arrival])
        send_confirmation.demand(proof, confirmation.needed(arrival.reading.draft, ready.reach), ready.reach)


def _redrive(letter_id: int, arrival: Arrival, edited: bool, account: Actor, by: Actor, now: datetime) -> Outcome:
    ready = inbound_events.prepare([arrival])
    with writing() as session:
        letter = _waiting(session, letter_id)
        [outcome] = inbound_events.write(session, ready, by=account, now=now)
        letter.tries += 1
        letter.tried_at = now
        if outcome.rejected is not None:
            outcome = replace(outcome, kind="rejected")  # as a record it is known already
            letter.code, letter.reason = outcome.rejected.code, outcome.rejected.reason
        else:
            letter.status, letter.broadcast_id = LetterStatus.REDRIVEN.value, outcome.broadcast_id
        _record(session, by, "dead_letter.redriven", letter, now, edited=edited, outcome=outcome.kind)
        return outcome


def purge(letter_id: int, *, by: Actor, now: datetime) -> None:
    """Empty a letter for good; its place stays known. Raises Forbidden, NotFound, Conflict, Busy."""
    by.require(Permission.OPERATE)
    with writing() as session:
        letter = _waiting(session, letter_id)
        _record(session, by, "dead_letter.purged", letter, now, reason=letter.reason)
        dead_letters.empty(session, [letter.id])


def purge_all(*, through: int, by: Actor, now: datetime) -> int:
    """Empty every waiting letter up to id `through`, the newest that was seen; return how many. Raises Forbidden, Busy.

    In transactions of some hundred letters each, with an audit row of each: what was emptied before a failure stays so.
    """
    by.require(Permission.OPERATE)
    total = 0
    while True:
        with writing() as session:
            count = dead_letters.empty(session, None, through=through)
            if count or not total:
                audit.record(
                    session, by, "dead_letter.purged", "dead_letter", None, now=now, count=count, through=through
                )
        total += count
        if count < dead_letters.PURGED_AT_ONCE:
            return total


def _waiting(session: Session, letter_id: int) -> DeadLetter:
    letter = session.get(DeadLetter, letter_id, with_for_update=ROW_LOCK)
    if letter is None:
        raise NotFound("There is no such dead letter.")
    if letter.status != LetterStatus.WAITING:
        raise Conflict("This dead letter is waiting no more: somebody has redriven or purged it.")
    return letter


def _record(session: Session, by: Actor, action: str, letter: DeadLetter, now: datetime, **detail: object) -> None:
    audit.record(session, by, action, "dead_letter", letter.id, now=now, place=letter.place, **detail)
