"""Code and schema of different versions: which may go on serving, which may not, and the message."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path

import flask_migrate
import pytest
import sqlalchemy
from flask import Flask
from sqlalchemy import text

from broadcast.config.settings import Settings
from broadcast.factory import create_app
from broadcast.store import schema
from broadcast.store.database import db
from tests.support.databases import DATABASE_URL

VERSIONS = Path(__file__).resolve().parents[3] / "migrations/versions"


@contextmanager
def at(app: Flask, version: str | None, oldest_code: str | None = None) -> Iterator[None]:
    """The database says that it is at that migration."""

    def put(version: str | None, oldest: str | None) -> None:
        with app.app_context(), db.engine.begin() as connection:
            connection.execute(text("DELETE FROM alembic_version"))
            if version:
                connection.execute(text("INSERT INTO alembic_version VALUES (:v)"), {"v": version})
            connection.execute(text("UPDATE schema_support SET oldest_code = :v"), {"v": oldest})

    with app.app_context():
        [applied], own = schema.list_applied_migrations(), schema._get_oldest_code()
    put(version, oldest_code or own)
    try:
        yield
    finally:
        put(applied, own)


def ready(client) -> tuple[int, dict]:
    answer = client().get("/readyz")
    return answer.status_code, answer.json


@pytest.mark.parametrize(("version", "says"), [("0001", "older"), (None, "no tables yet")])
def test_new_code_on_an_older_schema_is_not_ready_and_says_what_to_run(app, client, version, says):
    with at(app, version):
        status, told = ready(client)
        assert status == 503
        assert says in told["failing"]["schema"]
        assert "flask --app app db upgrade" in told["failing"]["schema"]
    assert "schema" not in ready(client)[1]["failing"]


def test_older_code_goes_on_while_the_newer_schema_was_only_expanded(app, client):
    with at(app, "9999_of_tomorrow", oldest_code="0011_counting"):
        told = ready(client)[1]
        assert "schema" not in told["failing"]
        assert "9999_of_tomorrow" in told["degraded"]["schema"]


def test_older_code_that_a_newer_schema_left_behind_is_not_ready(app, client):
    with at(app, "9999_of_tomorrow", oldest_code="9998_that_took_a_column_away"):
        status, told = ready(client)
        assert status == 503
        assert "cannot work" in told["failing"]["schema"]


@pytest.mark.usefixtures("in_app")
def test_database_says_what_its_newest_migration_says_of_older_code():
    [head] = schema.list_applied_migrations()
    assert schema._get_oldest_code() == import_module(f"migrations.versions.{head}").oldest_code


@pytest.mark.usefixtures("in_app")
def test_every_migration_since_says_how_old_the_code_may_be():
    known = schema._list_known_migrations()
    for name in known[known.index("0011_counting") + 1 :]:
        oldest = import_module(f"migrations.versions.{name}").oldest_code
        assert known.index(oldest) <= known.index(name), name


def test_ready_and_the_doctor_say_when_the_database_takes_no_writes(app, client, monkeypatch):
    client()
    monkeypatch.setattr(schema, "find_database_problem", lambda **_: "It is read-only.")
    status, told = ready(client)
    assert (status, told["failing"]["database"]) == (503, "It is read-only.")
    found = app.test_cli_runner().invoke(args=["doctor"])
    assert found.exit_code == 1
    assert "It is read-only." in found.output


@pytest.mark.skipif(not DATABASE_URL, reason="a file has no standby")
def test_read_only_server_is_found_by_ready(app, client):
    client()
    name = sqlalchemy.make_url(str(app.config["SQLALCHEMY_DATABASE_URI"])).database
    with sqlalchemy.create_engine(
        DATABASE_URL, isolation_level="AUTOCOMMIT", poolclass=sqlalchemy.NullPool
    ).connect() as other:
        other.exec_driver_sql(f'ALTER DATABASE "{name}" SET default_transaction_read_only = on')
        try:
            with app.app_context():
                db.engine.dispose()
            assert "read-only" in ready(client)[1]["failing"]["database"]
        finally:
            other.exec_driver_sql(f'ALTER DATABASE "{name}" SET default_transaction_read_only = off')
    with app.app_context():
        db.engine.dispose()
    assert "database" not in ready(client)[1]["failing"]


@pytest.mark.skipif(not DATABASE_URL, reason="SQLite is UTF-8 always")
@pytest.mark.parametrize("encoding", ["LATIN1", "SQL_ASCII"])
def test_database_in_another_encoding_is_refused_before_it_has_tables(encoding):
    name = f"test_{encoding.lower()}"
    with sqlalchemy.create_engine(
        DATABASE_URL, isolation_level="AUTOCOMMIT", poolclass=sqlalchemy.NullPool
    ).connect() as other:
        other.exec_driver_sql(f"CREATE DATABASE {name} ENCODING '{encoding}' TEMPLATE template0 LOCALE 'C'")
        try:
            url = sqlalchemy.make_url(DATABASE_URL).set(database=name).render_as_string(hide_password=False)
            app = create_app(Settings(app_env="test", database_url=url, secret_key="k" * 40, log_level="error"))
            with app.app_context():
                with pytest.raises(SystemExit, match=encoding):
                    flask_migrate.upgrade()
                assert not sqlalchemy.inspect(db.engine).has_table("alembic_version")
                db.engine.dispose()
        finally:
            other.exec_driver_sql(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.mark.skipif(bool(DATABASE_URL), reason="of a file")
def test_doctor_finds_a_damaged_file(app, client):
    client()
    with app.app_context():
        path = db.engine.url.database
        db.session.remove()
        with db.engine.connect() as connection:
            connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
        db.engine.dispose()
    with sqlite3.connect(path) as whole:
        page_size, root = whole.execute("PRAGMA page_size").fetchone()[0], 0
        root = whole.execute("SELECT rootpage FROM sqlite_master WHERE name = 'audit'").fetchone()[0]
    with open(path, "r+b") as file:
        file.seek((root - 1) * page_size)
        file.write(b"\xff" * page_size)
    found = app.test_cli_runner().invoke(args=["doctor"])
    assert found.exit_code == 1
    assert "damaged" in found.output
