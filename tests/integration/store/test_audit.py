"""The audit's hash chain: entries are permanent, and a change made directly in the database is detected."""

from collections.abc import Iterator

import pytest
from flask import Flask
from sqlalchemy import text
from sqlalchemy.exc import DatabaseError

from broadcast.actions import users as actions
from broadcast.domain import audit_hash, clock
from broadcast.domain.actor import SYSTEM
from broadcast.store import audit
from broadcast.store.audit import AuditFilters
from broadcast.store.database import db
from broadcast.store.models import AuditEntry
from broadcast.store.transactions import write_transaction
from tests.conftest import add_test_users
from tests.support.background import call_at_once
from tests.support.builders import publish_message

NOW = clock.now()


def rows() -> list[AuditEntry]:
    db.session.rollback()
    return list(db.session.scalars(db.select(AuditEntry).order_by(AuditEntry.id)))


def tamper(*statements: str) -> None:
    """Change the table as somebody who owns the database can: with the triggers out of the way."""
    off, on = ["ALTER TABLE audit DISABLE TRIGGER USER"], ["ALTER TABLE audit ENABLE TRIGGER USER"]
    if db.engine.dialect.name == "sqlite":
        names = list(
            db.session.scalars(text("SELECT name FROM sqlite_master WHERE type='trigger' AND tbl_name='audit'"))
        )
        off, on = [f"DROP TRIGGER {name}" for name in names], []
    with write_transaction() as session:
        for statement in (*off, *statements, *on):
            session.execute(text(statement))


def test_every_act_is_a_row_that_seals_the_one_before(cast):
    publish_message(cast["alice"])
    previous = audit_hash.GENESIS_HASH
    for number, row in enumerate(rows(), 1):
        assert row.id == number
        fields = ("id", "at", "actor_id", "actor_name", "action", "object_type", "object_id", "detail")
        previous = audit_hash.next_hash(previous, **{name: getattr(row, name) for name in fields})
        assert row.hash == previous
    assert audit.verify_chain() == audit.ChainVerification(number, previous)


def test_a_long_batch_is_one_chain(cast):
    with write_transaction() as session:
        for n in range(250):
            audit.record(session, SYSTEM, "test.acted", "test", n, now=NOW, n=n)
    verdict = audit.verify_chain()
    assert verdict.broken_id is None
    assert [row.detail["n"] for row in rows()[-250:]] == list(range(250))


@pytest.mark.parametrize("statement", ["UPDATE audit SET actor_name = 'Eve'", "DELETE FROM audit WHERE id = 1"])
def test_rows_cannot_be_changed_or_deleted(cast, statement):
    before = [(row.id, row.hash) for row in rows()]
    with pytest.raises(DatabaseError, match="never changed"), write_transaction() as session:
        session.execute(text(statement))
    assert [(row.id, row.hash) for row in rows()] == before


@pytest.mark.parametrize(
    ("statement", "broken"),
    [
        ("UPDATE audit SET actor_name = 'Eve' WHERE id = 2", 2),
        ("UPDATE audit SET detail = '{}' WHERE id = 1", 1),
        ("UPDATE audit SET action = 'x', hash = '" + "0" * 64 + "' WHERE id = 2", 2),
        ("DELETE FROM audit WHERE id = 2", 2),
        ("DELETE FROM audit WHERE id = 3", 3),
        ("DELETE FROM audit", 1),
        ("UPDATE audit SET id = id + 100 WHERE id = 3", 3),
    ],
)
def test_first_broken_row_is_named(cast, statement, broken):
    assert audit.verify_chain().row_count == 3
    tamper(statement)
    assert audit.verify_chain().broken_id == broken


def test_chain_rewritten_as_a_whole_is_told_by_a_hash_noted_elsewhere(cast):
    noted = (rows()[1].id, rows()[1].hash)
    hash, statements = audit_hash.GENESIS_HASH, []
    for row in rows():
        row_as = {
            name: getattr(row, name)
            for name in ("id", "at", "actor_id", "action", "object_type", "object_id", "detail")
        }
        hash = audit_hash.next_hash(hash, **row_as, actor_name="Eve")
        statements.append(f"UPDATE audit SET actor_name = 'Eve', hash = '{hash}' WHERE id = {row.id}")
    tamper(*statements, f"UPDATE audit_head SET hash = '{hash}'")
    assert audit.verify_chain().broken_id is None
    assert audit.verify_chain(checkpoint=noted).broken_id == 2
    assert audit.verify_chain(checkpoint=(99, "x")).broken_id == 4


def test_act_that_fails_leaves_no_row_and_no_gap(cast):
    before = len(rows())
    with pytest.raises(ZeroDivisionError), write_transaction() as session:
        audit.record(session, SYSTEM, "x", "y", 1, now=NOW)
        raise ZeroDivisionError
    actions.set_roles(cast["bob"].user_id, [], by=SYSTEM, now=NOW)
    assert [row.action for row in rows()[before:]] == ["person.roles"]
    assert audit.verify_chain().broken_id is None


def test_savepoint_takes_its_own_rows_back_and_no_others(cast):
    before = len(rows())
    with write_transaction() as session:
        audit.record(session, SYSTEM, "outer", "y", 1, now=NOW)
        for fails in (True, False):
            savepoint = session.begin_nested()
            audit.record(session, SYSTEM, f"inner {fails}", "y", 1, now=NOW)
            savepoint.rollback() if fails else savepoint.commit()
    assert [row.action for row in rows()[before:]] == ["outer", "inner False"]
    assert audit.verify_chain().broken_id is None


@pytest.fixture
def patient_app(make_app) -> Iterator[Flask]:
    """With its context pushed. Its writers wait for each other longer than any machine is slow."""
    app = make_app(database_lock_timeout_seconds=25)
    with app.app_context():
        yield app


def test_writers_at_once_make_one_chain(patient_app):
    """Four writers, a hundred acts: every row is there, once, and the chain holds."""
    alice = add_test_users()["alice"]

    def act(number: int) -> None:
        for n in range(25):
            actions.create_user(f"p{number}x{n}", None, by=alice, now=NOW)

    before = len(rows())
    call_at_once(patient_app, 4, act)
    assert len(rows()) == before + 100
    assert audit.verify_chain() == audit.ChainVerification(before + 100, rows()[-1].hash)


@pytest.mark.parametrize(
    ("filters", "found"),
    [
        (AuditFilters(who="ALI"), ["broadcast.published"]),
        (AuditFilters(what="person."), ["person.created"] * 3),
        (AuditFilters(what="%"), []),
        (AuditFilters(object_type="broadcast"), ["broadcast.published"]),
        (AuditFilters(object_type="person", object_id="x"), []),
        (AuditFilters(since=NOW.replace(year=2998)), []),
        (AuditFilters(until=NOW.replace(year=2001)), []),
    ],
)
def test_page_shows_what_the_filters_say_newest_first(cast, filters, found):
    publish_message(cast["alice"])
    assert [row.action for row in audit.list_page(filters)] == found
    assert audit.list_object_types() == ["broadcast", "person"]
