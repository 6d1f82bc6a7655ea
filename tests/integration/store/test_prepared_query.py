"""A prepared query of the driver returns what SQLAlchemy would return."""

import pytest
import sqlalchemy
from sqlalchemy import bindparam, func, select, update
from sqlalchemy.exc import TimeoutError as PoolTimeout

from broadcast.base.errors import TemporarilyUnavailable
from broadcast.domain import clock
from broadcast.store.database import db
from broadcast.store.fast.prepared_query import PreparedQuery
from broadcast.store.models import User
from broadcast.store.transactions import write_transaction
from broadcast.store.types import UtcDateTime
from tests.support.databases import DATABASE_URL

_users = User.__table__
_of_names = (
    select(func.count(), func.min(_users.c.created_at), _users.c.password_hash.is_not(None))
    .where(_users.c.username.in_(bindparam("names", expanding=True)), _users.c.id > bindparam("after"))
    .where(_users.c.name != "Nobody")
    .group_by(_users.c.password_hash.is_not(None))
)


@pytest.mark.usefixtures("cast")
@pytest.mark.parametrize("names", [["alice"], ["alice", "bob", "charlie"], ["bob", "charlie"], []])
def test_answer_is_that_of_sqlalchemy_for_lists_of_any_length(names):
    asked, given = PreparedQuery(_of_names), {"names": names, "after": 0}
    for _ in range(2):
        row = db.session.execute(_of_names, given).first()
        assert asked.fetch_first(given) == (row and list(row))


@pytest.mark.usefixtures("cast")
def test_values_are_of_the_ask_and_not_of_the_first():
    asked = PreparedQuery(select(_users.c.name, _users.c.created_at).where(_users.c.username == bindparam("key")))
    assert [asked.fetch_first({"key": key})[0] for key in ("alice", "bob")] == ["Alice", "Bob"]
    assert asked.fetch_first({"key": "alice"})[1].tzinfo is not None
    assert asked.fetch_first({"key": "nobody"}) is None


@pytest.mark.usefixtures("cast")
def test_a_moment_of_a_whole_second_is_written_as_it_is_stored():
    """The driver's own form has no fraction then, and sorts before every moment of that second."""
    given = {"at": clock.now().replace(microsecond=0)}
    with write_transaction() as session:
        session.execute(update(_users).values(created_at=given["at"]))
    later = select(func.count()).select_from(_users).where(_users.c.created_at > bindparam("at", type_=UtcDateTime))
    assert PreparedQuery(later).fetch_first(given) == [db.session.scalar(later, given)] == [0]


@pytest.mark.skipif(not DATABASE_URL, reason="a file has no connections that die")
@pytest.mark.usefixtures("cast")
def test_connection_that_dies_is_busy_once():
    asked = PreparedQuery(select(func.pg_backend_pid()))
    [died] = asked.fetch_first({})
    with sqlalchemy.create_engine(DATABASE_URL, poolclass=sqlalchemy.NullPool).connect() as other:
        other.execute(select(func.pg_terminate_backend(died, 5000)))
    with pytest.raises(TemporarilyUnavailable):
        asked.fetch_first({})
    assert asked.fetch_first({}) != [died]


@pytest.mark.usefixtures("cast")
@pytest.mark.parametrize("away", ["driver", "pool"])
def test_database_that_takes_no_connection_is_busy(away, monkeypatch):
    """The driver's own error here: no statement is under way that would make one of SQLAlchemy's of it."""
    engine, asked = db.engine, PreparedQuery(select(func.count(_users.c.id)))
    problem = engine.dialect.loaded_dbapi.OperationalError("refused") if away == "driver" else PoolTimeout("all in use")

    def refuse():
        raise problem

    with monkeypatch.context() as patch:
        patch.setattr(engine.pool, "connect", refuse)
        with pytest.raises(TemporarilyUnavailable):
            asked.fetch_first({})
    assert asked.fetch_first({}) == [3]
