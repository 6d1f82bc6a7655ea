"""Database errors are logged, without the text that users wrote."""

import sqlite3
import traceback
from collections.abc import Callable

import psycopg
import pytest
import sqlalchemy
from sqlalchemy.exc import DBAPIError

from broadcast.domain import clock
from broadcast.store.database import db
from broadcast.store.engine import redact_error
from broadcast.store.models import User
from broadcast.store.transactions import raw_read_connection, write_transaction

SECRET = "Dr-Mabuse-was-here"


def taken_name() -> None:
    with write_transaction() as session:
        for _ in range(2):
            session.add(User(username=SECRET, name=SECRET, created_at=clock.now()))
            session.flush()


def missing_person() -> None:
    with write_transaction() as session:
        statement = "INSERT INTO user_roles (user_id, role_name) VALUES (1, :role)"
        session.execute(sqlalchemy.text(statement), {"role": SECRET})


def wrong_kind() -> None:
    statement = "SELECT CAST(:text AS integer)" if is_server() else "SELECT :text IN people_words_that_are_not_there"
    db.session.execute(sqlalchemy.text(statement), {"text": SECRET}).all()


def by_the_driver() -> None:
    with raw_read_connection() as connection:
        sign = "%s" if is_server() else "?"
        cursor = connection.cursor()
        for _ in range(2):
            cursor.execute(f"INSERT INTO roles (name) VALUES ({sign})", (SECRET,))


def is_server() -> bool:
    return db.engine.dialect.name == "postgresql"


@pytest.mark.parametrize("fails", [taken_name, missing_person, wrong_kind, by_the_driver])
def test_value_is_in_no_error_of_the_database(cast, fails: Callable):
    with pytest.raises(Exception) as caught:  # of the driver, or of SQLAlchemy
        fails()
    db.session.rollback()
    assert SECRET not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize(
    ("problem", "told"),
    [
        (sqlite3.OperationalError(f'fts5: syntax error near "{SECRET}"'), 'fts5: syntax error near "…"'),
        (
            sqlite3.IntegrityError("UNIQUE constraint failed: users.username"),
            "UNIQUE constraint failed: users.username",
        ),
        (
            psycopg.errors.UniqueViolation(f'violates "uq_users"\nDETAIL:  Key (username)=({SECRET}) already exists.'),
            'violates "uq_users" [23505]',
        ),
        (
            psycopg.errors.InvalidTextRepresentation(f'invalid input syntax for type integer: "{SECRET}"\nLINE 1: x'),
            'invalid input syntax for type integer: "…" [22P02]',
        ),
        (
            psycopg.OperationalError("All failed:\n- host: a\n- host: b"),
            "All failed:\n- host: a\n- host: b",
        ),
        (ValueError("anything"), "anything"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_is_left_of_an_error(problem: Exception, told: str):
    redact_error(problem)
    assert str(problem) == told


def test_kind_of_error_is_told(cast):
    with pytest.raises(DBAPIError) as caught:
        taken_name()
    assert "users" in str(caught.value.orig)
    assert "username" in str(caught.value.orig)
