"""Nodes that are upgraded together migrate one database: one does the work, and none fails."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from subprocess import PIPE, STDOUT

import pytest
import sqlalchemy

from broadcast.config.database_url import normalize_url
from tests.support.databases import DATABASE_URL, temporary_database
from tests.support.seeded_databases import UNINHERITED_VARIABLES
from tests.support.servers import run_postgres
from tests.support.system import PROJECT_ROOT

pytestmark = [pytest.mark.service, pytest.mark.alike]


@pytest.fixture
def environ(tmp_path: Path) -> Iterator[dict[str, str]]:
    """Of commands on an empty database."""
    with run_postgres() as own, temporary_database(DATABASE_URL if is_postgres() else own) as url:
        kept = {name: value for name, value in os.environ.items() if name not in UNINHERITED_VARIABLES}
        yield kept | {"DATABASE_URL": url, "DATA_DIR": str(tmp_path), "SECRET_KEY": "for-tests-" * 4}


def upgrade(environ: dict[str, str], *words: str) -> subprocess.Popen:
    command = [sys.executable, "-m", "flask", "--app", "app", "db", "upgrade", *words]
    return subprocess.Popen(command, cwd=PROJECT_ROOT, env=environ, stdout=PIPE, stderr=STDOUT, text=True)


def test_nodes_that_are_upgraded_together_take_turns(environ: dict[str, str]):
    nodes = [upgrade(environ) for _ in range(3)]
    told = [node.communicate(timeout=200)[0] for node in nodes]
    assert [node.returncode for node in nodes] == [0, 0, 0], "\n".join(told)


def test_migration_gives_way_to_who_writes_and_begins_anew(environ: dict[str, str]):
    """Nodes of the version before go on writing: whoever holds one table may still take any other."""
    upgrade(environ, "0011_counting").wait(100)
    engine = sqlalchemy.create_engine(normalize_url(environ["DATABASE_URL"]), poolclass=sqlalchemy.NullPool)
    with engine.begin() as writer:
        writer.exec_driver_sql("LOCK TABLE receipts IN ROW EXCLUSIVE MODE")
        migration = upgrade(environ)
        told = next((line for line in migration.stdout if "migrations.give_way" in line), "")
        assert "lock timeout" in told
        writer.exec_driver_sql("LOCK TABLE broadcasts IN ROW EXCLUSIVE MODE")
    output = migration.communicate(timeout=100)[0]
    assert migration.returncode == 0, output


def is_postgres() -> bool:
    return (DATABASE_URL or "").startswith("postgresql")
