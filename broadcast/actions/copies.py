"""Duplicate and delete drafts; archive ended broadcasts."""

from datetime import datetime

from broadcast.actions import broadcast_rows
from broadcast.actions.edits import SavedDraft
from broadcast.domain import lifecycle
from broadcast.domain.actor import Actor
from broadcast.domain.permissions import Permission
from broadcast.store import audiences, audit
from broadcast.store.models import Broadcast
from broadcast.store.transactions import write_transaction

_COPIED_COLUMNS = ("title", "content", "content_html", "priority", "category", "actions", "requires_ack", "typed")


def duplicate(broadcast_id: int, *, by: Actor, now: datetime) -> SavedDraft:
    """Create a draft with the text and the audience of a broadcast, without its times. Raises NotFound, Invalid."""
    by.require(Permission.WRITE)
    with write_transaction() as session:
        broadcast_rows.check_draft_quota(by)
        original = broadcast_rows.get_broadcast_for_update(session, broadcast_id)
        copy = Broadcast(**broadcast_rows.build_draft_columns(by, now))
        for name in _COPIED_COLUMNS:
            setattr(copy, name, getattr(original, name))
        session.add(copy)
        session.flush()
        try:
            audience = audiences.get_audience(original)
        except ValueError:  # a draft without an audience yet
            audience = None
        if audience:
            count, is_snapshot = audiences.count(audience), original.is_snapshot
            broadcast_rows.set_audience(session, copy, audience, count, is_snapshot, may_be_empty=True)
        audit.record(session, by, "broadcast.drafted", "broadcast", copy.id, now=now, copy_of=broadcast_id)
        return SavedDraft(copy.id, copy.version)


def discard_draft(broadcast_id: int, *, by: Actor, now: datetime) -> None:
    """Delete a draft: it disappears from every list but the archive. Raises NotFound, IllegalTransition."""
    by.require(Permission.WRITE)
    with write_transaction() as session:
        broadcast = broadcast_rows.get_broadcast_for_update(session, broadcast_id)
        broadcast.status = lifecycle.transition(broadcast.status, "discarded").value
        broadcast.ended_at = broadcast.archived_at = broadcast.updated_at = now
        audit.record(session, by, "broadcast.discarded", "broadcast", broadcast.id, now=now)


def archive(broadcast_id: int, *, by: Actor, now: datetime) -> None:
    """Move an ended broadcast to the archive; idempotent. Raises NotFound, IllegalTransition."""
    by.require(Permission.WRITE)
    with write_transaction() as session:
        broadcast = broadcast_rows.get_broadcast_for_update(session, broadcast_id)
        lifecycle.transition(broadcast.status, "archived")
        if broadcast.archived_at is None:
            broadcast.archived_at = now
            audit.record(session, by, "broadcast.archived", "broadcast", broadcast.id, now=now)
