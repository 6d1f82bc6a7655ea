"""Which messages alert a user who opens a page: which, how many, and in what order.

The database knows which messages still need an alert (`store.inbox.Inbox.list_alerts`). The page itself holds alerts back
during quiet hours, because it stays open.
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
    """A message that should alert. `raised_at` is when it was sent, shown again or reminded of, whichever came last."""

    id: int
    seq: int
    priority: str
    category: str | None
    raised_at: datetime


def select_alerts(alerts: Iterable[Alert], preferences: Preferences, *, mandatory: Collection[str]) -> list[Alert]:
    """The alerts that a page raises: highest priority first, then oldest first, as they would have come in."""
    urgent, others = [], []
    for alert in sorted(alerts, key=lambda alert: (_PRIORITY_ORDER.index(alert.priority), -alert.seq)):
        if not preferences.is_alert_muted(priority=alert.priority, category=alert.category, mandatory=mandatory):
            (urgent if alert.priority == Priority.URGENT else others).append(alert)
    raised = urgent[:MAX_URGENT_ALERTS] + others[:MAX_OTHER_ALERTS]
    return sorted(raised, key=lambda alert: (_PRIORITY_ORDER.index(alert.priority), alert.seq))
