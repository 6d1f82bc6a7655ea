"""The console's list of broadcasts: filters, sorting and paging."""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import ColumnElement, Select, func, select

from broadcast.domain.lifecycle import Status
from broadcast.store import search
from broadcast.store.broadcasts import STATUS_FILTERS, WITHOUT_TEXT
from broadcast.store.database import db
from broadcast.store.models import Broadcast, User

TABS = STATUS_FILTERS | {"archived": list(Status)}
SORTS = {
    "newest": [Broadcast.id.desc()],
    "oldest": [Broadcast.id],
    "title": [func.lower(Broadcast.title), Broadcast.id],
    "start": [func.coalesce(Broadcast.published_at, Broadcast.scheduled_at).desc().nulls_last(), Broadcast.id.desc()],
    "due": [Broadcast.scheduled_at.asc().nulls_last(), Broadcast.id.desc()],
    "end": [Broadcast.expires_at.asc().nulls_last(), Broadcast.id.desc()],
    "reach": [Broadcast.audience_count.desc().nulls_last(), Broadcast.id.desc()],
}
PAGE_SIZES = (20, 50, 100)


@dataclass(frozen=True, slots=True)
class BroadcastQuery:
    """The filters, sort order and page of a list. Empty strings mean "any"; `number` is the page, from 1."""

    tab: str = "all"
    q: str = ""
    category: str = ""
    author: int | None = None
    priority: str = ""
    sort: str = "newest"
    number: int = 1
    size: int = PAGE_SIZES[0]

    @property
    def is_narrow(self) -> bool:
        """Whether any filter besides the tab is set."""
        return bool(self.q or self.category or self.author or self.priority)


def list_page(criteria: BroadcastQuery) -> list[Broadcast]:
    """One page of broadcasts, without their texts."""
    query = _select_matching(select(Broadcast).options(*WITHOUT_TEXT), criteria)
    return list(db.session.scalars(query.offset((criteria.number - 1) * criteria.size).limit(criteria.size)))


def count_by_tab(criteria: BroadcastQuery) -> dict[str, int]:
    """The number of broadcasts in each tab under the same filters."""
    is_archived = Broadcast.archived_at.is_not(None)
    query = select(Broadcast.status, is_archived, func.count()).where(*_build_conditions(criteria))
    rows = db.session.execute(query.group_by(Broadcast.status, is_archived)).all()
    return {
        tab: sum(n for status, archived, n in rows if status in statuses and bool(archived) == (tab == "archived"))
        for tab, statuses in TABS.items()
    }


def list_ids(criteria: BroadcastQuery, *, limit: int) -> list[int]:
    """Ids of all matching broadcasts in sort order, at most `limit`, on whatever page."""
    return list(db.session.scalars(_select_matching(select(Broadcast.id), criteria).limit(limit)))


def list_by_ids(ids: Sequence[int]) -> list[Broadcast]:
    """These broadcasts in this order, without their texts; those deleted meanwhile are left out."""
    query = select(Broadcast).options(*WITHOUT_TEXT).where(Broadcast.id.in_(ids))
    rows_by_id = {row.id: row for row in db.session.scalars(query)}
    return [rows_by_id[broadcast_id] for broadcast_id in ids if broadcast_id in rows_by_id]


def list_categories() -> list[str]:
    query = select(Broadcast.category).where(Broadcast.category.is_not(None)).distinct().order_by(Broadcast.category)
    return list(db.session.scalars(query.limit(200)))


def list_authors() -> list[tuple[int, str]]:
    """Who has written a broadcast: (user id, name). Not the displayed sender: an inbound event names itself."""
    author_ids = select(Broadcast.sender_id).distinct()
    query = select(User.id, User.name).where(User.id.in_(author_ids))
    return sorted(map(tuple, db.session.execute(query)), key=lambda author: author[1].lower())


def _select_matching(query: Select, criteria: BroadcastQuery) -> Select:
    is_archived = Broadcast.archived_at.is_not(None)
    is_in_tab = (Broadcast.status.in_(TABS[criteria.tab]), is_archived if criteria.tab == "archived" else ~is_archived)
    return query.where(*_build_conditions(criteria), *is_in_tab).order_by(*SORTS[criteria.sort])


def _build_conditions(criteria: BroadcastQuery) -> list[ColumnElement[bool]]:
    values_by_column = {
        Broadcast.category: criteria.category,
        Broadcast.sender_id: criteria.author,
        Broadcast.priority: criteria.priority,
    }
    conditions = [column == value for column, value in values_by_column.items() if value]
    return [*conditions, search.matches(criteria.q)] if criteria.q else conditions
