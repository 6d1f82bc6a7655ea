"""Broadcast stats as the current identity may see them: the only path from stored counts to a page, file or JSON.

Figures that reveal what one recipient read need a permission, and nobody sees them where the system discloses totals
only (`domain.stats.disclose_stats`).
"""

from collections.abc import Sequence
from typing import Any

from broadcast.config.settings import SETTINGS
from broadcast.domain import stats
from broadcast.domain.permissions import Permission
from broadcast.domain.stats import FUNNEL_STEPS, BroadcastStats
from broadcast.store import broadcast_totals
from broadcast.store.broadcast_stats import ReadLatency
from broadcast.store.models import Broadcast
from broadcast.web.core.identity import current_identity


def has_per_recipient_stats() -> bool:
    """Whether this system discloses who has read what."""
    return SETTINGS.current.stats_per_recipient


def may_see_per_recipient_stats() -> bool:
    """Whether the current identity may see who has read what."""
    return has_per_recipient_stats() and current_identity().actor.may(Permission.FIGURES)


def load_stats(rows: Sequence[Broadcast], *, per_recipient: bool | None = None) -> dict[int, BroadcastStats]:
    """Stats by broadcast id. Code that runs after the request passes an earlier `may_see_per_recipient_stats()`."""
    per_recipient = may_see_per_recipient_stats() if per_recipient is None else per_recipient
    totals_by_id = broadcast_totals.count_totals([row for row in rows if not row.receipts_deleted_at])
    return {
        row.id: stats.make_stats_without_receipts(row.audience_count)
        if row.receipts_deleted_at
        else stats.disclose_stats(totals_by_id[row.id], per_recipient=per_recipient)
        for row in rows
    }


def load_broadcast_stats(row: Broadcast) -> BroadcastStats:
    return load_stats([row])[row.id]


def load_new_broadcast_stats(row: Broadcast) -> BroadcastStats:
    """The stats of a broadcast stored a moment ago."""
    return stats.disclose_stats(broadcast_totals.build_unsent_totals(row), per_recipient=may_see_per_recipient_stats())


def disclose_pace(pace: ReadLatency, broadcast_stats: BroadcastStats) -> ReadLatency | None:
    """The read latency under the same rule; None if undisclosed. A percentile is the moment of one reader."""
    if broadcast_stats.is_exact:
        return pace
    if broadcast_stats.is_suppressed:
        return None
    delivered, read = (
        [stats.round_to_group(count, broadcast_stats.targeted) for count in line]
        for line in (pace.delivered, pace.read)
    )
    return ReadLatency(None, None, delivered, read)


def stats_to_json(broadcast_stats: BroadcastStats) -> dict[str, Any]:
    counts = {"targeted": broadcast_stats.targeted} | {step: getattr(broadcast_stats, step) for step in FUNNEL_STEPS}
    rates = {step: broadcast_stats.rate(step) for step in FUNNEL_STEPS}
    return counts | {
        "rates": {step: None if rate is None else round(rate, 4) for step, rate in rates.items()},
        "missing": broadcast_stats.missing,
        "noLongerHere": broadcast_stats.gone,
        "sentTo": broadcast_stats.sent_to,
        "wouldReach": broadcast_stats.would_reach,
        "roundedTo": broadcast_stats.rounded_to,
    }
