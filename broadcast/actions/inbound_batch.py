"""One transaction's inbound events: decided one by one in memory, then stored together.

An event that is published, joins a live card (`collapsed`) or waits as a draft (`quarantined`) is known by its owner,
source and id from then on; the same key again is `repeated`. The caller opens the transaction and notifies the workers
after it.
"""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Literal

from sqlalchemy.orm import Session

from broadcast.actions import audit
from broadcast.actions.broadcast_rows import add_named_recipients, fill_columns, new_bulk_row, set_audience_columns
from broadcast.actions.broadcasts import build_message_event, build_removal_event, build_update_event
from broadcast.actions.flood_control import FloodControl
from broadcast.base.cooperative import Yielder
from broadcast.domain import lifecycle
from broadcast.domain.actor import Actor
from broadcast.domain.audience import Audience
from broadcast.domain.event_source import canonicalize_source
from broadcast.domain.inbound import CancelCommand, InboundEvent, InboundRecord, PublishCommand, Rejection
from broadcast.domain.lifecycle import Status
from broadcast.domain.message import Draft
from broadcast.store import acknowledged_revisions, broadcasts, dead_letters, event_sources, log
from broadcast.store.event_sources import SourceOwner
from broadcast.store.fast.broadcast_row import NewBroadcast
from broadcast.store.models import Broadcast, ingest

OutcomeKind = Literal["published", "collapsed", "quarantined", "repeated", "cancelled", "rejected"]
_Row = Broadcast | NewBroadcast
_EventKey = tuple[str, str, str]  # owner, source, source id
_Decision = tuple[OutcomeKind, _Row | None, Rejection | None]


@dataclass(frozen=True, slots=True)
class PreparedInboundEvent:
    """An inbound event with what is computed before the transaction. `audience` is set only for a PublishCommand."""

    inbound_event: InboundEvent
    audience: Audience | None = None
    recipient_count: int = 0
    html: str = ""


def build_broadcast_row(prepared: PreparedInboundEvent, *, by: Actor, now: datetime) -> NewBroadcast:
    """The row of a prepared PublishCommand, not yet in a session."""
    command = prepared.inbound_event.command
    broadcast = new_bulk_row(by, now)
    broadcast.sender_name = command.sender_name
    fill_columns(broadcast, command.draft, now, html=prepared.html)
    set_audience_columns(broadcast, prepared.audience)
    broadcast.audience_count, broadcast.status = prepared.recipient_count, _initial_status(command.draft, now)
    broadcast.source, broadcast.source_id, broadcast.source_owner = command.source, command.source_id, command.owner
    broadcast.collapse_key = command.collapse_key
    return broadcast


def _initial_status(draft: Draft, now: datetime) -> str:
    if draft.keep_as_draft:
        return Status.DRAFT.value
    return (Status.SCHEDULED if draft.scheduled_at and draft.scheduled_at > now else Status.ACTIVE).value


class InboundBatch:
    """Call `load_broadcasts`, then `decide` for each event in order, then `store`."""

    def __init__(self, session: Session, by: Actor, now: datetime):
        self._session, self._by, self._now = session, by, now
        self.yielder = Yielder()
        self._flood_control = FloodControl(session, by.user_id, now)
        self._broadcast_by_event_key: dict[_EventKey, _Row] = {}
        # (source, source id) pairs that a broadcast of any owner has
        self._used_source_ids: set[tuple[str, str]] = set()
        self._new_broadcasts: list[tuple[NewBroadcast, Audience]] = []
        # log entries to write, in order: row, audience, change
        self._log_changes: list[tuple[_Row, Audience, str]] = []
        self._cancelled: list[_Row] = []
        self._source_counts: dict[str, Counter[str]] = defaultdict(Counter)
        self._samples: dict[str, list[tuple[InboundRecord, str | None]]] = defaultdict(list)

    def load_broadcasts(self, prepared: Sequence[PreparedInboundEvent]) -> None:
        """Load the broadcasts that these events name: to be repeated, recalled or joined."""
        commands = [one.inbound_event.command for one in prepared]
        self._flood_control.lock_sources(commands)
        ids_by_owned_source: dict[tuple[str, str], set[str]] = defaultdict(set)
        unowned_ids: dict[str, set[str]] = defaultdict(set)  # from before keys had owners, stored as spelt
        for command in commands:
            if isinstance(command, PublishCommand | CancelCommand):
                source_id = command.source_id if isinstance(command, PublishCommand) else command.cancelled_source_id
                ids_by_owned_source[command.owner, command.source].add(source_id)
                for source in {command.source, command.source_as_written}:
                    unowned_ids[source].add(source_id)
        owners = sorted({owner for owner, _ in ids_by_owned_source})
        for (source, source_id), row in event_sources.lock_by_collapsed_event(self._session, unowned_ids).items():
            self._index_broadcast(row, source, source_id, owners)
        for row in broadcasts.lock_by_source_ids(self._session, unowned_ids):
            self._index_broadcast(row, row.source, row.source_id, owners)
            self._used_source_ids.add((row.source, row.source_id))
        self._broadcast_by_event_key |= event_sources.lock_by_event_key(self._session, ids_by_owned_source)
        self._flood_control.load_cards(commands)

    def _index_broadcast(self, row: _Row, source: str, source_id: str, owners: Sequence[str]) -> None:
        """Index a broadcast under its event's key for its owner, if that is one of `owners`."""
        for owner in owners:
            if SourceOwner(owner, self._by.user_id).is_owner_of(row):
                self._broadcast_by_event_key[owner, canonicalize_source(source), source_id] = row

    def decide(self, prepared: PreparedInboundEvent) -> _Decision:
        """Decide the outcome of one event, after those before it."""
        command = prepared.inbound_event.command
        match command:
            case PublishCommand():
                decision = self._publish(command, prepared)
            case CancelCommand():
                decision = self._cancel(command)
            case Rejection():
                decision = ("rejected", None, command)
        kind, broadcast, rejection = decision
        position, source = prepared.inbound_event.record.position, command.source
        if rejection is not None and position is not None:
            is_new = dead_letters.add(self._session, prepared.inbound_event.record, rejection, at=self._now)
            kind, source = "rejected" if is_new else "repeated", source or f"kafka:{position.topic}"
        self._source_counts[source or "?"][kind] += 1
        if kind not in ("repeated", "cancelled") and command.source:
            self._samples[command.source].append((prepared.inbound_event.record, getattr(command, "owner", None)))
        return kind, broadcast, rejection

    def _publish(self, command: PublishCommand, prepared: PreparedInboundEvent) -> _Decision:
        event_key = (command.owner, command.source, command.source_id)
        if known_broadcast := self._broadcast_by_event_key.get(event_key):
            return "repeated", known_broadcast, None
        kind, broadcast, rejection = self._place_publish(command, prepared)
        if broadcast is not None:
            self._broadcast_by_event_key[event_key] = broadcast
        return kind, broadcast, rejection

    def _place_publish(self, command: PublishCommand, prepared: PreparedInboundEvent) -> _Decision:
        """Join a live card, become a new broadcast, or go to quarantine."""
        status = _initial_status(command.draft, self._now)
        if status == Status.ACTIVE and (card := self._flood_control.find_card(command, prepared.audience)):
            self._collapse_into(card, command, prepared)
            return "collapsed", card, None
        if status != Status.DRAFT and not self._flood_control.try_consume_cap(command):
            return self._quarantine(command, prepared)
        broadcast = self._create_broadcast(prepared)
        if broadcast.status == Status.ACTIVE:
            broadcast.published_at = self._now
            self._log_changes.append((broadcast, prepared.audience, "published"))
            self._flood_control.add_card(broadcast, prepared.audience)
        return "published", broadcast, None

    def _create_broadcast(self, prepared: PreparedInboundEvent) -> NewBroadcast:
        broadcast = build_broadcast_row(prepared, by=self._by, now=self._now)
        source_key = (broadcast.source, broadcast.source_id)
        if source_key in self._used_source_ids:  # another owner's event, by chance or on purpose
            broadcast.source_id = None
            self._flood_control.add_event_key(prepared.inbound_event.command, broadcast)
        self._used_source_ids.add(source_key)
        self._new_broadcasts.append((broadcast, prepared.audience))
        return broadcast

    def _collapse_into(self, card: _Row, command: PublishCommand, prepared: PreparedInboundEvent) -> None:
        """Give a card the newest text. A batch changes a card once on open pages, however many events join it."""
        if card.is_live and card.requires_ack and not self._flood_control.is_changed_in_batch(card):
            # a user may be acknowledging the text on screen
            acknowledged_revisions.save_text(self._session, card.to_card())
        change = self._flood_control.count_repeat(card, command)
        fill_columns(card, replace(command.draft, scheduled_at=card.scheduled_at), self._now, html=prepared.html)
        card.sender_name = command.sender_name
        if change is not None:
            self._log_changes.append((card, prepared.audience, change))

    def _quarantine(self, command: PublishCommand, prepared: PreparedInboundEvent) -> _Decision:
        """Keep an event above the rate cap as a draft, or count it on an equal draft that already waits."""
        if draft := self._flood_control.find_quarantined_draft(command, prepared.audience):
            self._collapse_into(draft, command, prepared)
            return "quarantined", draft, None
        if (rejection := self._flood_control.reject_if_full(command)) is not None:
            return "rejected", None, rejection
        broadcast = self._create_broadcast(prepared)
        broadcast.status, broadcast.quarantine_reason = (
            Status.DRAFT.value,
            self._flood_control.explain_quarantine(command),
        )
        self._flood_control.add_quarantined_draft(broadcast, command, prepared.audience)
        return "quarantined", broadcast, None

    def _cancel(self, command: CancelCommand) -> _Decision:
        broadcast = self._broadcast_by_event_key.get((command.owner, command.source, command.cancelled_source_id))
        if broadcast is None:
            reason = (
                f"Whoever sent this has announced nothing as {command.source} under the id "
                f"{command.cancelled_source_id}, so nothing "
                "can be recalled."
            )
            return "rejected", None, Rejection("not-found", reason, command.source, command.source_id)
        if not lifecycle.can_transition(broadcast.status, "cancelled"):
            return "repeated", broadcast, None  # already ended
        if broadcast.is_live:
            self._log_changes.append((broadcast, self._get_audience(broadcast), "cancelled"))
        broadcast.status = lifecycle.transition(broadcast.status, "cancelled").value
        broadcast.cancel_reason, broadcast.ended_at, broadcast.updated_at = command.reason, self._now, self._now
        self._cancelled.append(broadcast)
        return "cancelled", broadcast, None

    def _get_audience(self, broadcast: _Row) -> Audience:
        return next(
            (audience for new, audience in self._new_broadcasts if new is broadcast), None
        ) or broadcasts.get_audience(broadcast)

    def store(self) -> None:
        """Write everything. Reserving seqs locks the log until the commit, so it comes late."""
        ingest.add_source_counts(self._session, self._source_counts, at=self._now)
        event_sources.save_samples(self._session, self._samples, at=self._now)
        self._flood_control.store_tallies()
        first_cursor = log.reserve_seqs(self._session, len(self._log_changes)) if self._log_changes else None
        for index, (broadcast, _, change) in enumerate(self._log_changes):
            if change in ("published", "again"):  # shown again, it is the newest in every inbox: see `edits`
                broadcast.seq = first_cursor.seq + index
        broadcasts.add_many(self._session, [broadcast for broadcast, _ in self._new_broadcasts])
        for broadcast, audience in self._new_broadcasts:
            add_named_recipients(self._session, broadcast, audience)
        self._flood_control.store_event_keys()
        self._session.flush()  # recipients, recalled and collapsed rows
        self._write_audit()
        entries = []
        for log_change in self._log_changes:
            entries.append(_build_log_entry(*log_change))
            self.yielder.maybe_yield()
        log.append(self._session, entries, at=self._now, first_cursor=first_cursor)

    def _write_audit(self) -> None:
        """The actor is the account of the token, or the Kafka account; the event's own source is only a detail."""
        for broadcast, _ in self._new_broadcasts:
            self._record_audit(f"broadcast.{_audit_action(broadcast)}", broadcast, title=broadcast.title)
        for broadcast, is_shown_again in self._flood_control.iter_collapsed():
            self._record_audit("broadcast.repeated", broadcast, times=broadcast.times, again=is_shown_again)
        for broadcast in self._cancelled:
            self._record_audit("broadcast.cancelled", broadcast, reason=broadcast.cancel_reason)

    def _record_audit(self, action: str, broadcast: _Row, **detail: object) -> None:
        detail |= {"source": broadcast.source, "sourceId": broadcast.source_id, "sender": broadcast.sender_name}
        if (broadcast.source_owner or "").startswith("topic:"):
            detail["topic"] = broadcast.source_owner.removeprefix("topic:")
        audit.record(self._session, self._by, action, "broadcast", broadcast.id, now=self._now, **detail)


def _audit_action(broadcast: NewBroadcast) -> str:
    if broadcast.seq:
        return "published"
    if broadcast.is_quarantined:
        return "quarantined"
    return "drafted" if broadcast.status == Status.DRAFT else "scheduled"


def _build_log_entry(broadcast: _Row, audience: Audience, change: str) -> log.NewEvent:
    match change:
        case "published":
            return build_message_event(broadcast, audience)
        case "again" | "quiet":
            return build_update_event(broadcast, audience, notify_again=change == "again")
    return build_removal_event(broadcast, audience, change)
