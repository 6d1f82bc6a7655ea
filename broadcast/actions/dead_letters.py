"""Redrive dead letters through the normal ingest path, or purge them. Every action is audited."""

from dataclasses import replace
from datetime import datetime

from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from broadcast.actions import inbound_events, notify, send_confirmation
from broadcast.actions.inbound_batch import Outcome, PreparedInboundEvent, write_batch
from broadcast.base.errors import Conflict, NotFound
from broadcast.domain import confirmation
from broadcast.domain.actor import Actor
from broadcast.domain.confirmation import ConfirmationInput
from broadcast.domain.inbound import InboundEvent, PublishCommand
from broadcast.domain.permissions import Permission
from broadcast.store import audit, dead_letters
from broadcast.store.database import ROW_LOCK
from broadcast.store.models.ingest import DeadLetter, DeadLetterStatus
from broadcast.store.transactions import write_transaction


def redrive(
    letter_id: int,
    inbound_event: InboundEvent,
    *,
    is_edited: bool,
    by: Actor,
    now: datetime,
    confirmed: ConfirmationInput | None = None,
) -> Outcome:
    """Ingest a letter again, parsed as `inbound_event`; if it is rejected again, the letter keeps the new reason.

    Raises NotFound, ConfirmationRequired, Conflict (it is no longer waiting).
    """
    by.require(Permission.OPERATE)
    [prepared] = inbound_events.prepare([inbound_event])
    _require_confirmation(prepared, send_confirmation.verify_confirmation(confirmed, by=by, now=now))
    ingest_actor = inbound_events.get_ingest_actor(now=now)
    try:
        outcome = _redrive_in_transaction(letter_id, prepared, is_edited, ingest_actor, by, now)
    except DBAPIError as problem:
        rejection = inbound_events.reject_failed(inbound_event, problem)
        prepared = PreparedInboundEvent(replace(inbound_event, command=rejection))
        outcome = _redrive_in_transaction(letter_id, prepared, is_edited, ingest_actor, by, now)
    notify.notify_workers()
    return outcome


def _require_confirmation(prepared: PreparedInboundEvent, proof: send_confirmation.ConfirmationProof) -> None:
    """Raise ConfirmationRequired unless the broadcast that would be published was confirmed like any other."""
    command = prepared.inbound_event.command
    if isinstance(command, PublishCommand) and not command.draft.keep_as_draft:
        required = confirmation.get_requirement(command.draft, prepared.recipient_count)
        send_confirmation.require_proof(proof, required, prepared.recipient_count)


def _redrive_in_transaction(
    letter_id: int, prepared: PreparedInboundEvent, is_edited: bool, ingest_actor: Actor, by: Actor, now: datetime
) -> Outcome:
    with write_transaction() as session:
        letter = _get_waiting_letter(session, letter_id)
        [outcome] = write_batch(session, [prepared], by=ingest_actor, now=now)
        letter.tries += 1
        letter.tried_at = now
        if outcome.rejection is not None:
            outcome = replace(outcome, kind="rejected")  # its record is known already
            letter.code, letter.reason = outcome.rejection.code, outcome.rejection.reason
        else:
            letter.status, letter.broadcast_id = DeadLetterStatus.REDRIVEN.value, outcome.broadcast_id
        _record_audit(session, by, "dead_letter.redriven", letter, now, edited=is_edited, outcome=outcome.kind)
        return outcome


def purge(letter_id: int, *, by: Actor, now: datetime) -> None:
    """Purge the contents of a letter; its position stays known. Raises NotFound, Conflict."""
    by.require(Permission.OPERATE)
    with write_transaction() as session:
        letter = _get_waiting_letter(session, letter_id)
        _record_audit(session, by, "dead_letter.purged", letter, now, reason=letter.reason)
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
                audit.record(
                    session, by, "dead_letter.purged", "dead_letter", None, now=now, count=purged_count, through=through
                )
        purged_total += purged_count
        if purged_count < dead_letters.PURGE_BATCH_SIZE:
            return purged_total


def _get_waiting_letter(session: Session, letter_id: int) -> DeadLetter:
    letter = session.get(DeadLetter, letter_id, with_for_update=ROW_LOCK)
    if letter is None:
        raise NotFound("There is no such dead letter.")
    if letter.status != DeadLetterStatus.WAITING:
        raise Conflict("This dead letter is no longer waiting. Somebody has redriven or purged it.")
    return letter


def _record_audit(
    session: Session, by: Actor, action: str, letter: DeadLetter, now: datetime, **detail: object
) -> None:
    audit.record(session, by, action, "dead_letter", letter.id, now=now, place=letter.position, **detail)
