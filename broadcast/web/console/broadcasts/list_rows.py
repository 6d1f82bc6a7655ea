"""Rows of the broadcast list: the audience in words, the figures in numbers."""

from dataclasses import dataclass
from datetime import datetime

from broadcast.domain.overdue_schedules import DecisionReason
from broadcast.domain.stats import BroadcastStats
from broadcast.store import broadcasts
from broadcast.store.models import Broadcast
from broadcast.web.console import viewer_stats
from broadcast.web.core.rendering import format_people_count


@dataclass(frozen=True, slots=True)
class BroadcastListItem:
    """A row of the broadcast list. `quarantine_reason` is set while it is in quarantine, `waiting_reason` while a
    scheduled broadcast waits.

    `read` is None when it is no longer known: the receipts were deleted at `receipts_deleted_at`.
    """

    id: int
    title: str
    status: str
    priority: str
    category: str | None
    audience: str
    sender_name: str
    is_from_source: bool
    created_at: datetime
    published_at: datetime | None
    scheduled_at: datetime | None
    ends_at: datetime | None
    stats: BroadcastStats
    times: int
    quarantine_reason: str | None
    receipts_deleted_at: datetime | None
    waiting_reason: str | None


def load_list_items(
    listed_broadcasts: list[Broadcast], *, per_recipient: bool | None = None
) -> list[BroadcastListItem]:
    """The rows of these broadcasts; `per_recipient` as in `viewer_stats.load_stats`."""
    chosen_counts = broadcasts.count_selected_users([b.id for b in listed_broadcasts if b.audience_kind == "users"])
    stats_by_id = viewer_stats.load_stats(listed_broadcasts, per_recipient=per_recipient)
    return [
        _to_list_item(broadcast, chosen_counts.get(broadcast.id, 0), stats_by_id[broadcast.id])
        for broadcast in listed_broadcasts
    ]


def _to_list_item(broadcast: Broadcast, chosen_count: int, broadcast_stats: BroadcastStats) -> BroadcastListItem:
    return BroadcastListItem(
        id=broadcast.id,
        title=broadcast.title,
        status=broadcast.status,
        priority=broadcast.priority,
        category=broadcast.category,
        audience=_describe_audience(broadcast, chosen_count),
        sender_name=broadcast.sender_name,
        is_from_source=broadcast.source is not None,
        created_at=broadcast.created_at,
        published_at=broadcast.published_at,
        scheduled_at=broadcast.scheduled_at,
        ends_at=broadcast.ended_at or broadcast.expires_at,
        stats=broadcast_stats,
        times=broadcast.times,
        quarantine_reason=broadcast.quarantine_reason if broadcast.is_quarantined else None,
        receipts_deleted_at=broadcast.receipts_deleted_at,
        waiting_reason=DecisionReason(broadcast.decision_reason).sentence if broadcast.decision_reason else None,
    )


def _describe_audience(broadcast: Broadcast, chosen_count: int) -> str:
    exclusion_suffix = ", with exclusions" if broadcast.has_exceptions else ""
    match broadcast.audience_kind:
        case "everyone":
            return f"Everyone{exclusion_suffix}"
        case "roles":
            role_names = broadcast.role_names
            joined = (" + " if broadcast.match_all else ", ").join(role_names)
            return f"Role{'s' if len(role_names) > 1 else ''}: {joined}{exclusion_suffix}"
    if broadcast.receipts_deleted_at:  # some chosen users may be deleted as well
        chosen_count = broadcast.audience_count or 0
    if not chosen_count:
        return "Not chosen yet"
    return format_people_count(chosen_count) + exclusion_suffix
