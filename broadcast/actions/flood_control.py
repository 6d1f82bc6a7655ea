"""Collapse the events of one source: into the card with their key, and above the rate cap into drafts.

One FloodControl lives as long as the transaction of its batch. It queries the database once per source, counts in
memory from there, and stores what was shown, so the count holds across batches, workers and crashes.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime, timedelta

from sqlalchemy.orm import Session

from broadcast.domain.audience import Audience
from broadcast.domain.inbound import CancelCommand, Command, PublishCommand, RateCap, Rejection
from broadcast.store import broadcasts, event_sources
from broadcast.store.event_sources import SourceOwner
from broadcast.store.fast.broadcast_row import NewBroadcast
from broadcast.store.models import Broadcast

MAX_QUARANTINED_PER_SOURCE = 100  # quarantined drafts per source: as many as the console deletes at once
MAX_QUARANTINED_PER_OWNER = 300  # per account or topic, whatever sources it names
OVER_CAP = "over-cap"  # rejection code above that
_Row = Broadcast | NewBroadcast


class FloodControl:
    """Call `lock_sources` and `load_cards` before any query, `store_…` at the end."""

    def __init__(self, session: Session, sender_id: int, now: datetime):
        """`sender_id` is the account that writes the broadcasts of the batch."""
        self._session, self._sender_id, self._now = session, sender_id, now
        self._cards_by_key: dict[tuple[str, str], list[_Row]] = {}
        self._quarantined_drafts: dict[tuple[str, str], list[_Row]] = {}  # by owner and source
        self._quarantined_counts: dict[str, int] = {}
        self._audiences: dict[int, Audience] = {}  # by the row's `id()`: new rows have no database id yet
        self._remaining: dict[tuple[str, str, RateCap], int] = {}
        self._shown_counts: Counter[tuple[str, str, RateCap]] = Counter()
        self._collapsed_cards: dict[int, tuple[_Row, bool]] = {}
        self._new_row_ids: set[int] = set()
        self._event_keys: list[tuple[str, str, str, _Row]] = []

    def lock_sources(self, commands: Iterable[Command]) -> None:
        """Keep other transactions from judging these sources. Call before any broadcast row is locked, for recalls too:
        a transaction that locks a card first and then waits for its source would deadlock.
        """
        controlled = [one for one in commands if isinstance(one, CancelCommand) or _needs_flood_control(one)]
        owners = {one.owner for one in controlled}
        event_sources.lock_sources(self._session, {one.source for one in controlled}, owners, at=self._now)

    def load_cards(self, commands: Sequence[Command]) -> None:
        """Load the live cards that these events may join."""
        keys_by_source: dict[str, set[str]] = defaultdict(set)
        for command in commands:
            if isinstance(command, PublishCommand) and command.collapse_key:
                keys_by_source[command.source].add(command.collapse_key)
        self._cards_by_key = event_sources.lock_live_broadcasts(self._session, keys_by_source, now=self._now)

    def find_card(self, command: PublishCommand, audience: Audience) -> _Row | None:
        """The newest live card with the event's key and the same audience: nobody may read what was not for them."""
        cards = self._cards_by_key.get((command.source, command.collapse_key), ()) if command.collapse_key else ()
        owned_cards = (card for card in cards if card.is_live and self.get_source_owner(command).is_owner_of(card))
        return next((card for card in owned_cards if self._get_audience(card) == audience), None)

    def get_source_owner(self, command: PublishCommand | CancelCommand) -> SourceOwner:
        return SourceOwner(command.owner, self._sender_id)

    def add_event_key(self, command: PublishCommand, card: _Row) -> None:
        """Record the key of an event that its broadcast cannot store itself."""
        self._event_keys.append((command.owner, command.source, command.source_id, card))

    def add_card(self, card: _Row, audience: Audience) -> None:
        """Let later events of this batch join a card that it created."""
        self._add_row(card, audience)
        if card.collapse_key:
            self._cards_by_key.setdefault((card.source, card.collapse_key), []).insert(0, card)

    def count_repeat(self, card: _Row, command: PublishCommand) -> str | None:
        """Count an event on a card; return "again" or "quiet" for the log, or None when nothing (more) is logged."""
        self.add_event_key(command, card)
        card.times += 1
        card.revision += 1
        card.repeated_at = self._now
        if command.acknowledge_again and card.is_live:
            card.ack_revision = card.revision
        if self.is_changed_in_batch(card):
            return None
        is_shown_again = card.is_live and self.try_consume_cap(command)
        self._collapsed_cards[id(card)] = (card, is_shown_again)
        if is_shown_again:
            card.renewed_at = self._now
        return ("again" if is_shown_again else "quiet") if card.is_live else None

    def is_changed_in_batch(self, card: _Row) -> bool:
        """Whether the batch has already changed or created the card, unseen by anybody so far."""
        return id(card) in self._collapsed_cards or id(card) in self._new_row_ids

    def iter_collapsed(self) -> Iterator[tuple[_Row, bool]]:
        """Cards from before this batch that it changed, each with whether it is shown again."""
        yield from self._collapsed_cards.values()

    def try_consume_cap(self, command: PublishCommand) -> bool:
        """Whether the rate cap of its rule leaves room for one more; if so, consume it."""
        if (rate_cap := command.rate_cap) is None:
            return True
        since = self._now - timedelta(seconds=rate_cap.window_seconds)
        source_key, owner_key = ("source", command.source, rate_cap), ("owner", command.owner, rate_cap)
        if source_key not in self._remaining:
            shown_count = event_sources.count_shown_since(self._session, command.source, rate_cap.rule, since)
            self._remaining[source_key] = rate_cap.limit - shown_count
        if owner_key not in self._remaining:
            shown_count = event_sources.count_shown_by_owner_since(self._session, command.owner, rate_cap.rule, since)
            self._remaining[owner_key] = rate_cap.effective_sender_limit - shown_count
        if self._remaining[source_key] <= 0 or self._remaining[owner_key] <= 0:
            return False
        self._remaining[source_key] -= 1
        self._remaining[owner_key] -= 1
        self._shown_counts[(command.source, command.owner, rate_cap)] += 1
        return True

    def find_quarantined_draft(self, command: PublishCommand, audience: Audience) -> _Row | None:
        """A quarantined draft that this event may be counted on: by its collapse key, or by its text without one.

        Never a draft that a user has edited: the edits would be lost.
        """
        for draft in self._load_quarantined_drafts(command):
            if not draft.is_quarantined or not draft.is_untouched or draft.collapse_key != command.collapse_key:
                continue
            is_match = command.collapse_key or (draft.title, draft.content) == (
                command.draft.title,
                command.draft.content,
            )
            if is_match and self._get_audience(draft) == audience:
                return draft
        return None

    def reject_if_full(self, command: PublishCommand) -> Rejection | None:
        """The rejection when quarantine is full for this event; None if there is room."""
        if command.owner not in self._quarantined_counts:
            self._quarantined_counts[command.owner] = event_sources.count_quarantined(
                self._session, self.get_source_owner(command)
            )
        if len(self._load_quarantined_drafts(command)) >= MAX_QUARANTINED_PER_SOURCE:
            full_quarantine = f"{MAX_QUARANTINED_PER_SOURCE} drafts of this source"
        elif self._quarantined_counts[command.owner] >= MAX_QUARANTINED_PER_OWNER:
            full_quarantine = f"{MAX_QUARANTINED_PER_OWNER} drafts of whoever sent this"
        else:
            return None
        reason = (
            f"{_describe_excess(command.rate_cap)}, and {full_quarantine} wait in quarantine already. "
            "Send or delete those, then hand this in again."
        )
        return Rejection(OVER_CAP, reason, command.source, command.source_id)

    def explain_quarantine(self, command: PublishCommand) -> str:
        """Why an event waits as a draft, for the administrator who finds it."""
        return f"{_describe_excess(command.rate_cap)}. This came on top, so it waits here, and nobody has seen it."

    def add_quarantined_draft(self, draft: _Row, command: PublishCommand, audience: Audience) -> None:
        self._add_row(draft, audience)
        self._load_quarantined_drafts(command).insert(0, draft)
        self._quarantined_counts[command.owner] += 1

    def store_tallies(self) -> None:
        """Store how many were shown."""
        for (source, owner, rate_cap), shown_count in self._shown_counts.items():
            event_sources.add_shown(
                self._session,
                source,
                owner,
                rate_cap.rule,
                shown_count,
                at=self._now,
                window_seconds=rate_cap.window_seconds,
            )

    def store_event_keys(self) -> None:
        """Store the event keys that no broadcast carries; every card has its id by now."""
        event_sources.add_event_keys(self._session, ((*name, card.id) for *name, card in self._event_keys))

    def _add_row(self, row: _Row, audience: Audience) -> None:
        self._new_row_ids.add(id(row))
        self._audiences[id(row)] = audience

    def _load_quarantined_drafts(self, command: PublishCommand) -> list[_Row]:
        key = (command.owner, command.source)
        if key not in self._quarantined_drafts:
            self._quarantined_drafts[key] = event_sources.lock_quarantined(
                self._session, command.source, self.get_source_owner(command), limit=MAX_QUARANTINED_PER_SOURCE
            )
        return self._quarantined_drafts[key]

    def _get_audience(self, row: _Row) -> Audience:
        if id(row) not in self._audiences:
            self._audiences[id(row)] = broadcasts.get_audience(row)
        return self._audiences[id(row)]


def _needs_flood_control(command: Command) -> bool:
    return isinstance(command, PublishCommand) and (command.rate_cap is not None or command.collapse_key is not None)


def _describe_excess(rate_cap: RateCap) -> str:
    limit_text = f"{rate_cap.limit:,} broadcast{'s' * (rate_cap.limit > 1)}"
    if rate_cap.effective_sender_limit != rate_cap.limit:
        limit_text += f", or whoever sent it more than {rate_cap.effective_sender_limit:,},"
    return f"Its source sent more than {limit_text} in {rate_cap.window_seconds:,} s"
