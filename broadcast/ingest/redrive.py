"""Redrives dead letters: reads them again under the contract, with their original or corrected bytes."""

from dataclasses import dataclass, replace
from datetime import datetime

from broadcast.actions import dead_letters as actions
from broadcast.actions import inbound_events
from broadcast.actions.inbound_batch import Outcome, PreparedInboundEvent
from broadcast.base.errors import ConfirmationRequired, Conflict
from broadcast.domain.actor import Actor
from broadcast.domain.confirmation import ConfirmationInput
from broadcast.domain.inbound import InboundEvent, Rejection
from broadcast.domain.permissions import Permission
from broadcast.ingest import contract
from broadcast.ingest.rules import RULES
from broadcast.store import dead_letters
from broadcast.store.models.ingest import DeadLetter

BATCH_SIZE = 200  # letters per request


@dataclass(frozen=True, slots=True)
class RedriveResult:
    """The result of a bulk redrive. `unconfirmed` counts those that need confirmation one by one."""

    done: int
    rejected: int
    left: int
    unconfirmed: int = 0


def parse_letter(letter: DeadLetter, value: bytes | None, *, now: datetime) -> InboundEvent:
    """Read a letter again, with `value` instead of its own if given. Never raises."""
    record = dead_letters.to_record(letter)
    is_complete = letter.last_offset is None and letter.size == len(letter.value or b"")
    if value is None and not is_complete:  # an incomplete letter is a different message, or none
        return InboundEvent(record, Rejection(letter.code, letter.reason, letter.source, letter.source_id))
    if value is not None:
        record = replace(record, value=value)
    return InboundEvent(record, contract.read_command(record, now=now, rules=RULES.current))


def preview_redrive(letter: DeadLetter, value: bytes | None, *, now: datetime) -> PreparedInboundEvent:
    """Preview a redrive: the draft with its audience, or why not. Writes nothing."""
    [prepared] = inbound_events.prepare([parse_letter(letter, value, now=now)])
    return prepared


def redrive(
    letter: DeadLetter, value: bytes | None, *, by: Actor, now: datetime, confirmed: ConfirmationInput | None = None
) -> Outcome:
    """Raises Forbidden, NotFound, ConfirmationRequired, Conflict, TemporarilyUnavailable."""
    inbound_event, is_edited = parse_letter(letter, value, now=now), value is not None
    return actions.redrive(letter.id, inbound_event, is_edited=is_edited, by=by, now=now, confirmed=confirmed)


def redrive_all(*, through: int, by: Actor, now: datetime) -> RedriveResult:
    """Redrive at most BATCH_SIZE letters up to id `through`, oldest first. Raises Forbidden, TemporarilyUnavailable."""
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
