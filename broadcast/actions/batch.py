"""One transaction's events from outside: decided one after the other in memory, then stored together.

An event that is published, joins a live card (`collapsed`) or waits as a draft (`quarantined`) is known by its source and id
from then on; whatever comes again under that name is `repeated`. The caller opens the transaction and rings after it.
"""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Literal

from sqlalchemy.orm import Session

from broadcast.actions import audit
from broadcast.actions.broadcasts import message, removal, update
from broadcast.actions.gathering import Gathering
from broadcast.actions.rows import add_people, fill, mark_audience, unsaved
from broadcast.domain import lifecycle
from broadcast.domain.actor import Actor
from broadcast.domain.arrival import Arrival, Cancel, Publish, Record, Rejected
from broadcast.domain.audience import Audience
from broadcast.domain.lifecycle import Status
from broadcast.domain.message import Draft
from broadcast.store import broadcasts, dead_letters, log, outside, revisions, sources
from broadcast.store.models import Broadcast
from broadcast.store.unsaved import NewBroadcast
from broadcast.turn import Breath

Kind = Literal["published", "collapsed", "quarantined", "repeated", "cancelled", "rejected"]
_Row = Broadcast | NewBroadcast
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
    broadcast.source, broadcast.source_id = reading.source, reading.source_id
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
        self._senders: dict[str, Actor] = {}
        self._gathering = Gathering(session, now)
        self._known: dict[tuple[str, str], _Row] = {}
        self._new: list[tuple[NewBroadcast, Audience]] = []
        self._logged: list[tuple[_Row, Audience, str]] = []  # what goes into the log, in order, by its past
        self._cancelled: list[tuple[_Row, str]] = []
        self._figures: dict[str, Counter[str]] = defaultdict(Counter)
        self._samples: dict[str, list[Record]] = defaultdict(list)

    def load(self, ready: Sequence[Ready]) -> None:
        """Find the broadcasts that these events name: announced before, to be recalled, or to be joined."""
        readings = [one.arrival.reading for one in ready]
        self._gathering.hold(readings)
        wanted: dict[str, set[str]] = defaultdict(set)
        for reading in readings:
            match reading:
                case Publish():
                    wanted[reading.source].add(reading.source_id)
                case Cancel():
                    wanted[reading.source].add(reading.cancels)
        self._known = sources.collapsed(self._session, wanted) | broadcasts.by_source(self._session, wanted)
        self._gathering.load(readings)

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
            self._samples[reading.source].append(ready.arrival.record)
        return kind, broadcast, rejected

    def _publish(self, reading: Publish, ready: Ready) -> _Taken:
        name = (reading.source, reading.source_id)
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
        self._new.append((broadcast, ready.audience))
        return broadcast

    def _join(self, card: _Row, reading: Publish, ready: Ready) -> None:
        """Give a card the newest text. A batch changes a card once on the screens, however many of its events join it."""
        if card.is_live and card.requires_ack and not self._gathering.has_changed(card):
            revisions.keep(self._session, card.as_card())  # somebody may be acknowledging what is on their screen
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
        self._gathering.add_draft(broadcast, ready.audience)
        return "quarantined", broadcast, None

    def _cancel(self, reading: Cancel) -> _Taken:
        broadcast = self._known.get((reading.source, reading.cancels))
        if broadcast is None:
            reason = (
                f"{reading.source} has announced nothing under the id {reading.cancels}, so nothing can be recalled."
            )
            return "rejected", None, Rejected("not-found", reason, reading.source, reading.source_id)
        if not lifecycle.may(broadcast.status, "cancelled"):
            return "repeated", broadcast, None  # it is over already
        if broadcast.is_live:
            self._logged.append((broadcast, self._audience(broadcast), "cancelled"))
        broadcast.status = lifecycle.after(broadcast.status, "cancelled").value
        broadcast.cancel_reason, broadcast.ended_at, broadcast.updated_at = reading.reason, self._now, self._now
        self._cancelled.append((broadcast, reading.source))
        return "cancelled", broadcast, None

    def _audience(self, broadcast: _Row) -> Audience:
        return next((audience for new, audience in self._new if new is broadcast), None) or broadcasts.audience(
            broadcast
        )

    def store(self) -> None:
        """Write it all. The log is locked from the numbers to the commit, so the numbers come late."""
        outside.count(self._session, self._figures, at=self._now)
        sources.keep_samples(self._session, self._samples, at=self._now)
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
        for broadcast, _ in self._new:
            by = self._named(broadcast.sender_name)
            self._record(by, f"broadcast.{_beginning(broadcast)}", broadcast, title=broadcast.title)
        for broadcast, again in self._gathering.joined():
            by = self._named(broadcast.sender_name)
            self._record(by, "broadcast.repeated", broadcast, times=broadcast.times, again=again)
        for broadcast, source in self._cancelled:
            by = self._named(source)
            self._record(by, "broadcast.cancelled", broadcast, reason=broadcast.cancel_reason)

    def _named(self, sender: str) -> Actor:
        if sender not in self._senders:
            self._senders[sender] = replace(self._by, name=sender)
        return self._senders[sender]

    def _record(self, by: Actor, action: str, broadcast: _Row, **detail: object) -> None:
        detail |= {"source": broadcast.source, "sourceId": broadcast.source_id}
        audit.record(self._session, by, action, "broadcast", broadcast.id, now=self._now, **detail)


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
