"""What flood control knows of one batch's sources: read from the database once, then kept up to date in memory.

What the batch shows is stored in its transaction, so the count holds across batches, workers and crashes.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import Literal

from sqlalchemy.orm import Session

from broadcast.domain.audience import Audience
from broadcast.domain.flood_control import MAX_QUARANTINED_PER_SOURCE, Candidate, FloodState
from broadcast.domain.inbound import CancelCommand, Command, PublishCommand, RateCap
from broadcast.domain.message import Draft
from broadcast.store import audiences, event_sources
from broadcast.store.event_sources import SourceOwner
from broadcast.store.fast.broadcast_row import NewBroadcast
from broadcast.store.models import Broadcast

_CapKey = tuple[Literal["source", "owner"], str, RateCap]  # what is counted, its name, the cap
_Candidates = defaultdict[tuple, list[Candidate]]  # by owner, source, and key or text; newest first


def lock_sources(session: Session, commands: Iterable[Command], *, at: datetime) -> None:
    """Keep other transactions from judging the sources of these commands. Call before any broadcast row is locked, for
    recalls too: a transaction that locks a card first and then waits for its source would deadlock.
    """
    controlled = [
        command
        for command in commands
        if isinstance(command, CancelCommand)
        or (isinstance(command, PublishCommand) and (command.rate_cap or command.collapse_key))
    ]
    sources, owners = {command.source for command in controlled}, {command.owner for command in controlled}
    event_sources.lock_sources(session, sources, owners, at=at)


class BatchFloodState:
    """Reads and locks what may concern `commands`. `sender_id` is the account that writes their broadcasts."""

    def __init__(self, session: Session, commands: Sequence[PublishCommand], *, sender_id: int, now: datetime):
        self._session, self._sender_id, self._now = session, sender_id, now
        self._cards: _Candidates = defaultdict(list)
        self._drafts: _Candidates = defaultdict(list)
        self._quarantined: Counter[str | tuple[str, str]] = Counter()  # drafts by owner, and by owner and source
        self._shown: Counter[tuple[str, str, RateCap]] = Counter()  # by this batch
        self._load_cards([command for command in commands if command.collapse_key])
        capped = [command for command in commands if command.rate_cap]
        demand = Counter(key for command in capped for key in _list_cap_keys(command))
        self._remaining = {key: self._load_remaining(*key) for key in demand}
        # the drafts of sources whose events all have room are neither read nor locked
        full_keys = {key for key in demand if demand[key] > self._remaining[key]}
        self._load_drafts([command for command in capped if not full_keys.isdisjoint(_list_cap_keys(command))])

    def get(self, command: PublishCommand) -> FloodState:
        """The state for an event, after those before it."""
        cards = self._cards.get((command.owner, command.source, command.collapse_key), ())
        drafts = self._drafts.get((command.owner, command.source, _get_draft_key(command, command.draft)), ())
        return FloodState(
            cards=[card for card in cards if card.broadcast.is_live],
            drafts=[draft for draft in drafts if draft.broadcast.is_quarantined],
            remaining=min((self._remaining[key] for key in _list_cap_keys(command)), default=None),
            quarantined_of_source=self._quarantined[command.owner, command.source],
            quarantined_of_owner=self._quarantined[command.owner],
        )

    def add_new(self, command: PublishCommand, broadcast: NewBroadcast, audience: Audience) -> None:
        """Let later events join a broadcast of this batch: a live card, or a draft in quarantine."""
        candidate, source = Candidate(broadcast, audience, is_changed=True), (command.owner, command.source)
        if broadcast.is_live and command.collapse_key:
            self._cards[*source, command.collapse_key].insert(0, candidate)
        elif broadcast.is_quarantined:
            self._drafts[*source, _get_draft_key(command, command.draft)].insert(0, candidate)
            self._quarantined.update([command.owner, source])

    def count_shown(self, command: PublishCommand) -> None:
        for key in _list_cap_keys(command):
            self._remaining[key] -= 1
        if command.rate_cap:
            self._shown[command.source, command.owner, command.rate_cap] += 1

    def store_shown(self) -> None:
        for (source, owner, cap), count in self._shown.items():
            event_sources.add_shown(
                self._session, source, owner, cap.rule, count, at=self._now, window_seconds=cap.window_seconds
            )

    def _load_cards(self, commands: Sequence[PublishCommand]) -> None:
        keys_by_source: dict[str, set[str]] = defaultdict(set)
        for command in commands:
            keys_by_source[command.source].add(command.collapse_key)
        senders = [SourceOwner(owner, self._sender_id) for owner in {command.owner for command in commands}]
        for row in event_sources.lock_live_broadcasts(self._session, keys_by_source, now=self._now):
            # several only for a card from before cards had owners
            if owners := [sender.owner for sender in senders if sender.is_owner_of(row)]:
                card = Candidate(row, audiences.get_audience(row))
                for owner in owners:
                    self._cards[owner, row.source, row.collapse_key].append(card)

    def _load_remaining(self, scope: Literal["source", "owner"], name: str, cap: RateCap) -> int:
        limit = cap.limit if scope == "source" else cap.effective_sender_limit
        since = self._now - timedelta(seconds=cap.window_seconds)
        return limit - event_sources.count_shown_since(self._session, scope, name, cap.rule, since)

    def _load_drafts(self, commands: Sequence[PublishCommand]) -> None:
        """Never a draft that a user has edited: the edits would be lost."""
        keys_by_source: dict[tuple[str, str], set] = defaultdict(set)
        for command in commands:
            keys_by_source[command.owner, command.source].add(_get_draft_key(command, command.draft))
        for (owner, source), keys in sorted(keys_by_source.items()):
            source_owner = SourceOwner(owner, self._sender_id)
            if owner not in self._quarantined:
                self._quarantined[owner] = event_sources.count_quarantined(self._session, source_owner)
            rows = event_sources.lock_quarantined(self._session, source, source_owner, limit=MAX_QUARANTINED_PER_SOURCE)
            self._quarantined[owner, source] = len(rows)
            for row in rows:
                if row.is_untouched and (key := _get_draft_key(row, row)) in keys:
                    self._drafts[owner, source, key].append(Candidate(row, audiences.get_audience(row)))


def _list_cap_keys(command: PublishCommand) -> Sequence[_CapKey]:
    if command.rate_cap is None:
        return ()
    return ("source", command.source, command.rate_cap), ("owner", command.owner, command.rate_cap)


def _get_draft_key(keyed: PublishCommand | Broadcast, text: Draft | Broadcast) -> str | tuple[str, str]:
    """What a draft in quarantine has in common with the events that it stands for."""
    return keyed.collapse_key or (text.title, text.content)
