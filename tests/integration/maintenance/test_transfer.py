"""Everything moves to another database and nothing is lost; clients with a cursor of the old one get a RESET (F24)."""

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import flask_migrate
import pytest
from flask import Flask

from broadcast.actions import transfer
from broadcast.base.errors import Conflict, Invalid
from broadcast.config.settings import Settings
from broadcast.domain import clock
from broadcast.factory import create_app
from broadcast.store import audit, broadcasts, log
from broadcast.store.database import db
from broadcast.streams.hub import HUB
from tests.support.builders import build_message, count_rows, load_actor, publish_message
from tests.support.users import BrowserClient


@pytest.fixture
def elsewhere(tmp_path: Path) -> Iterator[Callable[[str], Flask]]:
    """Makes applications on new, empty SQLite databases."""
    made: list[Flask] = []

    def make(name: str) -> Flask:
        app = create_app(
            Settings(app_env="test", data_dir=tmp_path / name, secret_key="k" * 40, log_level="error", undo_seconds=0)
        )
        with app.app_context():
            flask_migrate.upgrade()
        made.append(app)
        return app

    yield make
    for app in made:
        with app.app_context():
            db.engine.dispose()


@pytest.fixture
def lines(app, client) -> list[str]:
    """An export of a system where things happened."""
    client("bob")
    with app.app_context():
        for n in range(3):
            draft = {"title": f"Über {n}", "content": "Zeile\nzwei", "targetType": "ROLE", "targetIds": ["ops"]}
            publish_message(load_actor("alice"), draft)
        return list(transfer.export_dump(now=clock.now()))


def test_everything_but_sessions_arrives(app, lines, elsewhere):
    with app.app_context():
        there = count_rows()
    with elsewhere("new").app_context():
        transfer.import_dump(lines, now=clock.now())
        here = count_rows()
        assert audit.verify_chain().broken_id is None
    there |= {"sessions": 0, "audit": there["audit"] + 1}  # the move is an act too
    assert here == there


@pytest.mark.parametrize(("resume_schedules", "expected"), [(False, "RESTORED"), (True, None)])
def test_plans_wait_unless_it_is_said_that_nothing_was_sent_since(app, client, elsewhere, resume_schedules, expected):
    client()
    with app.app_context():
        plan = publish_message(load_actor("alice"), build_message(scheduledAt="2030-01-01T10:00:00Z"))
        lines = list(transfer.export_dump(now=clock.now()))
    with elsewhere("new").app_context():
        transfer.import_dump(lines, now=clock.now(), may_resume_schedules=resume_schedules)
        assert broadcasts.get(plan).decision_reason == expected


def test_system_goes_on_where_it_was(lines, elsewhere):
    new = elsewhere("new")
    with new.app_context():
        transfer.import_dump(lines, now=clock.now())
        assert [event.payload["title"] for event in log.read_events(0) if event.is_for_clients] == [
            "Über 0",
            "Über 1",
            "Über 2",
        ]
        publish_message(by=load_actor("alice"))
    bob = BrowserClient.for_user(new, "bob")
    assert "Über 2" in bob.get("/inbox").get_data(as_text=True)


def test_second_import_is_refused_and_writes_nothing(lines, elsewhere):
    with elsewhere("new").app_context():
        transfer.import_dump(lines, now=clock.now())
        before = count_rows()
        with pytest.raises(Conflict):
            transfer.import_dump(lines, now=clock.now())
        assert count_rows() == before


@pytest.mark.parametrize(
    "spoil",
    [
        lambda lines: [],
        lambda lines: ["{}"],
        lambda lines: [re.sub(r'"\d{4}_\w+"', '"0001_first_tables"', lines[0]), *lines[1:]],
        lambda lines: [*lines[:-1], lines[-1][:20]],
        lambda lines: lines[:-1],
        lambda lines: lines[: len(lines) // 2],
        lambda lines: [lines[0], lines[-1]],
        lambda lines: [*lines[:-2], lines[-1]],
        lambda lines: [line.replace("Über 1", "Über 9") for line in lines],
        lambda lines: [lines[0], *sorted(lines[1:-1], reverse=True), lines[-1]],
        lambda lines: [*lines, lines[-2]],
        lambda lines: [*lines, ""],
        lambda lines: [*lines[:-1], json.dumps({"table": "nothing", "row": {}})],
        lambda lines: [*lines[:-1], json.dumps({"table": "events", "row": {"nothing": 1}})],
        lambda lines: [*lines[:-1], "[]"],
    ],
    ids=[
        "empty", "another file", "another version", "cut off", "cut at a line end", "cut in the middle", "no rows",
        "one row less", "another text", "another order", "more after the end", "a line after the end", "unknown table",
        "unknown column", "a list",
    ],
)  # fmt: skip
def test_spoilt_file_is_refused_and_writes_nothing(lines, elsewhere, spoil):
    with elsewhere("new").app_context():
        before = count_rows()
        with pytest.raises(Invalid):
            transfer.import_dump(spoil(lines), now=clock.now())
        assert count_rows() == before


def test_import_into_a_database_without_tables_says_what_to_run(lines, tmp_path):
    app = create_app(Settings(app_env="test", data_dir=tmp_path / "bare", secret_key="k" * 40, log_level="error"))
    file = tmp_path / "all.jsonl"
    file.write_text("\n".join(lines) + "\n")
    told = app.test_cli_runner().invoke(args=["import", str(file)])
    assert told.exit_code == 1
    assert "flask --app app db upgrade" in told.output
    with app.app_context():
        db.engine.dispose()


@pytest.mark.parametrize("command", ["retention run", "export out.jsonl", "doctor", "create-token --user alice"])
def test_every_command_says_what_to_run_when_there_are_no_tables(tmp_path, monkeypatch, command):
    monkeypatch.chdir(tmp_path)
    app = create_app(Settings(app_env="test", data_dir=tmp_path / "bare", secret_key="k" * 40, log_level="error"))
    told = app.test_cli_runner().invoke(args=command.split())
    assert told.exit_code == 1
    assert "flask --app app db upgrade" in told.output
    with app.app_context():
        db.engine.dispose()


def test_cursor_of_before_the_restore_is_answered_with_reset(app, lines, elsewhere):
    """F24: three more were sent after the backup; the restored system gives their numbers out again."""
    with app.app_context():
        for _ in range(3):
            publish_message(by=load_actor("alice"))
        lost = log.get_head()
    restored = elsewhere("restored")
    with restored.app_context():
        transfer.import_dump(lines, now=clock.now())
        for _ in range(5):
            publish_message(by=load_actor("alice"))
        assert log.get_head().seq > lost.seq, "the old cursor's number exists again"
        HUB.of(restored).start(log.get_head())
    assert_reset(restored, str(lost))


def test_restored_copy_of_the_database_with_a_new_epoch_answers_old_cursors_with_reset(make_app, client):
    """F24, the way of pg_restore: the same rows, then `flask new-epoch`."""
    client()
    app = make_app()
    with app.app_context():
        publish_message(by=load_actor("alice"))
        old = log.get_head()
    assert app.test_cli_runner().invoke(args=["new-epoch"]).exit_code == 0
    with app.app_context():
        HUB.of(app).start(log.get_head())
    assert_reset(app, str(old))


def assert_reset(app: Flask, cursor: str) -> None:
    stream = BrowserClient.for_user(app, "bob").get(f"/api/sse/connect?after={cursor}", buffered=False)
    assert b"event: RESET" in next(iter(stream.response))
    stream.close()
