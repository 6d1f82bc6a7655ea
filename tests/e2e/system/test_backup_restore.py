"""A real backup is restored as in docs/operations.md; clients with an old cursor get a RESET (F24)."""

import os
import shutil
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.support.databases import DATABASE_URL, temporary_database
from tests.support.http_session import HttpSession
from tests.support.process_fixtures import StreamOpener, streams  # noqa: F401 - a fixture
from tests.support.servers import find_program_or_skip, run_postgres
from tests.support.system import System

pytestmark = [pytest.mark.service, pytest.mark.alike]


class Kept(NamedTuple):
    """A system, and how its database is copied and put back; the copy is taken while it serves."""

    system: System
    back_up: Callable[[], object]
    restore: Callable[[], object]


@pytest.fixture(params=["sqlite", "postgresql"])
def kept(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Kept]:
    with ExitStack() as stack:
        if request.param == "sqlite":
            yield _on_sqlite(stack.enter_context(System(tmp_path)), tmp_path / "copy.sqlite3")
            return
        find_program_or_skip("pg_dump", "postgresql-client")
        server = DATABASE_URL if (DATABASE_URL or "").startswith("postgresql") else stack.enter_context(run_postgres())
        url = stack.enter_context(temporary_database(server))
        yield _on_postgres(stack.enter_context(System(tmp_path, database_url=url)), url, tmp_path / "copy.dump")


def _on_sqlite(system: System, copy: Path) -> Kept:
    file = system.folder / "var/broadcast.sqlite3"

    def back_up() -> None:
        with closing(sqlite3.connect(file)) as source, closing(sqlite3.connect(copy)) as target:
            source.backup(target)  # what `.backup` of the sqlite3 program does

    def restore() -> None:
        for left in (f"{file}-wal", f"{file}-shm"):
            Path(left).unlink(missing_ok=True)
        shutil.copy(copy, file)

    return Kept(system, back_up, restore)


def _on_postgres(system: System, url: str, copy: Path) -> Kept:
    def run(*words: str | Path) -> None:
        subprocess.run(words, check=True, capture_output=True, env=os.environ | {"LC_ALL": "C"})

    def back_up() -> None:
        run("pg_dump", "--format=custom", f"--dbname={url}", f"--file={copy}")

    def restore() -> None:
        run("pg_restore", "--clean", "--if-exists", "--exit-on-error", f"--dbname={url}", copy)

    return Kept(system, back_up, restore)


def test_old_cursor_is_answered_with_reset_after_a_restore_and_a_new_epoch(kept: Kept, streams: StreamOpener):  # noqa: F811
    """Three are sent after the backup and get lost with it; afterwards their numbers are given out again, to five others."""
    system = kept.system
    alice = HttpSession(system, token=system.get_token("alice", "admin"))
    before = [alice.publish(f"Before {n}") for n in range(2)]
    kept.back_up()
    listener = streams.open(system, "bob")
    lost = [alice.publish(f"Lost {n}") for n in range(3)]
    old = listener.wait_for_message(lost[-1]).id
    alice.close()
    system.stop()
    kept.restore()
    system.run_flask("new-epoch")
    system.start()

    alice = HttpSession(system, token=system.get_token("alice", "admin"))
    after = [alice.publish(f"After {n}") for n in range(5)]
    alice.close()
    assert set(lost) & set(after), "the numbers are given out a second time"
    assert listener.wait_for("RESET", seconds=30).json["cursor"] != old, "who was there comes back by itself"
    returned = streams.resume(system, "bob", old)
    assert [frame.event for frame in returned.frames][:2] == ["RESET", "CONNECTED"]
    _, listed = system.call("GET", "/api/user/messages?limit=50", token=system.get_token("bob"))
    titles = [f"After {n}" for n in (4, 3, 2, 1, 0)] + ["Before 1", "Before 0"]
    assert [item["title"] for item in listed["items"]] == titles
    assert {item["id"] for item in listed["items"]} == {*before, *after}
    assert "none changed and none missing" in system.run_flask("audit", "verify")
