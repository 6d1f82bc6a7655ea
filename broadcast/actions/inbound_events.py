"""Turn inbound events into broadcasts: batches in one transaction, each event exactly once however often it arrives.

1. Before the transaction: resolve audiences and render Markdown, letting other greenlets run.
2. In the transaction (`actions.inbound_batch`): decide what is a repeat, new, collapsed, above the rate cap, or a
recall; write dead letters and statistics; then reserve all seqs at once and write the rows and their events.
3. A batch that fails is retried one by one, so that one bad event does not block the rest.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import datetime

import structlog
from sqlalchemy.exc import IntegrityError, ProgrammingError

from broadcast.actions import notify
from broadcast.actions.audiences import resolve_audience
from broadcast.actions.escalation_policies import check_choice
from broadcast.actions.inbound_batch import Outcome, PreparedInboundEvent, write_batch
from broadcast.base.cooperative import Yielder
from broadcast.base.errors import Forbidden, Invalid, TemporarilyUnavailable
from broadcast.content import markdown
from broadcast.domain.actor import Actor
from broadcast.domain.audience import Audience
from broadcast.domain.inbound import InboundEvent, PublishCommand, Rejection
from broadcast.domain.message import Target
from broadcast.store import audiences, users
from broadcast.store.models import User
from broadcast.store.transactions import write_transaction

MAX_BATCH_EVENTS = 500  # events in one transaction
_STORE_FAILED = "This event could not be stored ({}). The log of the server says more."
_ACCOUNT_NAME = "Events from outside"
_ACCOUNT_USERNAME = ":events"  # no user can have this name, and it has no password

_log = structlog.get_logger(__name__)


def get_ingest_actor(*, now: datetime) -> Actor:
    """The account that publishes events from Kafka. It is created on first use and cannot sign in."""
    if users.get_by_username(_ACCOUNT_USERNAME) is None:
        try:
            with write_transaction() as session:
                session.add(User(username=_ACCOUNT_USERNAME, name=_ACCOUNT_NAME, created_at=now, disabled_at=now))
        except IntegrityError:
            pass  # another worker was faster
    user = users.get_by_username(_ACCOUNT_USERNAME)
    return Actor(user.id, user.name, may_ingest_events=True)


def ingest(inbound_events: Sequence[InboundEvent], *, by: Actor, now: datetime) -> list[Outcome]:
    """Apply at most MAX_BATCH_EVENTS events in order; return the outcome of each. Lets other greenlets run.

    A rejected event from Kafka becomes a dead letter in the same transaction. Raises TemporarilyUnavailable (a part was
    not written: pass all in again, what was written before is then `repeated`).
    """
    if not by.may_ingest_events:
        raise Forbidden()
    try:
        outcomes = _ingest_in_transaction(inbound_events, by, now)
    except (TemporarilyUnavailable, ProgrammingError):
        # database down or a table missing: not the event's fault, so no dead letter
        raise
    except Exception as problem:
        if len(inbound_events) > 1:
            description = f"{type(problem).__name__}: {problem}"[:300]
            _log.warning("events.one_by_one", events=len(inbound_events), problem=description)
            return [outcome for arrival in inbound_events for outcome in ingest([arrival], by=by, now=now)]
        outcomes = [_retry_once(inbound_events[0], problem, by, now)]
    notify.notify_workers()
    return outcomes


def _ingest_in_transaction(inbound_events: Sequence[InboundEvent], by: Actor, now: datetime) -> list[Outcome]:
    prepared = prepare(inbound_events)
    with write_transaction() as session:
        return write_batch(session, prepared, by=by, now=now)


def _retry_once(inbound_event: InboundEvent, problem: Exception, by: Actor, now: datetime) -> Outcome:
    """If another worker published the event a moment ago, it is `repeated` now; otherwise it becomes a dead letter."""
    if isinstance(problem, IntegrityError):
        try:
            return _ingest_in_transaction([inbound_event], by, now)[0]
        except IntegrityError as second_problem:
            problem = second_problem
    return _store_dead_letter(inbound_event, problem, by, now)


def _store_dead_letter(inbound_event: InboundEvent, problem: Exception, by: Actor, now: datetime) -> Outcome:
    """Store an event that the database refuses as a dead letter; for the webhook raise, so that the caller is told.

    If even that fails, the dead letter is stored without source, id, key and headers: no content may make a record come
    back endlessly.
    """
    if inbound_event.record.position is None:
        raise problem
    if isinstance(inbound_event.command, Rejection):
        rejection = Rejection("failed", _STORE_FAILED.format(type(problem).__name__))
        inbound_event = InboundEvent(replace(inbound_event.record, key=None, headers=()), rejection)
    else:
        inbound_event = InboundEvent(inbound_event.record, reject_failed(inbound_event, problem))
    try:
        return _ingest_in_transaction([inbound_event], by, now)[0]
    except (TemporarilyUnavailable, ProgrammingError):
        raise
    except Exception as second_problem:
        if inbound_event.command.source is None:
            raise
        return _store_dead_letter(inbound_event, second_problem, by, now)


def reject_failed(inbound_event: InboundEvent, problem: Exception) -> Rejection:
    """The rejection of an event that the database refused for a reason no check foresaw."""
    _log.error("event.failed", place=str(inbound_event.record.position), exc_info=problem)
    command, reason = inbound_event.command, _STORE_FAILED.format(type(problem).__name__)
    return Rejection("failed", reason, command.source, command.source_id)


def prepare(inbound_events: Iterable[InboundEvent]) -> list[PreparedInboundEvent]:
    """Step 1: resolve audiences and render Markdown, or reject. Lets other greenlets run."""
    resolved_by_target: dict[Target, tuple[Audience, int] | Rejection] = {}
    prepared, yielder = [], Yielder()
    for inbound_event in inbound_events:
        command = inbound_event.command
        if not isinstance(command, PublishCommand):
            prepared.append(PreparedInboundEvent(inbound_event))
            continue
        target = command.draft.target
        if target not in resolved_by_target:
            resolved_by_target[target] = _resolve_target(target)
        prepared.append(_prepare_publish(inbound_event, resolved_by_target[target]))
        yielder.maybe_yield()
    return prepared


def _prepare_publish(inbound_event: InboundEvent, resolved: tuple[Audience, int] | Rejection) -> PreparedInboundEvent:
    command = inbound_event.command
    if not isinstance(resolved, Rejection):
        try:
            check_choice(command.draft.escalation)
            return PreparedInboundEvent(inbound_event, *resolved, html=markdown.render(command.draft.content))
        except Invalid as invalid:
            resolved = Rejection("fields", str(invalid))
    return PreparedInboundEvent(replace(inbound_event, command=resolved.with_source(command.source, command.source_id)))


def _resolve_target(target: Target) -> tuple[Audience, int] | Rejection:
    if target.snapshot:
        return Rejection("audience", "The audience of an event is never a snapshot; leave that away.")
    try:
        audience = resolve_audience(target)
    except Invalid as invalid:
        return Rejection("audience", str(invalid))
    if recipient_count := audiences.count(audience):
        return audience, recipient_count
    return Rejection("audience", "Nobody has this role at present: it reaches nobody.")
