"""Who was in which audience before: the times in which people had other roles, or an open account.

The roles that people have now say who is in an audience now. Who could see a broadcast while it was live, and no longer can, is
known only if what they were before is kept: a row for each time that is over.
"""

from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Select, exists, func, insert, literal, or_, select, update
from sqlalchemy.orm import Session

from broadcast.store import audiences
from broadcast.store.database import Moment
from broadcast.store.models import Broadcast, LogHead, PastViewer, PastViewerRole, User, UserRole


def remember(session: Session, people: ColumnElement[bool], *, at: datetime) -> None:
    """Close the present time of the people for whom this condition on User holds.

    To be called before their roles or their accounts change, in the transaction that changes them, with the people locked.
    A closed account has no present time; one begins when it is opened again.
    """
    session.flush()
    head = select(LogHead.seq).scalar_subquery()
    before = session.scalar(select(func.coalesce(func.max(PastViewer.id), 0)))
    columns = ["user_id", "since", "since_seq", "until", "until_seq"]
    present = select(User.id, User.viewer_since, User.viewer_since_seq, literal(at, Moment), head)
    present = present.where(people, User.disabled_at.is_(None))
    session.execute(insert(PastViewer).from_select(columns, present, include_defaults=False))
    roles = (
        select(PastViewer.id, UserRole.role_name)
        .join(UserRole, UserRole.user_id == PastViewer.user_id)
        .join(User, User.id == PastViewer.user_id)
        .where(PastViewer.id > before, PastViewer.until == at, people)
    )
    session.execute(insert(PastViewerRole).from_select(["past_viewer_id", "role_name"], roles))
    begin = update(User).where(people).values(viewer_since=at, viewer_since_seq=head)
    session.execute(begin.execution_options(synchronize_session=False))


def were_in(user_id: Any) -> ColumnElement[bool]:
    """Whether a person of the query was in the audience of a row of Broadcast at some moment while it was live.

    Of the times that are over; in the present one the audience itself says it.
    """
    return exists().where(PastViewer.user_id == user_id, *was_in()).correlate_except(PastViewer)


def ids_of(broadcast: Broadcast) -> Select:
    """The people of whom `were_in` is true for this broadcast, for IN."""
    return select(PastViewer.user_id).select_from(Broadcast).where(Broadcast.id == broadcast.id, *was_in())


def was_in() -> list[ColumnElement[bool]]:
    """That a row of PastViewer was in the audience of a row of Broadcast while it was live."""
    left_after = or_(PastViewer.until > Broadcast.published_at, PastViewer.until_seq >= Broadcast.seq)
    is_live, began = Broadcast.ended_at.is_(None), PastViewer.since
    came_before = or_(is_live, began.is_(None), began < Broadcast.ended_at, PastViewer.since_seq < Broadcast.seq)
    included = audiences.includes_person(
        PastViewer.user_id, PastViewerRole, lambda role: role.past_viewer_id == PastViewer.id
    )
    return [left_after, came_before, included]
