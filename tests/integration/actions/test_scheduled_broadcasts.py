"""Scheduled broadcasts that are not sent automatically: late, past, without a permitted sender, or after a restore."""

import shutil
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from broadcast.actions import broadcasts as actions
from broadcast.actions import edits, overdue_schedules, users
from broadcast.base.errors import Conflict
from broadcast.domain import clock
from broadcast.domain.actor import SYSTEM, Actor
from broadcast.domain.permissions import get_role_permissions
from broadcast.store import audit, broadcasts, log
from broadcast.store.database import db
from broadcast.store.models import Broadcast
from broadcast.store.transactions import write_transaction
from broadcast.worker import scheduler
from broadcast.worker.runtime import RUNTIME
from tests.support.builders import build_message, build_user_message, publish_message

NOW = clock.now()
MINUTE = timedelta(minutes=1)


def after(minutes: float) -> datetime:
    return NOW + minutes * MINUTE


def plan(by: Actor, minutes: float = 60, **more) -> int:
    times = {name: clock.to_rfc3339(after(value)) for name, value in more.items() if name.endswith("At")}
    return publish_message(by, build_message(scheduledAt=clock.to_rfc3339(after(minutes)), **more | times), now=NOW)


def stands(broadcast_id: int) -> tuple[str, str | None]:
    db.session.rollback()
    row = broadcasts.get(broadcast_id)
    return row.status, row.decision_reason


def run_from(start: float, to: float) -> None:
    """Let the scheduler run every ten minutes, as one that never stands still."""
    minutes = start
    while minutes < to:
        scheduler.tick(after(minutes))
        minutes += 10
    scheduler.tick(after(to))


# ---- one plan


@pytest.mark.parametrize(
    ("minutes_late", "more", "expected"),
    [
        (0, {}, ("ACTIVE", None)),
        (14, {}, ("ACTIVE", None)),
        (16, {}, ("SCHEDULED", "OVERDUE")),
        (5, {"expiresAt": 63}, ("SCHEDULED", "ENDED")),
        (5, {"expiresAt": 90}, ("ACTIVE", None)),
        (5, {"requiresAck": True, "ackDueAt": 63}, ("SCHEDULED", "ACK_PASSED")),
    ],
)
def test_late_plan_goes_out_within_the_grace_and_says_nothing_that_is_past(cast, minutes_late, more, expected):
    broadcast_id = plan(cast["alice"], **more)
    scheduler.tick(after(60 + minutes_late))
    assert stands(broadcast_id) == expected
    assert len(log.read_events(0)) == (expected[0] == "ACTIVE")


def test_grace_is_a_setting(cast):
    late, in_time = plan(cast["alice"], 60), plan(cast["alice"], 85)
    scheduler.tick(after(90), grace=10 * MINUTE)
    assert (stands(late)[0], stands(in_time)[0]) == ("SCHEDULED", "ACTIVE")


def test_waiting_plan_is_told_once_and_leaves_the_clock_alone(cast):
    broadcast_id = plan(cast["alice"])
    for minutes in (100, 101, 102):
        assert scheduler.tick(after(minutes)) is None
    assert [act.action for act in broadcasts.list_audit_entries(broadcast_id)] == [
        "broadcast.scheduled",
        "broadcast.waits",
    ]
    assert broadcasts.count_awaiting_decision() == 1
    assert audit.verify_chain().broken_id is None


def _disable(user_id: int) -> None:
    users.disable_user(user_id, by=SYSTEM, now=NOW)


def _demote(user_id: int) -> None:
    users.set_roles(user_id, ["viewer"], by=SYSTEM, now=NOW)


@pytest.mark.parametrize("lose", [_disable, _demote], ids=["disabled", "without the role"])
def test_plan_of_somebody_who_may_not_send_any_more_waits(cast, lose):
    user_id = users.create_user("dora", None, roles=["author"], by=SYSTEM, now=NOW)
    dora = Actor(user_id, "Dora", frozenset({"author"}), permissions=get_role_permissions(["author"]))
    hers, taken_over = plan(dora), plan(dora)
    edits.edit(taken_over, {"title": "Alice stands for it"}, version=None, by=cast["alice"], now=NOW)
    lose(user_id)
    scheduler.tick(after(60))
    assert stands(hers) == ("SCHEDULED", "PLANNER")
    assert stands(taken_over) == ("ACTIVE", None)


def test_plan_that_signs_people_out_waits_when_its_planner_may_not_do_that_any_more(cast):
    user_id = users.create_user("dora", None, roles=["admin"], by=SYSTEM, now=NOW)
    dora = Actor(user_id, "Dora", frozenset({"admin"}), may_administer=True)
    raw = build_user_message("bob", scheduledAt=clock.to_rfc3339(after(60)), closeSessions=True)
    broadcast_id = publish_message(dora, raw, now=NOW)
    users.set_roles(user_id, ["author"], by=SYSTEM, now=NOW)
    scheduler.tick(after(60))
    assert stands(broadcast_id) == ("SCHEDULED", "PLANNER")


# ---- the decision


@pytest.fixture
def waiting(cast) -> int:
    broadcast_id = plan(cast["alice"])
    scheduler.tick(after(100))
    assert stands(broadcast_id) == ("SCHEDULED", "OVERDUE")
    return broadcast_id


def test_somebody_sends_it(cast, waiting):
    actions.release(waiting, by=cast["alice"], now=after(101))
    assert stands(waiting) == ("ACTIVE", None)


def test_somebody_sends_it_with_a_moment_to_undo(cast, waiting):
    edits.send_delayed(waiting, by=cast["alice"], now=after(101), until=after(101) + timedelta(seconds=10))
    scheduler.tick(after(102))
    assert stands(waiting) == ("ACTIVE", None)


def test_somebody_gives_it_another_time(cast, waiting):
    changes = {"scheduledAt": clock.to_rfc3339(after(120))}
    edits.edit(waiting, changes, version=None, by=cast["alice"], now=after(101))
    run_from(110, 120)
    assert stands(waiting) == ("ACTIVE", None)


def test_somebody_stops_it(cast, waiting):
    actions.cancel(waiting, reason="Too late", by=cast["alice"], now=after(101))
    assert stands(waiting)[0] == "CANCELLED"
    assert broadcasts.count_awaiting_decision() == 0


def test_what_has_ended_before_it_began_is_sent_by_nobody(cast):
    broadcast_id = plan(cast["alice"], expiresAt=90)
    scheduler.tick(after(100))
    for act in (
        lambda: actions.release(broadcast_id, by=cast["alice"], now=after(101)),
        lambda: edits.send_delayed(broadcast_id, by=cast["alice"], now=after(101), until=after(102)),
    ):
        with pytest.raises(Conflict, match="end passed"):
            act()
    assert stands(broadcast_id) == ("SCHEDULED", "ENDED")


# ---- many plans: a standstill, a restore


def test_what_fell_due_in_a_long_standstill_waits_and_the_rest_does_not(cast):
    scheduler.tick(after(0))
    early, late, later = plan(cast["alice"], 5), plan(cast["alice"], 59), plan(cast["alice"], 65)
    scheduler.tick(after(60))
    run_from(61, 65)
    assert [stands(n)[1] for n in (early, late)] == ["STANDSTILL", "STANDSTILL"]
    assert stands(later) == ("ACTIVE", None)


def test_short_standstill_is_a_restart_and_sends_what_it_missed(cast):
    scheduler.tick(after(0))
    broadcast_id = plan(cast["alice"], 5)
    scheduler.tick(after(12))
    assert stands(broadcast_id) == ("ACTIVE", None)


def _set_back(plan_id: int) -> None:
    """Make the database what it was before the plan went out."""
    with write_transaction() as session:
        session.execute(db.text("DELETE FROM events"))
        session.execute(db.text("UPDATE log_head SET seq = 0"))
        row = session.get(Broadcast, plan_id)
        row.seq, row.status, row.published_at = None, "SCHEDULED", None


def test_database_that_was_set_back_sends_nothing_twice_and_begins_a_new_epoch(app, cast):
    """A plan was moved forward and went out after the copy: in the copy it is still to come."""
    runtime = RUNTIME.of(app)
    moved, other = plan(cast["alice"], 120), plan(cast["alice"], 130)
    runtime.run_scheduler_once(NOW)
    actions.release(moved, by=cast["alice"], now=after(1))
    runtime.run_scheduler_once(after(2))
    epoch = log.get_head().epoch
    _set_back(moved)
    for minutes in range(3, 140, 10):
        runtime.run_scheduler_once(after(minutes))
    assert [stands(n) for n in (moved, other)] == [("SCHEDULED", "RESTORED")] * 2
    assert log.get_head().epoch != epoch
    assert log.read_events(0) == []
    again = plan(cast["alice"], 200)
    for minutes in range(140, 201, 10):
        runtime.run_scheduler_once(after(minutes))
    assert stands(again) == ("ACTIVE", None), "what is planned afterwards goes on as ever"


def test_log_that_grows_while_the_memory_is_asked_was_not_set_back(app, cast, monkeypatch):
    """Another worker commits and notes a number between the two: SQLite shows one moment to all reads of a transaction."""
    runtime, remembered = RUNTIME.of(app), []
    broadcast_id, epoch = plan(cast["alice"], 120), log.get_head().epoch

    def grow() -> None:
        with app.app_context():
            publish_message(cast["alice"])
            remembered.append(log.get_head().seq)

    def newest(epoch: str) -> int:
        with ThreadPoolExecutor(1) as other:
            other.submit(grow).result()
        return remembered[-1]

    monkeypatch.setattr(runtime.high_water_mark, "get_seq", newest)
    runtime.run_scheduler_once(NOW)
    db.session.rollback()
    assert remembered
    assert log.get_head().epoch == epoch
    assert stands(broadcast_id) == ("SCHEDULED", None)


def test_copied_file_of_sqlite_sends_nothing_twice(app, cast, tmp_path):
    if db.engine.dialect.name != "sqlite":
        pytest.skip("only SQLite is a file")
    runtime, file = RUNTIME.of(app), Path(db.engine.url.database)
    broadcast_id = plan(cast["alice"], 10)
    runtime.run_scheduler_once(after(0))
    with closing(sqlite3.connect(file)) as source, closing(sqlite3.connect(tmp_path / "copy")) as target:
        source.backup(target)
    runtime.run_scheduler_once(after(10))
    assert stands(broadcast_id)[0] == "ACTIVE"
    db.session.remove()
    db.engine.dispose()
    for left in (f"{file}-wal", f"{file}-shm"):
        Path(left).unlink(missing_ok=True)
    shutil.copy(tmp_path / "copy", file)
    runtime.run_scheduler_once(after(11))
    assert stands(broadcast_id) == ("SCHEDULED", "RESTORED")


def test_memory_that_is_gone_or_nonsense_is_no_restore(app, cast, settings):
    runtime = RUNTIME.of(app)
    broadcast_id = plan(cast["alice"], 10)
    for text in ("", "[]", '{"x": "y"}', "{" * 1000):
        (settings.data_dir / "log_head.json").write_text(text)
        runtime.run_scheduler_once(NOW)
    runtime.run_scheduler_once(after(10))
    assert stands(broadcast_id) == ("ACTIVE", None)


def test_two_workers_that_see_a_restore_begin_one_epoch(cast):
    epoch = log.get_head().epoch
    assert [overdue_schedules.start_epoch_after_loss(epoch, now=NOW) for _ in range(2)] == [True, False]
    with write_transaction() as session:
        begun = session.execute(db.text("SELECT count(*) FROM audit WHERE action = 'log.epoch'")).scalar()
    assert begun == 1
