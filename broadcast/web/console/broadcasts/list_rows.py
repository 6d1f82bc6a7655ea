"""Rows of the broadcast list: the audience in words, the figures in numbers."""

from typing import Any

from broadcast.domain.overdue_schedules import DecisionReason
from broadcast.domain.stats import BroadcastStats
from broadcast.store import broadcasts
from broadcast.store.models import Broadcast
from broadcast.web.console import viewer_stats
from broadcast.web.core.rendering import format_people_count


class BroadcastListItem:
    """A broadcast, with what a row of the list says about it. Its other attributes are those of the broadcast.

    `quarantine_reason` is set while it is in quarantine, `waiting_reason` while a scheduled broadcast waits.
    """

    def __init__(self, broadcast: Broadcast, audience: str, stats: BroadcastStats):
        self._broadcast, self.audience, self.stats = broadcast, audience, stats
        self.is_from_source = broadcast.source is not None
        self.ends_at = broadcast.ended_at or broadcast.expires_at
        self.quarantine_reason = broadcast.quarantine_reason if broadcast.is_quarantined else None
        decision_reason = broadcast.decision_reason
        self.waiting_reason = DecisionReason(decision_reason).sentence if decision_reason else None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._broadcast, name)


def load_list_items(
    listed_broadcasts: list[Broadcast], *, per_recipient: bool | None = None
) -> list[BroadcastListItem]:
    """The rows of these broadcasts; `per_recipient` as in `viewer_stats.load_stats`."""
    chosen_counts = broadcasts.count_selected_users([b.id for b in listed_broadcasts if b.audience_kind == "users"])
    stats_by_id = viewer_stats.load_stats(listed_broadcasts, per_recipient=per_recipient)
    return [
        BroadcastListItem(row, _describe_audience(row, chosen_counts.get(row.id, 0)), stats_by_id[row.id])
        for row in listed_broadcasts
    ]


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
