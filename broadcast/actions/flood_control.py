"""How events of one source gather instead of flooding: on the card that has their key, and above the cap as drafts.

One Gathering lives as long as the transaction of its batch. It asks the database once for each source, counts from there in
memory, and writes down what was shown; so the count holds over batches, workers and crashes.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime, timedelta

from sqlalchemy.orm import Session

from broadcast.domain.audience import Audience
from broadcast.domain.inbound import Cancel, Cap, Publish, Reading, Rejected
from broadcast.store import broadcasts, event_sources
from broadcast.store.event_sources import Whose
from broadcast.store.fast.broadcast_row import NewBroadcast
from broadcast.store.models import Broadcast

MOST_WAITING = 100  # drafts of one source in quarantine: as many as the console's list deletes with one press
MOST_WAITING_OF_SENDER = 300  # of one account or topic, however many names it gives itself
OVER_CAP = "over-cap"  # the code of what is refused beyond that
_Row = Broadcast | NewBroadcast


class Gathering:
    """`hold` and `load` before the first question, `store_…` at the end."""

    def __init__(self, session: Session, sender_id: int, now: datetime):
        """`sender_id` is the account that writes what the batch brings."""
        self._session, self._sender_id, self._now = session, sender_id, now
        self._cards: dict[tuple[str, str], list[_Row]] = {}
        self._drafts: dict[tuple[str, str], list[_Row]] = {}  # by owner and source
        self._waiting_of: dict[str, int] = {}
        self._audiences: dict[int, Audience] = {}  # by the row's place in memory: new ones have no id yet
        self._left: dict[tuple[str, str, Cap], int] = {}
        self._shown: Counter[tuple[str, str, Cap]] = Counter()
        self._joined: dict[int, tuple[_Row, bool]] = {}
        self._begun: set[int] = set()
        self._names: list[tuple[str, str, str, _Row]] = []

    def hold(self, readings: Iterable[Reading]) -> None:
        """Let no other transaction judge these sources meanwhile. Before any row of a broadcast is locked, also for recalls:
        whoever locked a card first and then waited for its source would wait for ever.
        """
        judged = [one for one in readings if isinstance(one, Cancel) or _is_judged(one)]
        owners = {one.owner for one in judged}
        event_sources.hold(self._session, {one.source for one in judged}, owners, at=self._now)

    def load(self, readings: Sequence[Reading]) -> None:
        """Find the live cards that these events may join."""
        wanted: dict[str, set[str]] = defaultdict(set)
        for reading in readings:
            if isinstance(reading, Publish) and reading.collapse_key:
                wanted[reading.source].add(reading.collapse_key)
        self._cards = event_sources.live_cards(self._session, wanted, now=self._now)

    def card_for(self, reading: Publish, audience: Audience) -> _Row | None:
        """The newest live card with the event's key and the very same audience: nobody may read what was not for them."""
        cards = self._cards.get((reading.source, reading.collapse_key), ()) if reading.collapse_key else ()
        theirs = (card for card in cards if card.is_live and self.whose(reading).holds(card))
        return next((card for card in theirs if self._audience(card) == audience), None)

    def whose(self, reading: Publish | Cancel) -> Whose:
        return Whose(reading.owner, self._sender_id)

    def bear(self, reading: Publish, card: _Row) -> None:
        """Remember the name of an event that its broadcast cannot bear itself."""
        self._names.append((reading.owner, reading.source, reading.source_id, card))

    def add_card(self, card: _Row, audience: Audience) -> None:
        """Let later events of this batch join a card that began in it."""
        self._begin(card, audience)
        if card.collapse_key:
            self._cards.setdefault((card.source, card.collapse_key), []).insert(0, card)

    def join(self, card: _Row, reading: Publish) -> str | None:
        """Count an event on a card; "again" or "quiet" says how the log tells it, None that it need not be told (once more)."""
        self.bear(reading, card)
        card.times += 1
        card.revision += 1
        card.repeated_at = self._now
        if reading.acknowledge_again and card.is_live:
            card.ack_revision = card.revision
        if self.has_changed(card):
            return None
        again = card.is_live and self.may_show(reading)
        self._joined[id(card)] = (card, again)
        if again:
            card.renewed_at = self._now
        return ("again" if again else "quiet") if card.is_live else None

    def has_changed(self, card: _Row) -> bool:
        """Whether the card says already what nobody has seen before this batch."""
        return id(card) in self._joined or id(card) in self._begun

    def joined(self) -> Iterator[tuple[_Row, bool]]:
        """What was there before this batch and has changed in it, and whether that is shown again."""
        yield from self._joined.values()

    def may_show(self, reading: Publish) -> bool:
        """Whether the cap of its rule leaves room for one more; if so, it is taken."""
        if (cap := reading.cap) is None:
            return True
        since = self._now - timedelta(seconds=cap.per_seconds)
        of_source, of_owner = ("source", reading.source, cap), ("owner", reading.owner, cap)
        if of_source not in self._left:
            shown = event_sources.shown_since(self._session, reading.source, cap.rule, since)
            self._left[of_source] = cap.most - shown
        if of_owner not in self._left:
            shown = event_sources.shown_by_owner_since(self._session, reading.owner, cap.rule, since)
            self._left[of_owner] = cap.of_sender - shown
        if self._left[of_source] <= 0 or self._left[of_owner] <= 0:
            return False
        self._left[of_source] -= 1
        self._left[of_owner] -= 1
        self._shown[(reading.source, reading.owner, cap)] += 1
        return True

    def draft_for(self, reading: Publish, audience: Audience) -> _Row | None:
        """A draft in quarantine that this event may be counted on: by its key, without one by its text.

        Never one that a person has worked on: their words would be lost.
        """
        for draft in self._waiting(reading):
            if not draft.is_quarantined or not draft.is_untouched or draft.collapse_key != reading.collapse_key:
                continue
            is_same = reading.collapse_key or (draft.title, draft.content) == (
                reading.draft.title,
                reading.draft.content,
            )
            if is_same and self._audience(draft) == audience:
                return draft
        return None

    def no_room(self, reading: Publish) -> Rejected | None:
        """Why not even a draft is kept of this event; None if there is room."""
        if reading.owner not in self._waiting_of:
            self._waiting_of[reading.owner] = event_sources.count_quarantined(self._session, self.whose(reading))
        if len(self._waiting(reading)) >= MOST_WAITING:
            full = f"{MOST_WAITING} drafts of this source"
        elif self._waiting_of[reading.owner] >= MOST_WAITING_OF_SENDER:
            full = f"{MOST_WAITING_OF_SENDER} drafts of whoever sent this"
        else:
            return None
        reason = (
            f"{_too_many(reading.cap)}, and {full} wait in quarantine already. "
            "Send or delete those, then hand this in again."
        )
        return Rejected(OVER_CAP, reason, reading.source, reading.source_id)

    def reason(self, reading: Publish) -> str:
        """Why an event waits as a draft, for the administrator who finds it."""
        return f"{_too_many(reading.cap)}. This came on top, so it waits here, and nobody has seen it."

    def add_draft(self, draft: _Row, reading: Publish, audience: Audience) -> None:
        self._begin(draft, audience)
        self._waiting(reading).insert(0, draft)
        self._waiting_of[reading.owner] += 1

    def store_tallies(self) -> None:
        """Write down how much was shown."""
        for (source, owner, cap), shown in self._shown.items():
            event_sources.note_shown(
                self._session, source, owner, cap.rule, shown, at=self._now, per_seconds=cap.per_seconds
            )

    def store_names(self) -> None:
        """Write down the names that no broadcast bears; by now each card has its id."""
        event_sources.note_names(self._session, ((*name, card.id) for *name, card in self._names))

    def _begin(self, row: _Row, audience: Audience) -> None:
        self._begun.add(id(row))
        self._audiences[id(row)] = audience

    def _waiting(self, reading: Publish) -> list[_Row]:
        key = (reading.owner, reading.source)
        if key not in self._drafts:
            self._drafts[key] = event_sources.quarantined(
                self._session, reading.source, self.whose(reading), most=MOST_WAITING
            )
        return self._drafts[key]

    def _audience(self, row: _Row) -> Audience:
        if id(row) not in self._audiences:
            self._audiences[id(row)] = broadcasts.audience(row)
        return self._audiences[id(row)]


def _is_judged(reading: Reading) -> bool:
    return isinstance(reading, Publish) and (reading.cap is not None or reading.collapse_key is not None)


def _too_many(cap: Cap) -> str:
    broadcasts_ = f"{cap.most:,} broadcast{'s' * (cap.most > 1)}"
    if cap.of_sender != cap.most:
        broadcasts_ += f", or whoever sent it more than {cap.of_sender:,},"
    return f"Its source sent more than {broadcasts_} in {cap.per_seconds:,} s"
