"""Who was in which audience before: the times in which people had other roles, or an open account.

The roles that people have now say who is in an audience now. Who could see a broadcast while it was live, and no longer can, is
known only if what they were before is kept: a row for each time that is over.
"""

from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Select, exists, func, insert, literal, or_, select, update
from sqlalchemy.orm import Session

from broadcast.store import audiences
from broadcast.store.database import UtcDateTime
from broadcast.store.models import Broadcast, LogHead, PastViewer, PastViewerRole, User, UserRole


def close_current_periods(session: Session, user_condition: ColumnElement[bool], *, at: datetime) -> None:
    """Close the present time of the people for whom this condition on User holds.

    To be called before their roles or their accounts change, in the transaction that changes them, with the people locked.
    A closed account has no present time; one begins when it is opened again.
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
    """Whether a person of the query was in the audience of a row of Broadcast at some moment while it was live.

    Of the times that are over; in the present one the audience itself says it.
    """
    return exists().where(PastViewer.user_id == user_id, *build_overlap_conditions()).correlate_except(PastViewer)


def select_user_ids(broadcast: Broadcast) -> Select:
    """The people of whom `was_in_audience` is true for this broadcast, for IN."""
    return (
        select(PastViewer.user_id)
        .select_from(Broadcast)
        .where(Broadcast.id == broadcast.id, *build_overlap_conditions())
    )


def build_overlap_conditions() -> list[ColumnElement[bool]]:
    """That a row of PastViewer was in the audience of a row of Broadcast while it was live."""
    has_left_after_start = or_(PastViewer.until > Broadcast.published_at, PastViewer.until_seq >= Broadcast.seq)
    is_still_live, started_at = Broadcast.ended_at.is_(None), PastViewer.since
    has_come_before_end = or_(
        is_still_live, started_at.is_(None), started_at < Broadcast.ended_at, PastViewer.since_seq < Broadcast.seq
    )
    is_included = audiences.includes_user(
        PastViewer.user_id, PastViewerRole, lambda role: role.past_viewer_id == PastViewer.id
    )
    return [has_left_after_start, has_come_before_end, is_included]
