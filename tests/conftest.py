"""Shared fixtures: an application on an empty, migrated database, the test users, and the system as real processes.

The database is SQLite in a temporary folder, or a new database on the server of DATABASE_URL. pytest itself is never
monkey-patched; tests that need gunicorn workers use `system` and are marked `service`.
"""

import json
import os
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import flask_migrate
import hypothesis
import pytest
from flask import Flask
from hypothesis import HealthCheck

from broadcast.actions import users
from broadcast.config.settings import Settings
from broadcast.domain import audit_hash, clock
from broadcast.domain.actor import SYSTEM, Actor
from broadcast.factory import create_app
from broadcast.store import log, transactions
from broadcast.store import users as known
from broadcast.store.database import db
from broadcast.store.fast.count_cache import COUNT_CACHE, CountCache
from broadcast.streams.hub import HUB
from broadcast.worker.runtime import RUNTIME
from tests.support import measurements as figures
from tests.support.compilation_cache import TemplateCache, share_compiled_queries, share_compiled_routes
from tests.support.databases import DATABASE_URL, REDIS_URL, temporary_database
from tests.support.servers import own_redis  # noqa: F401 - a fixture
from tests.support.system import System, run_system
from tests.support.users import TEST_USERS, BrowserClient

# how long an example takes depends on the machine
hypothesis.settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
hypothesis.settings.load_profile("patient")
_DATABASE_FILE = "broadcast.sqlite3"
_MEMORY_FOLDER, _MEMORY_NEEDED_BYTES = "/dev/shm", 4 * 2**30


def _build_settings(data_dir: Path, database_url: str | None, **changes) -> Settings:
    required = {"app_env": "test", "data_dir": data_dir, "database_url": database_url, "secret_key": "k" * 40}
    return Settings(
        **required
        | {"ratelimit_enabled": False, "log_level": "error", "heartbeat_seconds": 15, "undo_seconds": 0}
        | changes
    )


def _migrate(settings: Settings) -> None:
    app = create_app(settings)
    with app.app_context():
        flask_migrate.upgrade()
        db.engine.dispose()


@pytest.fixture(scope="session")
def server_database() -> Iterator[str | None]:
    """The URL of an empty database on the server of DATABASE_URL; None when the tests run on SQLite."""
    with temporary_database(DATABASE_URL) as url:
        yield url


@pytest.fixture(scope="session")
def migrated(server_database: str | None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a migrated SQLite file to copy; on a server, the database is migrated instead."""
    folder = tmp_path_factory.mktemp("migrated")
    _migrate(_build_settings(folder, server_database))
    return folder


@dataclass(frozen=True)
class PopulatedFile:
    """A SQLite file to copy that has the test users already, and who they are."""

    path: Path
    actors: dict[str, Actor]


@pytest.fixture(scope="session")
def populated(migrated: Path, compiled: TemplateCache, tmp_path_factory: pytest.TempPathFactory) -> PopulatedFile:
    folder = tmp_path_factory.mktemp("populated")
    shutil.copy(migrated / _DATABASE_FILE, folder)
    with create_app(_build_settings(folder, None)).app_context():
        actors = add_test_users()
        db.session.remove()  # the last connection that is closed moves what is in the WAL into the file
        db.engine.dispose()
    return PopulatedFile(folder / _DATABASE_FILE, actors)


@pytest.fixture
def settings(request: pytest.FixtureRequest, migrated: Path, server_database: str | None, tmp_path: Path) -> Settings:
    """Settings of the application under test; a test that needs others overrides this fixture or calls `make_app`."""
    if not server_database:
        needs_users = "seeded_users" in request.fixturenames
        shutil.copy(request.getfixturevalue("populated").path if needs_users else migrated / _DATABASE_FILE, tmp_path)
    return _build_settings(tmp_path, server_database)


@pytest.fixture(scope="session", autouse=True)
def turn_of_threads() -> Iterator[None]:
    """Use a thread lock for SQLite's writers: pytest is not patched, and gevent's lock works between greenlets only."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(transactions, "_writer_lock", threading.BoundedSemaphore(1))
        yield


@pytest.fixture(scope="session")
def compiled(migrated: Path, server_database: str | None) -> Iterator[TemplateCache]:
    """A cache of compiled templates for every application of the run; routes and queries are compiled once, too."""
    with create_app(_build_settings(migrated, server_database)).app_context():
        engine = db.engine
        engine.connect().close()
        engine.dispose()
    with pytest.MonkeyPatch.context() as patch:
        share_compiled_routes(patch)
        share_compiled_queries(patch, engine)
        yield TemplateCache()


@pytest.fixture
def make_app(settings: Settings, compiled: TemplateCache) -> Iterator:
    """Make an application with changed settings: `make_app(limit_publish_per_user="2/minute")`."""
    apps: list[Flask] = []

    def make(**changes) -> Flask:
        app = create_app(settings.model_copy(update=changes))
        app.jinja_env.bytecode_cache = compiled
        COUNT_CACHE.attach(app, CountCache(clock=lambda: 0.0))  # however slow the machine, no count is kept for that
        apps.append(app)
        with app.app_context():
            HUB.of(app).start(log.get_head())
        return app

    yield make
    for app in apps:
        with app.app_context():
            if db.engine.dialect.name != "sqlite":
                _delete_all_rows()
            db.session.remove()
            db.engine.dispose()


def _delete_all_rows() -> None:
    """Delete all rows of a server's database and reset the log. TRUNCATE recreates every file, which takes a second."""
    kept_suffixes = ("_head", "_version", "_support", "_identity", "email_pace", "escalation_progress")
    tables = [table.name for table in reversed(db.metadata.sorted_tables) if not table.name.endswith(kept_suffixes)]
    channels = ((1, "push"), (2, "email"))
    steps = json.dumps([{"minutes": minutes, "awaits": "SEEN", "channel": channel} for minutes, channel in channels])
    with db.engine.begin() as connection:
        sequences = (
            connection.exec_driver_sql("SELECT quote_ident(relname) FROM pg_class WHERE relkind = 'S'").scalars().all()
        )
        statements = [
            "ALTER TABLE audit DISABLE TRIGGER USER",
            *(f'DELETE FROM "{name}"' for name in tables),
            "ALTER TABLE audit ENABLE TRIGGER USER",
            *(f"SELECT setval('{name}', 1, false)" for name in sequences),
            "UPDATE log_head SET seq = 0",
            "UPDATE email_pace SET next_at = NULL",
            "UPDATE escalation_progress SET planned_seq = 0",
            f"""INSERT INTO escalation_policies (name, steps, default_for) VALUES ('Urgent', '{steps}', '["URGENT"]')""",
            f"UPDATE audit_head SET last_id = 0, hash = '{audit_hash.GENESIS_HASH}'",
        ]
        connection.exec_driver_sql(";".join(statements))


@pytest.fixture
def app(make_app) -> Flask:
    """The application, with its hub at the head of the log. No loops run: `deliver_new_events(app)` delivers."""
    return make_app()


@pytest.fixture
def in_app(app: Flask) -> Iterator[Flask]:
    """The application with its context pushed, for tests of the store and the actions."""
    with app.app_context():
        yield app


@pytest.fixture
def seeded_users(request: pytest.FixtureRequest, app: Flask, server_database: str | None) -> dict[str, Actor]:
    """Alice (admin), Bob (ops) and Charlie (no role) in the database of `app`, as actors by name."""
    if not server_database:
        return dict(request.getfixturevalue("populated").actors)
    with app.app_context():
        return add_test_users()


@pytest.fixture
def cast(in_app: Flask, seeded_users: dict[str, Actor]) -> dict[str, Actor]:
    """The test users, for tests of the store and the actions."""
    return seeded_users


def add_test_users() -> dict[str, Actor]:
    """Add the test users to the current application's database unless they exist; return them as actors by name."""
    actors = {}
    for account in TEST_USERS:
        if known.get_by_username(account.username) is None:
            users.create_user(account.username, None, roles=account.roles, by=SYSTEM, now=clock.now())
        user = known.get_by_username(account.username)
        actors[account.username] = Actor(user.id, user.name, user.roles, user.is_admin)
    return actors


@pytest.fixture
def client(app: Flask, seeded_users: dict[str, Actor]) -> Callable[..., BrowserClient]:
    """Make test clients: `client("alice")` is signed in, `client()` is anonymous. The test users exist."""
    return lambda username=None: BrowserClient.for_user(app, username)


def deliver_new_events(app: Flask) -> None:
    """Deliver new events of the log to the open streams of `app`, as a worker's tailer does."""
    RUNTIME.of(app).tailer.catch_up()


@pytest.fixture(scope="session")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """The whole system as real processes: two gunicorn workers, a Redis, the test users with passwords. Shared by
    tests.

    It has its own database: the one of `app` is emptied after each test.
    """
    with run_system(tmp_path_factory.mktemp("system"), redis_url=REDIS_URL) as started:
        yield started


def pytest_configure() -> None:
    """Put temporary folders into memory where there is room: most tests have a database, and SQLite waits for the disk."""
    has_room = os.access(_MEMORY_FOLDER, os.W_OK) and shutil.disk_usage(_MEMORY_FOLDER).free > _MEMORY_NEEDED_BYTES
    if has_room and "TMPDIR" not in os.environ:
        tempfile.tempdir = _MEMORY_FOLDER


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Send the measurements of an xdist worker to its controller."""
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["figures"] = figures.measurements


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node) -> None:
    """Collect the measurements of an xdist worker."""
    figures.measurements += getattr(node, "workeroutput", {}).get("figures", [])


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Show the measurements of the run."""
    for line in figures.measurements:
        terminalreporter.write_line(f"measured: {line}")
