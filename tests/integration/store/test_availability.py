"""Transient database errors are 503, wrong statements are not: on both databases."""

import psycopg
import pytest
import sqlalchemy
from sqlalchemy import select, text
from sqlalchemy.exc import DBAPIError

from broadcast.base.errors import TemporarilyUnavailable
from broadcast.store.availability import is_unavailable
from broadcast.store.database import db
from broadcast.store.transactions import raw_read_connection, write_transaction
from tests.support.databases import DATABASE_URL

on_a_server = pytest.mark.skipif(not DATABASE_URL, reason="a file is no server")


@pytest.mark.parametrize(
    ("state", "passes"),
    [
        ("25006", True), ("57P01", True), ("57P02", True), ("57P03", True), ("08006", True), ("08P01", True),
        ("55P03", True), ("53300", True), ("40P01", True),
        ("42P01", False), ("42703", False), ("54001", False), ("23505", False), ("22001", False),
    ],
)  # fmt: skip
def test_codes_of_postgresql(state, passes):
    driver = psycopg.errors.lookup(state) if state not in ("08P01",) else psycopg.errors.ProtocolViolation
    wrapped = DBAPIError.instance("SELECT 1", {}, driver("told"), psycopg.Error)
    assert is_unavailable(wrapped) is passes


@pytest.mark.usefixtures("in_app")
def test_missing_table_is_never_busy():
    with pytest.raises(DBAPIError) as raised:
        db.session.execute(text("SELECT * FROM of_a_later_version"))
    assert not is_unavailable(raised.value)
    db.session.rollback()
    with pytest.raises(DBAPIError), write_transaction() as session:
        session.execute(text("UPDATE of_a_later_version SET a = 1"))
    with pytest.raises(db.engine.dialect.loaded_dbapi.Error), raw_read_connection() as connection:
        connection.cursor().execute("SELECT * FROM of_a_later_version")
    assert db.session.scalar(select(1)) == 1


def test_page_over_a_missing_table_is_a_mistake_of_ours_and_not_busy(app, client):
    alice = client("alice")
    with app.app_context(), db.engine.begin() as connection:
        connection.execute(text("ALTER TABLE saved_audiences RENAME TO moved_away"))
    try:
        answer = alice.get("/console/library")
    finally:
        with app.app_context(), db.engine.begin() as connection:
            connection.execute(text("ALTER TABLE moved_away RENAME TO saved_audiences"))
    assert answer.status_code == 500


@on_a_server
def test_server_that_became_read_only_is_busy_and_left_for_the_one_that_takes_writes(app, client):
    """What a pool meets that was made before its server was demoted."""
    alice = client("alice")
    form = {"title": "T", "content": "C", "targetType": "ALL"}
    name = sqlalchemy.make_url(str(app.config["SQLALCHEMY_DATABASE_URI"])).database

    def set_read_only(value: str) -> None:
        with sqlalchemy.create_engine(
            DATABASE_URL, isolation_level="AUTOCOMMIT", poolclass=sqlalchemy.NullPool
        ).connect() as other:
            other.exec_driver_sql(f'ALTER DATABASE "{name}" SET default_transaction_read_only = {value}')

    set_read_only("on")
    try:
        with app.app_context():
            db.engine.dispose()
            refused = alice.send("POST", "/api/admin/broadcasts", form)
            assert refused.status_code == 503
            assert refused.headers["Retry-After"]
            with pytest.raises(TemporarilyUnavailable), write_transaction() as session:
                session.execute(text("UPDATE log_head SET seq = seq"))
    finally:
        set_read_only("off")
    assert alice.send("POST", "/api/admin/broadcasts", form).status_code == 201
