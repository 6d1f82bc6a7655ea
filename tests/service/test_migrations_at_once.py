"""Nodes that are upgraded together migrate one database: one does the work, and none fails."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.databases import DATABASE_URL, database_of_its_own
from tests.populated import OF_THE_TESTS
from tests.servers import postgres
from tests.system import TOP

pytestmark = [pytest.mark.service, pytest.mark.alike, pytest.mark.timeout(240)]


def test_nodes_that_are_upgraded_together_take_turns(tmp_path: Path):
    with postgres() as own, database_of_its_own(DATABASE_URL if is_postgres() else own) as url:
        environ = {name: value for name, value in os.environ.items() if name not in OF_THE_TESTS}
        environ |= {"DATABASE_URL": url, "DATA_DIR": str(tmp_path), "SECRET_KEY": "for-tests-" * 4}
        command = [sys.executable, "-m", "flask", "--app", "app", "db", "upgrade"]
        options = {"cwd": TOP, "env": environ, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        nodes = [subprocess.Popen(command, **options) for _ in range(3)]
        told = [node.communicate(timeout=200)[0] for node in nodes]
        assert [node.returncode for node in nodes] == [0, 0, 0], "\n".join(told)


def is_postgres() -> bool:
    return (DATABASE_URL or "").startswith("postgresql")
