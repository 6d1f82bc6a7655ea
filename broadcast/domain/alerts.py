"""Which messages interrupt somebody who opens a page: the rule of what, how many, and in what order.

Which of them still want to be told at all, the database knows (`store.inbox.alerting`); when they are held (quiet hours), the
page does, as it stays open.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import datetime

from broadcast.domain.message import Priority
from broadcast.domain.preferences import Preferences

MOST_URGENT = 10  # dialogs, one after another
MOST_OTHERS = 3  # banners and toasts: the newest; older ones are in the list
_ORDER = (Priority.URGENT, Priority.HIGH, Priority.NORMAL, Priority.LOW)


@dataclass(frozen=True, slots=True)
class Alert:
    """A message that wants to be told. `since` is when it was sent, shown again or reminded of, whichever came last."""

    id: int
    seq: int
    priority: str
    category: str | None
    since: datetime


def choose(alerts: Iterable[Alert], wanted: Preferences, *, mandatory: Collection[str]) -> list[Alert]:
    """What a page raises: the highest priority first, and of one priority the oldest first, as they would have come in."""
    heard = [a for a in alerts if not wanted.silences(priority=a.priority, category=a.category, mandatory=mandatory)]
    heard.sort(key=lambda alert: (_ORDER.index(alert.priority), -alert.seq))
    urgent = [alert for alert in heard if alert.priority == Priority.URGENT][:MOST_URGENT]
    others = [alert for alert in heard if alert.priority != Priority.URGENT][:MOST_OTHERS]
    return sorted(urgent + others, key=lambda alert: (_ORDER.index(alert.priority), alert.seq))
