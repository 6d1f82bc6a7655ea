"""One transaction's events from outside: decided one after the other in memory, then stored together.

An event that is published, joins a live card (`collapsed`) or waits as a draft (`quarantined`) is known by its owner, source
and id from then on; whatever comes again under that name is `repeated`. The caller opens the transaction and rings after it.
"""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Literal

from sqlalchemy.orm import Session

from broadcast.actions import audit
from broadcast.actions.broadcast_rows import add_people, fill, mark_audience, unsaved
from broadcast.actions.broadcasts import message, removal, update
from broadcast.actions.flood_control import Gathering
from broadcast.base.cooperative import Breath
from broadcast.domain import lifecycle
from broadcast.domain.actor import Actor
from broadcast.domain.audience import Audience
from broadcast.domain.event_source import canonical
from broadcast.domain.inbound import Arrival, Cancel, Publish, Record, Rejected
from broadcast.domain.lifecycle import Status
from broadcast.domain.message import Draft
from broadcast.store import acknowledged_revisions, broadcasts, dead_letters, event_sources, log
from broadcast.store.event_sources import Whose
from broadcast.store.fast.broadcast_row import NewBroadcast
from broadcast.store.models import Broadcast, ingest

Kind = Literal["published", "collapsed", "quarantined", "repeated", "cancelled", "rejected"]
_Row = Broadcast | NewBroadcast
_Name = tuple[str, str, str]  # owner, source, id there
_Taken = tuple[Kind, _Row | None, Rejected | None]


@dataclass(frozen=True, slots=True)
class Ready:
    """An arrival and what could be found out before the transaction. `audience` is None for all but a Publish."""

    arrival: Arrival
    audience: Audience | None = None
    reach: int = 0
    html: str = ""


def compose(ready: Ready, *, by: Actor, now: datetime) -> NewBroadcast:
    """The row of a Publish that is Ready, not yet in a session."""
    reading = ready.arrival.reading
    broadcast = unsaved(by, now)
    broadcast.sender_name = reading.sender_name
    fill(broadcast, reading.draft, now, html=ready.html)
    mark_audience(broadcast, ready.audience)
    broadcast.audience_count, broadcast.status = ready.reach, _first_status(reading.draft, now)
    broadcast.source, broadcast.source_id, broadcast.source_owner = reading.source, reading.source_id, reading.owner
    broadcast.collapse_key = reading.collapse_key
    return broadcast


def _first_status(draft: Draft, now: datetime) -> str:
    if draft.keep_as_draft:
        return Status.DRAFT.value
    return (Status.SCHEDULED if draft.scheduled_at and draft.scheduled_at > now else Status.ACTIVE).value


class Batch:
    """`load`, `take` each in order, `store`."""

    def __init__(self, session: Session, by: Actor, now: datetime):
        self._session, self._by, self._now = session, by, now
        self.breath = Breath()
        self._gathering = Gathering(session, by.user_id, now)
        self._known: dict[_Name, _Row] = {}
        self._borne: set[tuple[str, str]] = set()  # source and id of which a broadcast has them, whoever's it is
        self._new: list[tuple[NewBroadcast, Audience]] = []
        self._logged: list[tuple[_Row, Audience, str]] = []  # what goes into the log, in order, by its past
        self._cancelled: list[_Row] = []
        self._figures: dict[str, Counter[str]] = defaultdict(Counter)
        self._samples: dict[str, list[tuple[Record, str | None]]] = defaultdict(list)

    def load(self, ready: Sequence[Ready]) -> None:
        """Find the broadcasts that these events name: announced before, to be recalled, or to be joined."""
        readings = [one.arrival.reading for one in ready]
        self._gathering.hold(readings)
        wanted: dict[tuple[str, str], set[str]] = defaultdict(set)
        before: dict[str, set[str]] = defaultdict(
            set
        )  # of the time before names had owners, and were kept as they were spelt
        for reading in readings:
            if isinstance(reading, Publish | Cancel):
                source_id = reading.source_id if isinstance(reading, Publish) else reading.cancels
                wanted[reading.owner, reading.source].add(source_id)
                for source in {reading.source, reading.spelt}:
                    before[source].add(source_id)
        owners = sorted({owner for owner, _ in wanted})
        for (source, source_id), row in event_sources.collapsed(self._session, before).items():
            self._know(row, source, source_id, owners)
        for row in broadcasts.by_source(self._session, before):
            self._know(row, row.source, row.source_id, owners)
            self._borne.add((row.source, row.source_id))
        self._known |= event_sources.named(self._session, wanted)
        self._gathering.load(readings)

    def _know(self, row: _Row, source: str, source_id: str, owners: Sequence[str]) -> None:
        """Keep a broadcast under the name that its event has for whoever owns it, among `owners`."""
        for owner in owners:
            if Whose(owner, self._by.user_id).holds(row):
                self._known[owner, canonical(source), source_id] = row

    def take(self, ready: Ready) -> _Taken:
        """Decide what becomes of one event, after those before it."""
        reading = ready.arrival.reading
        match reading:
            case Publish():
                taken = self._publish(reading, ready)
            case Cancel():
                taken = self._cancel(reading)
            case Rejected():
                taken = ("rejected", None, reading)
        kind, broadcast, rejected = taken
        place, source = ready.arrival.record.place, reading.source
        if rejected is not None and place is not None:
            is_new = dead_letters.add(self._session, ready.arrival.record, rejected, at=self._now)
            kind, source = "rejected" if is_new else "repeated", source or f"kafka:{place.topic}"
        self._figures[source or "?"][kind] += 1
        if kind not in ("repeated", "cancelled") and reading.source:
            self._samples[reading.source].append((ready.arrival.record, getattr(reading, "owner", None)))
        return kind, broadcast, rejected

    def _publish(self, reading: Publish, ready: Ready) -> _Taken:
        name = (reading.owner, reading.source, reading.source_id)
        if earlier := self._known.get(name):
            return "repeated", earlier, None
        kind, broadcast, rejected = self._place(reading, ready)
        if broadcast is not None:
            self._known[name] = broadcast
        return kind, broadcast, rejected

    def _place(self, reading: Publish, ready: Ready) -> _Taken:
        """On a live card, as a broadcast of its own, or in quarantine."""
        status = _first_status(reading.draft, self._now)
        if status == Status.ACTIVE and (card := self._gathering.card_for(reading, ready.audience)):
            self._join(card, reading, ready)
            return "collapsed", card, None
        if status != Status.DRAFT and not self._gathering.may_show(reading):
            return self._quarantine(reading, ready)
        broadcast = self._begin(ready)
        if broadcast.status == Status.ACTIVE:
            broadcast.published_at = self._now
            self._logged.append((broadcast, ready.audience, "published"))
            self._gathering.add_card(broadcast, ready.audience)
        return "published", broadcast, None

    def _begin(self, ready: Ready) -> NewBroadcast:
        broadcast = compose(ready, by=self._by, now=self._now)
        name = (broadcast.source, broadcast.source_id)
        if name in self._borne:  # another owner's event, by chance or on purpose
            broadcast.source_id = None
            self._gathering.bear(ready.arrival.reading, broadcast)
        self._borne.add(name)
        self._new.append((broadcast, ready.audience))
        return broadcast

    def _join(self, card: _Row, reading: Publish, ready: Ready) -> None:
        """Give a card the newest text. A batch changes a card once on the screens, however many of its events join it."""
        if card.is_live and card.requires_ack and not self._gathering.has_changed(card):
            acknowledged_revisions.keep(
                self._session, card.as_card()
            )  # somebody may be acknowledging what is on their screen
        past = self._gathering.join(card, reading)
        fill(card, replace(reading.draft, scheduled_at=card.scheduled_at), self._now, html=ready.html)
        card.sender_name = reading.sender_name
        if past is not None:
            self._logged.append((card, ready.audience, past))

    def _quarantine(self, reading: Publish, ready: Ready) -> _Taken:
        """Keep what is above the cap as a draft; what equals one that waits already is counted on it."""
        if draft := self._gathering.draft_for(reading, ready.audience):
            self._join(draft, reading, ready)
            return "quarantined", draft, None
        if (full := self._gathering.no_room(reading)) is not None:
            return "rejected", None, full
        broadcast = self._begin(ready)
        broadcast.status, broadcast.quarantine_reason = Status.DRAFT.value, self._gathering.reason(reading)
        self._gathering.add_draft(broadcast, reading, ready.audience)
        return "quarantined", broadcast, None

    def _cancel(self, reading: Cancel) -> _Taken:
        broadcast = self._known.get((reading.owner, reading.source, reading.cancels))
        if broadcast is None:
            reason = (
                f"Whoever sent this has announced nothing as {reading.source} under the id {reading.cancels}, so nothing "
                "can be recalled."
            )
            return "rejected", None, Rejected("not-found", reason, reading.source, reading.source_id)
        if not lifecycle.may(broadcast.status, "cancelled"):
            return "repeated", broadcast, None  # it is over already
        if broadcast.is_live:
            self._logged.append((broadcast, self._audience(broadcast), "cancelled"))
        broadcast.status = lifecycle.after(broadcast.status, "cancelled").value
        broadcast.cancel_reason, broadcast.ended_at, broadcast.updated_at = reading.reason, self._now, self._now
        self._cancelled.append(broadcast)
        return "cancelled", broadcast, None

    def _audience(self, broadcast: _Row) -> Audience:
        return next((audience for new, audience in self._new if new is broadcast), None) or broadcasts.audience(
            broadcast
        )

    def store(self) -> None:
        """Write it all. The log is locked from the numbers to the commit, so the numbers come late."""
        ingest.count(self._session, self._figures, at=self._now)
        event_sources.keep_samples(self._session, self._samples, at=self._now)
        self._gathering.store_tallies()
        first = log.take_numbers(self._session, len(self._logged)) if self._logged else None
        for n, (broadcast, _, past) in enumerate(self._logged):
            if past in ("published", "again"):  # shown again, it is the newest in every inbox: see `edits`
                broadcast.seq = first.seq + n
        broadcasts.add_many(self._session, [broadcast for broadcast, _ in self._new])
        for broadcast, audience in self._new:
            add_people(self._session, broadcast, audience)
        self._gathering.store_names()
        self._session.flush()  # people, and what was recalled or joined
        self._audit()
        entries = []
        for one in self._logged:
            entries.append(_entry(*one))
            self.breath.take()
        log.append(self._session, entries, at=self._now, first=first)

    def _audit(self) -> None:
        """Who did it is the account whose token it was, or the bridge's; what the event calls itself is a detail."""
        for broadcast, _ in self._new:
            self._record(f"broadcast.{_beginning(broadcast)}", broadcast, title=broadcast.title)
        for broadcast, again in self._gathering.joined():
            self._record("broadcast.repeated", broadcast, times=broadcast.times, again=again)
        for broadcast in self._cancelled:
            self._record("broadcast.cancelled", broadcast, reason=broadcast.cancel_reason)

    def _record(self, action: str, broadcast: _Row, **detail: object) -> None:
        detail |= {"source": broadcast.source, "sourceId": broadcast.source_id, "sender": broadcast.sender_name}
        if (broadcast.source_owner or "").startswith("topic:"):
            detail["topic"] = broadcast.source_owner.removeprefix("topic:")
        audit.record(self._session, self._by, action, "broadcast", broadcast.id, now=self._now, **detail)


def _beginning(broadcast: NewBroadcast) -> str:
    if broadcast.seq:
        return "published"
    if broadcast.is_quarantined:
        return "quarantined"
    return "drafted" if broadcast.status == Status.DRAFT else "scheduled"


def _entry(broadcast: _Row, audience: Audience, past: str) -> log.Entry:
    match past:
        case "published":
            return message(broadcast, audience)
        case "again" | "quiet":
            return update(broadcast, audience, again=past == "again")
    return removal(broadcast, audience, past)
