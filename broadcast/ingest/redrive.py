"""Dead letters on their way back: read again under the contract, as at a first arrival, with their bytes or corrected ones."""

from dataclasses import dataclass, replace
from datetime import datetime

from broadcast.actions import dead_letters as actions
from broadcast.actions import inbound_events
from broadcast.actions.inbound_batch import Ready
from broadcast.actions.inbound_events import Outcome
from broadcast.base.errors import ConfirmationNeeded, Conflict
from broadcast.domain.actor import Actor
from broadcast.domain.confirmation import Given
from broadcast.domain.inbound import Arrival, Rejected
from broadcast.domain.permissions import Permission
from broadcast.ingest import contract
from broadcast.ingest.rules import RULES
from broadcast.store import dead_letters
from broadcast.store.models.ingest import DeadLetter

AT_ONCE = 200  # letters redriven by one request


@dataclass(frozen=True, slots=True)
class Redriven:
    """How a redrive of many went. `unconfirmed` are those that must be redriven one by one, as they must be confirmed."""

    done: int
    rejected: int
    left: int
    unconfirmed: int = 0


def read(letter: DeadLetter, value: bytes | None, *, now: datetime) -> Arrival:
    """Read a letter anew; with `value`, as if that had been sent instead. Never raises."""
    record = dead_letters.record_of(letter)
    is_whole = letter.last_offset is None and letter.size == len(letter.value or b"")
    if value is None and not is_whole:  # what is left of it is another message, or none
        return Arrival(record, Rejected(letter.code, letter.reason, letter.source, letter.source_id))
    if value is not None:
        record = replace(record, value=value)
    return Arrival(record, contract.read(record, now=now, rules=RULES.current))


def rehearse(letter: DeadLetter, value: bytes | None, *, now: datetime) -> Ready:
    """What a redrive would be given to write: the draft with its audience, or why not. Writes nothing."""
    [ready] = inbound_events.prepare([read(letter, value, now=now)])
    return ready


def redrive(
    letter: DeadLetter, value: bytes | None, *, by: Actor, now: datetime, confirmed: Given | None = None
) -> Outcome:
    """Raises Forbidden, NotFound, ConfirmationNeeded, Conflict, Busy."""
    arrival, edited = read(letter, value, now=now), value is not None
    return actions.redrive(letter.id, arrival, edited=edited, by=by, now=now, confirmed=confirmed)


def redrive_all(*, through: int, by: Actor, now: datetime) -> Redriven:
    """Redrive waiting letters up to id `through`, oldest first, at most AT_ONCE. Raises Forbidden, Busy."""
    by.require(Permission.OPERATE)
    done = rejected = unconfirmed = 0
    for letter_id in dead_letters.waiting_ids(through=through, limit=AT_ONCE):
        letter = dead_letters.by_id(letter_id)
        try:
            outcome = redrive(letter, None, by=by, now=now)
        except Conflict:
            continue  # somebody else was faster
        except ConfirmationNeeded:
            unconfirmed += 1
            continue
        rejected += outcome.kind == "rejected"
        done += outcome.kind != "rejected"
    left = max(0, dead_letters.count_waiting(through=through) - rejected - unconfirmed)
    return Redriven(done, rejected, left, unconfirmed)
