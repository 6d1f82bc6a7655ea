"""The view "Ended" of a user's inbox: received broadcasts that have ended, newest first, to be read again.

It shows what this user has a receipt for and is still in the audience of: a user who joined later never received it,
and one who lost the role may no longer see it. Recalled broadcasts are not shown. It ignores archiving and snoozing.
"""

from typing import Any

from sqlalchemy import Select, and_, false, func, null, or_, select

from broadcast.domain.lifecycle import Status
from broadcast.store.engine import RUN_IN_THREAD
from broadcast.store.fast.prepared_query import PreparedQuery
from broadcast.store.inbox import CARD_KEY_COLUMNS, NOW, MessageList, order_categories, select_included
from broadcast.store.models import Broadcast, Receipt, User

MAX_COUNTED = 99  # more are "99+": counting all that ever ended would take longer every year


def _select_visible(*columns: Any) -> Select:
    """Also what is past its end before the scheduler has run: no other view shows it any more."""
    is_past_end = and_(Broadcast.status == Status.ACTIVE, Broadcast.expires_at <= NOW)
    is_ended = or_(Broadcast.status == Status.EXPIRED, is_past_end)
    return select_included(columns, is_ended, Broadcast.seq.is_not(None), requires_receipt=True)


_count_query = PreparedQuery(
    select(func.count()).select_from(_select_visible(Broadcast.id).limit(MAX_COUNTED + 1).subquery())
)


class EndedInbox(MessageList):
    """A user's ended messages. The view of filters does not matter."""

    _item_query = _select_visible(
        *CARD_KEY_COLUMNS,
        Broadcast.seq,
        or_(Receipt.read_at.is_not(None), Broadcast.seq <= User.read_through_seq),
        Receipt.read_at,
        Receipt.unread_at,
        Receipt.acked_at,
        Receipt.archived_at,
        null(),
        false(),
        Receipt.acked_revision,
        func.coalesce(Broadcast.ended_at, Broadcast.expires_at),
    )
    _broadcast_query = _select_visible(Broadcast)
    _categories_query = order_categories(_select_visible(Broadcast.category))
    _execution_options = RUN_IN_THREAD  # SQLite sorts everything this user ever received to find the newest

    def count(self) -> int:
        """How many there are; MAX_COUNTED + 1 stands for more."""
        return _count_query.fetch_first(self._parameters)[0]
