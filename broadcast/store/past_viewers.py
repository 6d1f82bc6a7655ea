"""Who was in which audience before: the periods in which users had other roles, or an enabled account.

Current roles say who is in an audience now. Who could see a broadcast while it was live and no longer can is known only
from the past, so each finished period has a row.
"""

from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Select, exists, func, insert, literal, or_, select, update
from sqlalchemy.orm import Session

from broadcast.store import audiences
from broadcast.store.models import Broadcast, LogHead, PastViewer, PastViewerRole, User, UserRole
from broadcast.store.types import UtcDateTime


def close_current_periods(session: Session, user_condition: ColumnElement[bool], *, at: datetime) -> None:
    """Close the current period of the users that match this condition on User.

    Call it before their roles or accounts change, in the same transaction, with the users locked. A disabled account
    has no current period; one starts when it is enabled again.
    """
    session.flush()
    head = select(LogHead.seq).scalar_subquery()
    last_id = session.scalar(select(func.coalesce(func.max(PastViewer.id), 0)))
    columns = ["user_id", "since", "since_seq", "until", "until_seq"]
    current_periods = select(User.id, User.viewer_since, User.viewer_since_seq, literal(at, UtcDateTime), head)
    current_periods = current_periods.where(user_condition, User.disabled_at.is_(None))
    session.execute(insert(PastViewer).from_select(columns, current_periods, include_defaults=False))
    roles = (
        select(PastViewer.id, UserRole.role_name)
        .join(UserRole, UserRole.user_id == PastViewer.user_id)
        .join(User, User.id == PastViewer.user_id)
        .where(PastViewer.id > last_id, PastViewer.until == at, user_condition)
    )
    session.execute(insert(PastViewerRole).from_select(["past_viewer_id", "role_name"], roles))
    begin_statement = update(User).where(user_condition).values(viewer_since=at, viewer_since_seq=head)
    session.execute(begin_statement.execution_options(synchronize_session=False))


def was_in_audience(user_id: Any) -> ColumnElement[bool]:
    """Whether a user of the query was in the audience of a row of Broadcast in a past period while it was live."""
    return exists().where(PastViewer.user_id == user_id, *build_overlap_conditions()).correlate_except(PastViewer)


def select_user_ids(broadcast: Broadcast) -> Select:
    """The users for whom `was_in_audience` is true for this broadcast, for IN."""
    query = select(PastViewer.user_id).select_from(Broadcast)
    return query.where(Broadcast.id == broadcast.id, *build_overlap_conditions())


def build_overlap_conditions() -> list[ColumnElement[bool]]:
    """The conditions that a row of PastViewer was in the audience of a row of Broadcast while it was live."""
    has_left_after_start = or_(PastViewer.until > Broadcast.published_at, PastViewer.until_seq >= Broadcast.seq)
    is_still_live, started_at = Broadcast.ended_at.is_(None), PastViewer.since
    has_come_before_end = or_(
        is_still_live, started_at.is_(None), started_at < Broadcast.ended_at, PastViewer.since_seq < Broadcast.seq
    )
    is_included = audiences.includes_user(
        PastViewer.user_id, PastViewerRole, lambda role: role.past_viewer_id == PastViewer.id
    )
    return [has_left_after_start, has_come_before_end, is_included]
