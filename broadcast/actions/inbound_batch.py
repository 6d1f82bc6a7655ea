"""One transaction's inbound events: decided one by one in memory, then stored together.

An event that is published, joins a live card (`collapsed`) or waits as a draft (`quarantined`) is known by its owner,
source and id from then on; the same key again is `repeated`.
"""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Literal

from sqlalchemy.orm import Session

from broadcast.actions import broadcast_rows
from broadcast.actions.broadcasts import build_message_event, build_removal_event, build_update_event
from broadcast.actions.escalation_policies import fix_plans
from broadcast.actions.flood_state import BatchFloodState, lock_sources
from broadcast.base.cooperative import Yielder
from broadcast.domain.actor import Actor
from broadcast.domain.audience import Audience
from broadcast.domain.event_source import canonicalize_source
from broadcast.domain.flood_control import OVER_CAP, Verdict, decide
from broadcast.domain.inbound import CancelCommand, Command, InboundEvent, InboundRecord, PublishCommand, Rejection
from broadcast.domain.lifecycle import Status, can_transition, transition
from broadcast.domain.message import Draft
from broadcast.store import (
    acknowledged_revisions,
    audiences,
    audit,
    broadcasts,
    corrections,
    dead_letters,
    event_sources,
    log,
    receipts,
)
from broadcast.store.event_sources import SourceOwner
from broadcast.store.fast.broadcast_row import NewBroadcast
from broadcast.store.models import Broadcast

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


@dataclass(frozen=True, slots=True)
class Outcome:
    """The outcome of one inbound event; `broadcast_id` is None when it was rejected, and `rejection` says why."""

    kind: OutcomeKind
    broadcast_id: int | None = None
    rejection: Rejection | None = None


def write_batch(
    session: Session, prepared: Sequence[PreparedInboundEvent], *, by: Actor, now: datetime
) -> list[Outcome]:
    """Decide each event after those before it, then write all; the caller notifies. Lets other greenlets run."""
    batch, yielder = _Batch(session, [one.inbound_event.command for one in prepared], by, now), Yielder()
    decisions = []
    for prepared_event in prepared:
        decisions.append(batch.decide(prepared_event))
        yielder.maybe_yield()
    batch.store(yielder)
    return [Outcome(kind, broadcast and broadcast.id, rejection) for kind, broadcast, rejection in decisions]


def build_broadcast_row(prepared: PreparedInboundEvent, *, by: Actor, now: datetime) -> NewBroadcast:
    """The row of a prepared PublishCommand, not yet in a session."""
    command = prepared.inbound_event.command
    broadcast = NewBroadcast(**broadcast_rows.build_draft_columns(by, now))
    broadcast.sender_name = command.sender_name
    broadcast_rows.fill_columns(broadcast, command.draft, now, html=prepared.html)
    broadcast_rows.set_audience_columns(broadcast, prepared.audience)
    broadcast.audience_count, broadcast.status = prepared.recipient_count, _initial_status(command.draft, now).value
    broadcast.source, broadcast.source_id, broadcast.source_owner = command.source, command.source_id, command.owner
    broadcast.collapse_key = command.collapse_key
    return broadcast


def _initial_status(draft: Draft, now: datetime) -> Status:
    if draft.keep_as_draft:
        return Status.DRAFT
    return Status.SCHEDULED if draft.scheduled_at and draft.scheduled_at > now else Status.ACTIVE


class _Batch:
    """What one transaction has decided so far, and will write."""

    def __init__(self, session: Session, commands: Sequence[Command], by: Actor, now: datetime):
        self._session, self._by, self._now = session, by, now
        self._broadcast_by_event_key: dict[_EventKey, _Row] = {}
        # (source, source id) pairs that a broadcast of any owner has
        self._used_source_ids: set[tuple[str, str]] = set()
        self._new_broadcasts: list[tuple[NewBroadcast, Audience]] = []
        self._event_keys: list[tuple[_EventKey, _Row]] = []  # keys that their broadcasts cannot store themselves
        # cards and drafts from before this batch that it changed, each with whether it is shown again
        self._collapsed: list[tuple[_Row, bool]] = []
        # log entries to write, in order: row, audience, change
        self._log_changes: list[tuple[_Row, Audience, str]] = []
        self._cancelled: list[_Row] = []
        self._source_counts: dict[str, Counter[str]] = defaultdict(Counter)
        self._samples: dict[str, list[tuple[InboundRecord, str | None]]] = defaultdict(list)
        lock_sources(session, commands, at=now)
        self._load_known(commands)
        new_commands = [
            command
            for command in commands
            if isinstance(command, PublishCommand) and _get_event_key(command) not in self._broadcast_by_event_key
        ]
        self._flood_state = BatchFloodState(session, new_commands, sender_id=by.user_id, now=now)

    def _load_known(self, commands: Sequence[Command]) -> None:
        """Load and lock the broadcasts of the event keys that these commands name, to be repeated or recalled."""
        ids_by_owned_source: dict[tuple[str, str], set[str]] = defaultdict(set)
        unowned_ids: dict[str, set[str]] = defaultdict(set)  # from before keys had owners, stored as spelt
        for command in commands:
            if isinstance(command, PublishCommand | CancelCommand):
                source_id = command.source_id if isinstance(command, PublishCommand) else command.cancelled_source_id
                ids_by_owned_source[command.owner, command.source].add(source_id)
                for source in {command.source, command.source_as_written}:
                    unowned_ids[source].add(source_id)
        owners = sorted({owner for owner, _ in ids_by_owned_source})
        for (source, source_id), row in event_sources.lock_collapsed_cards(self._session, unowned_ids).items():
            self._index_broadcast(row, source, source_id, owners)
        for row in broadcasts.lock_by_source_ids(self._session, unowned_ids):
            self._index_broadcast(row, row.source, row.source_id, owners)
            self._used_source_ids.add((row.source, row.source_id))
        self._broadcast_by_event_key |= event_sources.lock_by_event_key(self._session, ids_by_owned_source)

    def _index_broadcast(self, row: _Row, source: str, source_id: str, owners: Sequence[str]) -> None:
        """Index a broadcast under its event's key for its owner, if that is one of `owners`."""
        for owner in owners:
            if SourceOwner(owner, self._by.user_id).is_owner_of(row):
                self._broadcast_by_event_key[owner, canonicalize_source(source), source_id] = row

    def decide(self, prepared: PreparedInboundEvent) -> _Decision:
        """Decide the outcome of one event, after those before it."""
        command, record = prepared.inbound_event.command, prepared.inbound_event.record
        match command:
            case PublishCommand():
                kind, broadcast, rejection = self._publish(command, prepared)
            case CancelCommand():
                kind, broadcast, rejection = self._cancel(command)
            case Rejection():
                kind, broadcast, rejection = "rejected", None, command
        source = command.source
        if rejection is not None and record.position is not None:
            is_new = dead_letters.add(self._session, record, rejection, at=self._now)
            kind, source = "rejected" if is_new else "repeated", source or f"kafka:{record.position.topic}"
        self._source_counts[source or "?"][kind] += 1
        if kind not in ("repeated", "cancelled") and command.source:
            self._samples[command.source].append((record, getattr(command, "owner", None)))
        return kind, broadcast, rejection

    def _publish(self, command: PublishCommand, prepared: PreparedInboundEvent) -> _Decision:
        event_key = _get_event_key(command)
        if known_broadcast := self._broadcast_by_event_key.get(event_key):
            return "repeated", known_broadcast, None
        status = _initial_status(command.draft, self._now)
        verdict = decide(command, prepared.audience, status, self._flood_state.get(command))
        if verdict.kind == "rejected":
            return "rejected", None, Rejection(OVER_CAP, verdict.reason, command.source, command.source_id)
        broadcast = self._join(verdict, command, prepared) if verdict.joined else self._create(verdict, prepared)
        self._broadcast_by_event_key[event_key] = broadcast
        if verdict.is_shown:
            self._flood_state.count_shown(command)
        return verdict.kind, broadcast, None

    def _join(self, verdict: Verdict, command: PublishCommand, prepared: PreparedInboundEvent) -> _Row:
        """Give a card or draft an event's text. Open pages see one change, however many events of a batch join it."""
        candidate, card = verdict.joined, verdict.joined.broadcast
        if card.is_live and card.requires_ack and not candidate.is_changed:
            # a user may be acknowledging the text on screen
            acknowledged_revisions.save_text(self._session, card.to_card())
        self._event_keys.append((_get_event_key(command), card))
        card.times += 1
        card.revision += 1
        card.repeated_at = self._now
        if command.acknowledge_again and card.is_live:
            card.ack_revision = card.revision
        if verdict.is_shown and card.seq is not None:
            receipts.save_seen_by_watermark(self._session, card)
        if verdict.is_shown:
            card.renewed_at = self._now
        broadcast_rows.fill_columns(
            card, replace(command.draft, scheduled_at=card.scheduled_at), self._now, html=prepared.html
        )
        card.sender_name = command.sender_name
        if not candidate.is_changed:
            candidate.is_changed = True
            self._collapsed.append((card, verdict.is_shown))
            if card.is_live:
                self._log_changes.append((card, prepared.audience, "again" if verdict.is_shown else "quiet"))
        return card

    def _create(self, verdict: Verdict, prepared: PreparedInboundEvent) -> NewBroadcast:
        command, broadcast = prepared.inbound_event.command, build_broadcast_row(prepared, by=self._by, now=self._now)
        source_key = (broadcast.source, broadcast.source_id)
        if source_key in self._used_source_ids:  # another owner's event, by chance or on purpose
            broadcast.source_id = None
            self._event_keys.append((_get_event_key(command), broadcast))
        self._used_source_ids.add(source_key)
        self._new_broadcasts.append((broadcast, prepared.audience))
        if verdict.kind == "quarantined":
            broadcast.status, broadcast.quarantine_reason = Status.DRAFT.value, verdict.reason
        elif broadcast.is_live:
            broadcast.published_at = self._now
            self._log_changes.append((broadcast, prepared.audience, "published"))
        self._flood_state.add_new(command, broadcast, prepared.audience)
        return broadcast

    def _cancel(self, command: CancelCommand) -> _Decision:
        broadcast = self._broadcast_by_event_key.get((command.owner, command.source, command.cancelled_source_id))
        if broadcast is None:
            reason = (
                f"Whoever sent this has announced nothing as {command.source} under the id "
                f"{command.cancelled_source_id}, so nothing can be recalled."
            )
            return "rejected", None, Rejection("not-found", reason, command.source, command.source_id)
        if not can_transition(broadcast.status, "cancelled"):
            return "repeated", broadcast, None  # already ended
        if broadcast.is_live:
            self._log_changes.append((broadcast, self._get_audience(broadcast), "cancelled"))
        broadcast.status = transition(broadcast.status, "cancelled").value
        broadcast.cancel_reason, broadcast.ended_at, broadcast.updated_at = command.reason, self._now, self._now
        self._cancelled.append(broadcast)
        return "cancelled", broadcast, None

    def _get_audience(self, broadcast: _Row) -> Audience:
        new_audiences = (audience for new, audience in self._new_broadcasts if new is broadcast)
        return next(new_audiences, None) or audiences.get_audience(broadcast)

    def store(self, yielder: Yielder) -> None:
        """Write everything. Reserving seqs locks the log until the commit, so it comes late."""
        event_sources.add_counts(self._session, self._source_counts, at=self._now)
        event_sources.save_samples(self._session, self._samples, at=self._now)
        self._flood_state.store_shown()
        fix_plans(row for row, _, change in self._log_changes if change == "published")
        first_cursor = log.reserve_seqs(self._session, len(self._log_changes)) if self._log_changes else None
        for index, (broadcast, _, change) in enumerate(self._log_changes):
            if change in ("published", "again"):  # shown again, it is the newest in every inbox: see `edits`
                broadcast.seq = first_cursor.seq + index
        broadcasts.add_many(self._session, [broadcast for broadcast, _ in self._new_broadcasts])
        for broadcast, audience in self._new_broadcasts:
            broadcast_rows.add_named_recipients(self._session, broadcast, audience)
        event_sources.add_event_keys(self._session, [(*key, broadcast.id) for key, broadcast in self._event_keys])
        self._session.flush()  # recipients, recalled and collapsed rows
        corrections.begin(self._session, [broadcast.id for broadcast in self._cancelled], at=self._now)
        self._write_audit()
        entries = []
        for log_change in self._log_changes:
            entries.append(_build_log_entry(*log_change))
            yielder.maybe_yield()
        log.append(self._session, entries, at=self._now, first_cursor=first_cursor)

    def _write_audit(self) -> None:
        """The actor is the account of the token, or the Kafka account; the event's own source is only a detail."""
        for broadcast, _ in self._new_broadcasts:
            self._record_audit(f"broadcast.{_audit_action(broadcast)}", broadcast, title=broadcast.title)
        for broadcast, is_shown_again in self._collapsed:
            self._record_audit("broadcast.repeated", broadcast, times=broadcast.times, again=is_shown_again)
        for broadcast in self._cancelled:
            self._record_audit("broadcast.cancelled", broadcast, reason=broadcast.cancel_reason)

    def _record_audit(self, action: str, broadcast: _Row, **detail: object) -> None:
        detail |= {"source": broadcast.source, "sourceId": broadcast.source_id, "sender": broadcast.sender_name}
        if (broadcast.source_owner or "").startswith("topic:"):
            detail["topic"] = broadcast.source_owner.removeprefix("topic:")
        audit.record(self._session, self._by, action, "broadcast", broadcast.id, now=self._now, **detail)


def _get_event_key(command: PublishCommand) -> _EventKey:
    return command.owner, command.source, command.source_id


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
