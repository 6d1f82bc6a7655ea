"""The audit: rows that are only ever added, each with a hash that covers the one before.

Acts hand their rows in at any moment of a transaction; they are numbered and chained just before its commit, under the lock of
one head row. That lock is the last one a transaction takes, so nobody holds it while waiting, and it is held for three
statements whatever the act took.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from types import NoneType
from typing import Any

from sqlalchemy import Select, event, func, or_, select, update
from sqlalchemy.orm import Session, SessionTransaction

from broadcast.base.cooperative import Breath
from broadcast.domain import audit_hash
from broadcast.store import user_search
from broadcast.store.database import db
from broadcast.store.fast.bulk_insert import insert_many
from broadcast.store.models import Audit, AuditHead, User

_WAITING = "audit_waiting"  # in Session.info: rows of this transaction that are not chained yet
_PLAIN = {str, int, bool, NoneType}  # read back from JSON as they were
_READ = 1000  # rows of one step of `verify`


@dataclass(frozen=True, slots=True)
class Filters:
    """What narrows the page. Empty strings and None mean "any"; `what` is the beginning of an action's name."""

    who: str = ""
    what: str = ""
    object_type: str = ""
    object_id: str = ""
    since: datetime | None = None
    until: datetime | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    """How far the chain holds: `broken_id` is the first row that does not fit (None: all do), `head` the last good hash."""

    rows: int
    head: str
    broken_id: int | None = None
    problem: str = ""


def append(session: Session, **row: Any) -> None:
    """Add a row to this transaction; it is dropped when the transaction, or a savepoint around the call, is rolled back."""
    if not all(type(value) in _PLAIN for value in row["detail"].values()):
        row["detail"] = json.loads(json.dumps(row["detail"], default=str))  # hashed as it will be read back
    session.info.setdefault(_WAITING, []).append((row, list(_around(session))))


def _around(session: Session) -> Iterator[SessionTransaction]:
    transaction = session.get_nested_transaction() or session.get_transaction()
    while transaction is not None:
        yield transaction
        transaction = transaction.parent


@event.listens_for(Session, "before_commit")
def _seal(session: Session) -> None:
    if session.in_nested_transaction():  # a savepoint is released; the commit comes later
        return
    waiting = [row for row, _ in session.info.pop(_WAITING, [])]
    if not waiting:
        return
    session.flush()
    last_id, hash = session.execute(select(AuditHead.last_id, AuditHead.hash).with_for_update()).one()
    breath = Breath()
    for row in waiting:
        last_id += 1
        hash = audit_hash.link(hash, id=last_id, **row)
        row |= {"id": last_id, "hash": hash}
        breath.take()
    insert_many(session, Audit.__table__, waiting)
    session.execute(update(AuditHead.__table__).values(last_id=last_id, hash=hash))


@event.listens_for(Session, "after_soft_rollback")
def _drop(session: Session, rolled_back: SessionTransaction) -> None:
    waiting = session.info.get(_WAITING, [])
    session.info[_WAITING] = [(row, around) for row, around in waiting if rolled_back not in around]


def page(filters: Filters, *, before: int | None = None, limit: int = 50) -> list[Audit]:
    """At most `limit` rows with id < `before`, newest first."""
    query = _filtered(select(Audit), filters).order_by(Audit.id.desc()).limit(limit)
    if before is not None:
        query = query.where(Audit.id < before)
    return list(db.session.scalars(query))


def object_types() -> list[str]:
    """The kinds of object that occur, by name; one step in the index for each, whatever the number of rows."""
    found: list[str] = []
    following = select(func.min(Audit.object_type))
    while kind := db.session.scalar(following.where(Audit.object_type > (found[-1] if found else ""))):
        found.append(kind)
    return found


def verify(*, noted: tuple[int, str] | None = None) -> Verdict:
    """Walk the whole chain and name the first row that does not fit.

    `noted` is an id and its hash written down elsewhere earlier: it tells a chain that was rewritten as a whole.
    """
    hash, expected = audit_hash.GENESIS, 0
    for rows in _steps():
        for row in rows:
            expected += 1
            if row.id != expected:
                return Verdict(expected - 1, hash, expected, f"Row {expected} is missing.")
            made = audit_hash.link(hash, **{name: getattr(row, name) for name in _HASHED})
            if made != row.hash:
                return Verdict(
                    expected - 1, hash, row.id, f"Row {row.id} is not what was written, or not where it was."
                )
            if noted and row.id == noted[0] and row.hash != noted[1]:
                return Verdict(expected - 1, hash, row.id, f"Row {row.id} has another hash than the one noted.")
            hash = made
    return _at_the_end(expected, hash, noted)


def _at_the_end(rows: int, hash: str, noted: tuple[int, str] | None) -> Verdict:
    head = db.session.execute(select(AuditHead.last_id, AuditHead.hash)).one()
    last_id = max(head.last_id, noted[0] if noted else 0)
    if rows < last_id:
        return Verdict(rows, hash, rows + 1, f"Row {rows + 1} is missing: {last_id:,} rows were written.")
    if (rows, hash) != tuple(head):
        return Verdict(rows, hash, head.last_id, "The head of the chain is not the hash of its last row.")
    return Verdict(rows, hash)


_HASHED = ("id", "at", "actor_id", "actor_name", "action", "object_type", "object_id", "detail")


def _steps() -> Iterator[Sequence[Any]]:
    after = 0
    while rows := db.session.execute(
        select(Audit.__table__).where(Audit.id > after).order_by(Audit.id).limit(_READ)
    ).all():
        yield rows
        after = rows[-1].id


def _filtered(query: Select, filters: Filters) -> Select:
    if filters.who:
        # as they were called then, or by the words of the people that there are, folded as everywhere
        by_words = Audit.actor_id.in_(select(User.id).where(user_search.matches(filters.who)))
        then = func.lower(Audit.actor_name).contains(filters.who.lower(), autoescape=True)
        query = query.where(or_(then, by_words))
    if filters.what:
        query = query.where(Audit.action.startswith(filters.what, autoescape=True))
    if filters.object_type:
        query = query.where(Audit.object_type == filters.object_type)
    if filters.object_id:
        query = query.where(Audit.object_id == filters.object_id)
    if filters.since:
        query = query.where(Audit.at >= filters.since)
    if filters.until:
        query = query.where(Audit.at < filters.until)
    return query
