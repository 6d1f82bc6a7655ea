"""Events from outside become broadcasts: whole batches in one transaction, each event once however often it arrives.

1. Before the transaction: whom each draft reaches, and its Markdown as HTML, letting other greenlets run.
2. In it (`actions.batch`): what is known already, what is new, what joins a card, what is above the cap of its source, what is
   recalled; dead letters and figures; then the log's numbers, all at once, the rows and their events.
3. A batch that fails is taken again one by one, so that one bad event does not hold up the rest.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

import structlog
from sqlalchemy.exc import IntegrityError, ProgrammingError
from sqlalchemy.orm import Session

from broadcast.actions import notify
from broadcast.actions.audiences import resolve
from broadcast.actions.inbound_batch import Batch, Kind, Ready
from broadcast.base.cooperative import Breath
from broadcast.base.errors import Busy, Invalid
from broadcast.content import markdown
from broadcast.domain.actor import Actor
from broadcast.domain.audience import Audience
from broadcast.domain.inbound import Arrival, Publish, Rejected
from broadcast.domain.message import Target
from broadcast.store import users
from broadcast.store.database import writing
from broadcast.store.models import User

MOST = 500  # events in one transaction
_NOT_STORED = "This event could not be stored ({}). The log of the server says more."
_ACCOUNT = ":events"  # nobody can be given such a name, and it has no password

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one arrival; `broadcast_id` is None when it was rejected, and `rejected` says why."""

    kind: Kind
    broadcast_id: int | None = None
    rejected: Rejected | None = None


def account(*, now: datetime) -> Actor:
    """Who announces what comes from Kafka: an account of its own, made when first needed, that cannot sign in. Raises Busy."""
    if users.by_username(_ACCOUNT) is None:
        try:
            with writing() as session:
                session.add(User(username=_ACCOUNT, name="Events from outside", created_at=now, disabled_at=now))
        except IntegrityError:
            pass  # another worker was faster
    user = users.by_username(_ACCOUNT)
    return Actor(user.id, user.name, may_announce=True)


def ingest(arrivals: Sequence[Arrival], *, by: Actor, now: datetime) -> list[Outcome]:
    """Do what at most MOST arrivals ask for, in order; return what became of each. Lets other greenlets run.

    What is rejected and came from Kafka is kept as a dead letter in the same transaction. Raises Forbidden, Busy (nothing of
    a part was written: hand it in again, what was written before is found as repeated).
    """
    by.require_announcer()
    try:
        outcomes = _ingest(arrivals, by, now)
    except (
        Busy,
        ProgrammingError,
    ):  # away, or without a table that it should have: no event is to blame, so none is buried
        raise
    except Exception as problem:
        if len(arrivals) > 1:
            _log.warning(
                "events.one_by_one", events=len(arrivals), problem=f"{type(problem).__name__}: {problem}"[:300]
            )
            return [outcome for arrival in arrivals for outcome in ingest([arrival], by=by, now=now)]
        outcomes = [_once_more(arrivals[0], problem, by, now)]
    notify.ring()
    return outcomes


def _ingest(arrivals: Sequence[Arrival], by: Actor, now: datetime) -> list[Outcome]:
    ready = prepare(arrivals)
    with writing() as session:
        return write(session, ready, by=by, now=now)


def _once_more(arrival: Arrival, problem: Exception, by: Actor, now: datetime) -> Outcome:
    """If another worker announced the event a moment ago, it is found as repeated now; else it is buried."""
    if isinstance(problem, IntegrityError):
        try:
            return _ingest([arrival], by, now)[0]
        except IntegrityError as again:
            problem = again
    return _bury(arrival, problem, by, now)


def _bury(arrival: Arrival, problem: Exception, by: Actor, now: datetime) -> Outcome:
    """Keep an event that the database itself refuses as a dead letter; raise for the webhook, whose caller is told.

    What cannot even be buried as it is, is buried without its names: nothing that a record holds may come again for ever.
    """
    if arrival.record.place is None:
        raise problem
    if isinstance(arrival.reading, Rejected):
        bare = Rejected("failed", _NOT_STORED.format(type(problem).__name__))
        arrival = Arrival(replace(arrival.record, key=None, headers=()), bare)
    else:
        arrival = replace(arrival, reading=failed(arrival, problem))
    try:
        return _ingest([arrival], by, now)[0]
    except (Busy, ProgrammingError):
        raise
    except Exception as again:
        if arrival.reading.source is None:
            raise
        return _bury(arrival, again, by, now)


def failed(arrival: Arrival, problem: Exception) -> Rejected:
    """What is kept of an event that the database refused for a reason that no check foresaw."""
    _log.error("event.failed", place=str(arrival.record.place), exc_info=problem)
    return Rejected(
        "failed", _NOT_STORED.format(type(problem).__name__), arrival.reading.source, arrival.reading.source_id
    )


def prepare(arrivals: Iterable[Arrival]) -> list[Ready]:
    """Step 1: find audiences and render Markdown. Lets other greenlets run.

    A draft for nobody, or with a text that is not shown, becomes Rejected.
    """
    known: dict[Target, tuple[Audience, int] | Rejected] = {}
    ready, breath = [], Breath()
    for arrival in arrivals:
        reading = arrival.reading
        if not isinstance(reading, Publish):
            ready.append(Ready(arrival))
            continue
        target = reading.draft.target
        if target not in known:
            known[target] = _reach(target)
        ready.append(_ready(arrival, known[target]))
        breath.take()
    return ready


def _ready(arrival: Arrival, found: tuple[Audience, int] | Rejected) -> Ready:
    reading = arrival.reading
    if not isinstance(found, Rejected):
        try:
            return Ready(arrival, *found, html=markdown.render(reading.draft.content))
        except Invalid as invalid:
            found = Rejected("fields", str(invalid))
    return Ready(replace(arrival, reading=found.of(reading.source, reading.source_id)))


def _reach(target: Target) -> tuple[Audience, int] | Rejected:
    if target.snapshot:
        return Rejected("audience", "The audience of an event is never a snapshot; leave that away.")
    try:
        audience = resolve(target)
    except Invalid as invalid:
        return Rejected("audience", str(invalid))
    reach = users.count(audience)
    return (audience, reach) if reach else Rejected("audience", "Nobody has this role at present: it reaches nobody.")


def write(session: Session, ready: Sequence[Ready], *, by: Actor, now: datetime) -> list[Outcome]:
    """Step 2, inside a transaction. Raises what the database raises: then nothing of it holds."""
    batch = Batch(session, by, now)
    batch.load(ready)
    outcomes = []
    for one in ready:
        outcomes.append(batch.take(one))
        batch.breath.take()
    batch.store()
    return [Outcome(kind, broadcast and broadcast.id, rejected) for kind, broadcast, rejected in outcomes]
