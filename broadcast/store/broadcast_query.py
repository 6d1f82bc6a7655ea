"""The console's list of broadcasts: what a look at it asks for, and the page that answers."""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import ColumnElement, Select, func, select

from broadcast.domain.lifecycle import Status
from broadcast.store import search
from broadcast.store.broadcasts import WITHOUT_TEXT
from broadcast.store.database import db
from broadcast.store.models import Broadcast, User

TABS = {
    "all": list(Status),
    "draft": [Status.DRAFT],
    "scheduled": [Status.SCHEDULED],
    "active": [Status.ACTIVE],
    "ended": [Status.EXPIRED, Status.CANCELLED],
    "archived": list(Status),
}
SORTS = {
    "newest": [Broadcast.id.desc()],
    "oldest": [Broadcast.id],
    "title": [func.lower(Broadcast.title), Broadcast.id],
    "start": [func.coalesce(Broadcast.published_at, Broadcast.scheduled_at).desc().nulls_last(), Broadcast.id.desc()],
    "due": [Broadcast.scheduled_at.asc().nulls_last(), Broadcast.id.desc()],
    "end": [Broadcast.expires_at.asc().nulls_last(), Broadcast.id.desc()],
    "reach": [Broadcast.audience_count.desc().nulls_last(), Broadcast.id.desc()],
}
SIZES = (20, 50, 100)


@dataclass(frozen=True, slots=True)
class Look:
    """What is asked for. Empty strings mean "any"; `number` is the page, from 1."""

    tab: str = "all"
    q: str = ""
    category: str = ""
    author: int | None = None
    priority: str = ""
    sort: str = "newest"
    number: int = 1
    size: int = SIZES[0]

    @property
    def is_narrow(self) -> bool:
        """True when more than the tab is asked for."""
        return bool(self.q or self.category or self.author or self.priority)


def page(look: Look) -> list[Broadcast]:
    """Without their texts."""
    query = _wanted(select(Broadcast).options(*WITHOUT_TEXT), look).order_by(*SORTS[look.sort])
    return list(db.session.scalars(query.offset((look.number - 1) * look.size).limit(look.size)))


def counts(look: Look) -> dict[str, int]:
    """How many broadcasts each tab shows under the same filters."""
    is_archived = Broadcast.archived_at.is_not(None)
    query = _narrowed(select(Broadcast.status, is_archived, func.count()), look).group_by(Broadcast.status, is_archived)
    found = db.session.execute(query).all()
    return {
        tab: sum(n for status, archived, n in found if status in statuses and bool(archived) == (tab == "archived"))
        for tab, statuses in TABS.items()
    }


def ids(look: Look, *, most: int) -> list[int]:
    """Everything that is asked for, whatever the page, at most `most`, in its order."""
    return list(db.session.scalars(_wanted(select(Broadcast.id), look).order_by(*SORTS[look.sort]).limit(most)))


def some(ids: Sequence[int]) -> list[Broadcast]:
    """These broadcasts, in this order, without their texts; those deleted meanwhile are left out."""
    query = select(Broadcast).options(*WITHOUT_TEXT).where(Broadcast.id.in_(ids))
    found = {row.id: row for row in db.session.scalars(query)}
    return [found[broadcast_id] for broadcast_id in ids if broadcast_id in found]


def categories() -> list[str]:
    query = select(Broadcast.category).where(Broadcast.category.is_not(None)).distinct().order_by(Broadcast.category)
    return list(db.session.scalars(query.limit(200)))


def authors() -> list[tuple[int, str]]:
    """Who has written a broadcast: user id and name. Not what a broadcast shows: an event from outside names itself."""
    written = select(Broadcast.sender_id).distinct()
    query = select(User.id, User.name).where(User.id.in_(written))
    return sorted(map(tuple, db.session.execute(query)), key=lambda author: author[1].lower())


def _wanted(query: Select, look: Look) -> Select:
    archived = Broadcast.archived_at.is_not(None) if look.tab == "archived" else Broadcast.archived_at.is_(None)
    return _narrowed(query, look).where(Broadcast.status.in_(TABS[look.tab]), archived)


def _narrowed(query: Select, look: Look) -> Select:
    return query.where(*_filters(look))


def _filters(look: Look) -> list[ColumnElement[bool]]:
    found: list[ColumnElement[bool]] = []
    if look.q:
        found.append(search.matches(look.q))
    if look.category:
        found.append(Broadcast.category == look.category)
    if look.author:
        found.append(Broadcast.sender_id == look.author)
    if look.priority:
        found.append(Broadcast.priority == look.priority)
    return found
