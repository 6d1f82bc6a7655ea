"""Which messages interrupt somebody who opens a page: the rule of what, how many, and in what order.

Which of them still want to be told at all, the database knows (`store.inbox.list_alerts`); when they are held (quiet
hours), the page does, as it stays open.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import datetime

from broadcast.domain.message import Priority
from broadcast.domain.preferences import Preferences

MAX_URGENT_ALERTS = 10  # dialogs, one after another
MAX_OTHER_ALERTS = 3  # banners and toasts: the newest; older ones are in the list
_PRIORITY_ORDER = (Priority.URGENT, Priority.HIGH, Priority.NORMAL, Priority.LOW)


@dataclass(frozen=True, slots=True)
class Alert:
    """A message that wants to be told. `raised_at` is when it was sent, shown again or reminded of, whichever came last."""

    id: int
    seq: int
    priority: str
    category: str | None
    raised_at: datetime


def select_alerts(alerts: Iterable[Alert], preferences: Preferences, *, mandatory: Collection[str]) -> list[Alert]:
    """What a page raises: the highest priority first, and of one priority the oldest first, as they would have come in."""
    unmuted = [
        a
        for a in alerts
        if not preferences.is_alert_muted(priority=a.priority, category=a.category, mandatory=mandatory)
    ]
    unmuted.sort(key=lambda alert: (_PRIORITY_ORDER.index(alert.priority), -alert.seq))
    urgent = [alert for alert in unmuted if alert.priority == Priority.URGENT][:MAX_URGENT_ALERTS]
    others = [alert for alert in unmuted if alert.priority != Priority.URGENT][:MAX_OTHER_ALERTS]
    return sorted(urgent + others, key=lambda alert: (_PRIORITY_ORDER.index(alert.priority), alert.seq))
