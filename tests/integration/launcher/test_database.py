"""A start with nothing to migrate, or with an administrator, needs no process to find that out."""

import shutil
import sqlite3

import pytest

from broadcast.actions import users
from broadcast.domain import clock
from broadcast.domain.actor import SYSTEM
from broadcast.launcher.preflight import has_administrator, is_migrated
from broadcast.store import users as stored_users


def test_database_with_the_newest_migration_is_up_to_date(settings, server_database):
    assert is_migrated(settings.database_uri)


@pytest.fixture
def database(migrated, server_database, tmp_path):
    """A migrated SQLite file of the test's own, and its URI."""
    if server_database:
        pytest.skip("looks into a SQLite file")
    shutil.copy(migrated / "broadcast.sqlite3", tmp_path / "own.sqlite3")
    return tmp_path / "own.sqlite3", f"sqlite:///{tmp_path / 'own.sqlite3'}"


@pytest.mark.parametrize(
    "change",
    ["UPDATE alembic_version SET version_num = '0001'", "DELETE FROM alembic_version", "DROP TABLE alembic_version"],
)
def test_older_or_unknown_one_is_not(database, change: str):
    path, uri = database
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute(change)
    connection.close()
    assert not is_migrated(uri)


@pytest.mark.parametrize("uri", ["sqlite:////nonexistent/file", "postgresql://127.0.0.1:1/none", "nonsense"])
def test_what_cannot_be_read_is_not_and_is_not_made(uri: str):
    assert not is_migrated(uri)


def test_newer_code_is_not(database, tmp_path):
    _, uri = database
    from broadcast.launcher.children import ROOT

    versions = tmp_path / "versions"
    shutil.copytree(ROOT / "migrations/versions", versions)
    newest = max(path.name for path in versions.glob("*.py"))
    [revision] = [line for line in (versions / newest).read_text().splitlines() if line.startswith("revision = ")]
    name = revision.split("=")[1].strip()
    (versions / "9999_next.py").write_text(f"revision = '9999'\ndown_revision = {name}\n")
    assert not is_migrated(uri, versions=versions)


def test_administrator_is_seen_as_the_application_sees_one(settings, in_app):
    for roles in ([], ["ops"], ["admin"]):
        users.create_user("-".join(["dana", *roles]), None, roles=roles, by=SYSTEM, now=clock.now())
        assert has_administrator(settings.database_uri) == stored_users.has_administrator() == ("admin" in roles)


@pytest.mark.parametrize("uri", ["sqlite:////nonexistent/file", "postgresql://127.0.0.1:1/none", "nonsense"])
def test_database_that_cannot_be_read_has_no_administrator(uri: str):
    assert not has_administrator(uri)
