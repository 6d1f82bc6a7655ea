"""Dead letters: read them again under the contract, with their original or corrected bytes, or purge them.

Every action checks permissions and is audited, like those of `broadcast.actions`.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from sqlalchemy.exc import DBAPIError

from broadcast.actions import inbound_events, notify
from broadcast.actions.inbound_batch import Outcome, PreparedInboundEvent, write_batch
from broadcast.actions.send_confirmation import require_proof, verify_confirmation
from broadcast.base.errors import ConfirmationRequired, Conflict, NotFound
from broadcast.domain.actor import Actor
from broadcast.domain.confirmation import ConfirmationInput, get_requirement
from broadcast.domain.inbound import InboundEvent, PublishCommand, Rejection
from broadcast.domain.permissions import Permission
from broadcast.ingest import contract
from broadcast.ingest.rules import RULES
from broadcast.store import audit, dead_letters
from broadcast.store.database import ROW_LOCK
from broadcast.store.models.ingest import DeadLetter, DeadLetterStatus
from broadcast.store.transactions import write_transaction

BATCH_SIZE = 200  # letters redriven per request


@dataclass(frozen=True, slots=True)
class RedriveResult:
    """The result of a bulk redrive. `unconfirmed` counts those that need confirmation one by one."""

    done: int
    rejected: int
    left: int
    unconfirmed: int = 0


def preview_redrive(letter: DeadLetter, value: bytes | None, *, now: datetime) -> PreparedInboundEvent:
    """Preview a redrive: the draft with its audience, or why not. Writes nothing."""
    [prepared] = inbound_events.prepare([_parse_letter(letter, value, now)])
    return prepared


def redrive(
    letter: DeadLetter, value: bytes | None, *, by: Actor, now: datetime, confirmed: ConfirmationInput | None = None
) -> Outcome:
    """Ingest a letter again, with `value` instead of its own if given; if it is rejected again, it keeps the new reason.

    Raises ConfirmationRequired (like any other broadcast), NotFound, Conflict (it is no longer waiting).
    """
    by.require(Permission.OPERATE)
    inbound_event = _parse_letter(letter, value, now)
    [prepared] = inbound_events.prepare([inbound_event])
    proof, command = verify_confirmation(confirmed, by=by, now=now), prepared.inbound_event.command
    if isinstance(command, PublishCommand) and not command.draft.keep_as_draft:
        required = get_requirement(command.draft, prepared.recipient_count)
        require_proof(proof, required, prepared.recipient_count)
    ingest_actor, is_edited = inbound_events.get_ingest_actor(now=now), value is not None
    try:
        outcome = _redrive_in_transaction(letter.id, prepared, is_edited, ingest_actor, by, now)
    except DBAPIError as problem:
        rejection = inbound_events.reject_failed(inbound_event, problem)
        prepared = PreparedInboundEvent(replace(inbound_event, command=rejection))
        outcome = _redrive_in_transaction(letter.id, prepared, is_edited, ingest_actor, by, now)
    notify.notify_workers()
    return outcome


def _parse_letter(letter: DeadLetter, value: bytes | None, now: datetime) -> InboundEvent:
    record = dead_letters.to_record(letter)
    is_complete = letter.last_offset is None and letter.size == len(letter.value or b"")
    if value is None and not is_complete:  # an incomplete letter is a different message, or none
        return InboundEvent(record, Rejection(letter.code, letter.reason, letter.source, letter.source_id))
    if value is not None:
        record = replace(record, value=value)
    return InboundEvent(record, contract.read_command(record, now=now, rules=RULES.current))


def _redrive_in_transaction(
    letter_id: int, prepared: PreparedInboundEvent, is_edited: bool, ingest_actor: Actor, by: Actor, now: datetime
) -> Outcome:
    with _change_waiting_letter(letter_id) as (session, letter):
        [outcome] = write_batch(session, [prepared], by=ingest_actor, now=now)
        letter.tries += 1
        letter.tried_at = now
        if outcome.rejection is not None:
            outcome = replace(outcome, kind="rejected")  # its record is known already
            letter.code, letter.reason = outcome.rejection.code, outcome.rejection.reason
        else:
            letter.status, letter.broadcast_id = DeadLetterStatus.REDRIVEN.value, outcome.broadcast_id
        detail = {"place": letter.position, "edited": is_edited, "outcome": outcome.kind}
        audit.record(session, by, "dead_letter.redriven", "dead_letter", letter.id, now=now, **detail)
        return outcome


def redrive_all(*, through: int, by: Actor, now: datetime) -> RedriveResult:
    """Redrive at most BATCH_SIZE letters up to id `through`, oldest first."""
    by.require(Permission.OPERATE)
    done = rejected = unconfirmed = 0
    for letter_id in dead_letters.list_waiting_ids(through=through, limit=BATCH_SIZE):
        letter = dead_letters.get(letter_id)
        try:
            outcome = redrive(letter, None, by=by, now=now)
        except Conflict:
            continue  # handled by somebody else meanwhile
        except ConfirmationRequired:
            unconfirmed += 1
            continue
        rejected += outcome.kind == "rejected"
        done += outcome.kind != "rejected"
    left = max(0, dead_letters.count_waiting(through=through) - rejected - unconfirmed)
    return RedriveResult(done, rejected, left, unconfirmed)


def purge(letter_id: int, *, by: Actor, now: datetime) -> None:
    """Purge the contents of a letter; its position stays known. Raises NotFound, Conflict."""
    by.require(Permission.OPERATE)
    with _change_waiting_letter(letter_id) as (session, letter):
        detail = {"place": letter.position, "reason": letter.reason}
        audit.record(session, by, "dead_letter.purged", "dead_letter", letter.id, now=now, **detail)
        dead_letters.purge(session, [letter.id])


def purge_all(*, through: int, by: Actor, now: datetime) -> int:
    """Purge every waiting letter up to id `through`, the newest one that was seen; return how many.

    Runs in transactions of some hundred letters, each with an audit row; letters purged before a failure stay purged.
    """
    by.require(Permission.OPERATE)
    purged_total = 0
    while True:
        with write_transaction() as session:
            purged_count = dead_letters.purge(session, None, through=through)
            if purged_count or not purged_total:
                detail = {"count": purged_count, "through": through}
                audit.record(session, by, "dead_letter.purged", "dead_letter", None, now=now, **detail)
        purged_total += purged_count
        if purged_count < dead_letters.PURGE_BATCH_SIZE:
            return purged_total


@contextmanager
def _change_waiting_letter(letter_id: int) -> Iterator[tuple[Any, DeadLetter]]:
    """A write transaction's session with this letter, locked. Raises NotFound, Conflict."""
    with write_transaction() as session:
        letter = session.get(DeadLetter, letter_id, with_for_update=ROW_LOCK)
        if letter is None:
            raise NotFound("There is no such dead letter.")
        if letter.status != DeadLetterStatus.WAITING:
            raise Conflict("This dead letter is no longer waiting. Somebody has redriven or purged it.")
        yield session, letter
