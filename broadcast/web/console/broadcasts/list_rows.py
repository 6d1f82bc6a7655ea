"""A broadcast as a line of a list: its audience in words, its figures in numbers."""

from dataclasses import dataclass
from datetime import datetime

from broadcast.domain.overdue_schedules import Reason
from broadcast.domain.stats import Figures
from broadcast.store import broadcasts
from broadcast.store.models import Broadcast
from broadcast.web.console import viewer_stats
from broadcast.web.core.rendering import in_people


@dataclass(frozen=True, slots=True)
class Row:
    """A broadcast as a line of a list. `quarantine_reason` is told as long as it is held back, `waits` while a plan waits.

    `read` is None when that is not known any more: its receipts were deleted at `receipts_deleted_at`.
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
    figures: Figures
    times: int
    quarantine_reason: str | None
    receipts_deleted_at: datetime | None
    waits: str | None


def rows(found: list[Broadcast], *, per_person: bool | None = None) -> list[Row]:
    """The lines of these broadcasts; `per_person` as in `told_figures.of`."""
    chosen = broadcasts.chosen_counts([b.id for b in found if b.audience_kind == "users"])
    figures = viewer_stats.of(found, per_person=per_person)
    return [_row(broadcast, chosen.get(broadcast.id, 0), figures[broadcast.id]) for broadcast in found]


def _row(broadcast: Broadcast, chosen: int, figures: Figures) -> Row:
    return Row(
        id=broadcast.id,
        title=broadcast.title,
        status=broadcast.status,
        priority=broadcast.priority,
        category=broadcast.category,
        audience=_audience_words(broadcast, chosen),
        sender_name=broadcast.sender_name,
        is_from_source=broadcast.source is not None,
        created_at=broadcast.created_at,
        published_at=broadcast.published_at,
        scheduled_at=broadcast.scheduled_at,
        ends_at=broadcast.ended_at or broadcast.expires_at,
        figures=figures,
        times=broadcast.times,
        quarantine_reason=broadcast.quarantine_reason if broadcast.is_quarantined else None,
        receipts_deleted_at=broadcast.receipts_deleted_at,
        waits=Reason(broadcast.decision_reason).sentence if broadcast.decision_reason else None,
    )


def _audience_words(broadcast: Broadcast, chosen: int) -> str:
    left_out = ", with exceptions" if broadcast.has_exceptions else ""
    match broadcast.audience_kind:
        case "everyone":
            return f"Everyone{left_out}"
        case "roles":
            names = broadcast.role_names
            joined = (" + " if broadcast.match_all else ", ").join(names)
            return f"Role{'s' if len(names) > 1 else ''}: {joined}{left_out}"
    if broadcast.receipts_deleted_at:  # and perhaps who was chosen, in part
        chosen = broadcast.audience_count or 0
    if not chosen:
        return "Not chosen yet"
    return in_people(chosen) + left_out
