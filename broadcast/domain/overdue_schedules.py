"""When a due scheduled broadcast is not sent automatically, so that a user must decide: send, reschedule or cancel it.

Late news may be wrong, and a broadcast that a restored database calls scheduled may have been sent already. So it is
sent automatically only near its time, if its end and due date have not passed, and if its planner may still send it.
"""

from datetime import datetime, timedelta
from enum import StrEnum

SCHEDULE_GRACE = timedelta(minutes=15)


class DecisionReason(StrEnum):
    """Why a scheduled broadcast waits for a decision."""

    OVERDUE = "OVERDUE"
    ENDED = "ENDED"
    ACK_PASSED = "ACK_PASSED"
    PLANNER = "PLANNER"
    STANDSTILL = "STANDSTILL"
    RESTORED = "RESTORED"

    @property
    def sentence(self) -> str:
        return _REASON_SENTENCES[self]


_REASON_SENTENCES = {
    DecisionReason.OVERDUE: "Its time passed while it could not be sent.",
    DecisionReason.ENDED: "Its end passed before it was sent.",
    DecisionReason.ACK_PASSED: "The date to acknowledge it by passed before it was sent.",
    DecisionReason.PLANNER: "Who planned it has no account any more, or may not send it any more.",
    DecisionReason.STANDSTILL: "Its time passed while the system stood still. If a backup was restored, it may "
    "have gone out already.",
    DecisionReason.RESTORED: "The database was restored or moved, so it may have gone out already.",
}


def get_expiry_reason(*, ends_at: datetime | None, ack_due_at: datetime | None, now: datetime) -> DecisionReason | None:
    """Why a message cannot be sent at all: its end or its due date has passed. None if neither has."""
    if ends_at and ends_at <= now:
        return DecisionReason.ENDED
    return DecisionReason.ACK_PASSED if ack_due_at and ack_due_at <= now else None
