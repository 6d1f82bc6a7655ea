"""Releasing, recalling, expiring, and the scheduler that does it automatically."""

from datetime import datetime, timedelta

import pytest

from broadcast.actions import broadcasts as actions
from broadcast.base.errors import Forbidden, IllegalTransition, Invalid, NotFound, TemporarilyUnavailable
from broadcast.domain import clock
from broadcast.domain.events import EventType
from broadcast.store import audiences, broadcasts, log
from broadcast.store.database import db
from broadcast.worker import scheduler
from tests.support.background import call_at_once
from tests.support.builders import build_message, build_role_message, count_rows, publish_message

NOW = clock.now()


def status(broadcast_id: int) -> str:
    db.session.rollback()
    return broadcasts.get(broadcast_id).status


def events() -> list[tuple[str, int | None]]:
    db.session.rollback()
    return [(event.type.value, event.broadcast_id) for event in log.read_events(0)]


def due_in(minutes: float, **more) -> dict:
    return build_message(scheduledAt=clock.to_rfc3339(clock.now() + timedelta(minutes=minutes)), **more)


def in_wire(moment: datetime) -> str:
    return clock.to_rfc3339(moment)


# ---- recall


def test_recall_ends_it_and_tells_its_audience_once(cast):
    broadcast_id = publish_message(cast["alice"], build_role_message("ops"))
    actions.cancel(broadcast_id, reason="  Wrong \n date ", by=cast["alice"], now=NOW)
    broadcast = broadcasts.get(broadcast_id)
    assert (broadcast.status, broadcast.cancel_reason, broadcast.ended_at) == ("CANCELLED", "Wrong date", NOW)
    removed = log.read_events(0)[-1]
    assert removed.type is EventType.MESSAGE_REMOVED
    assert removed.payload == {"id": broadcast_id, "reason": "CANCELLED"}
    assert removed.audience == audiences.get_audience(broadcast)
    assert [act.action for act in broadcasts.list_audit_entries(broadcast_id)] == [
        "broadcast.published",
        "broadcast.cancelled",
    ]


@pytest.mark.parametrize("more", [{"draft": True}, {"scheduledAt": in_wire(NOW + timedelta(days=1))}])
def test_recall_of_what_nobody_got_is_told_to_nobody(cast, more):
    broadcast_id = publish_message(cast["alice"], build_message(**more))
    actions.cancel(broadcast_id, reason="Wrong", by=cast["alice"], now=NOW)
    assert status(broadcast_id) == "CANCELLED"
    assert events() == []


def test_ended_broadcast_cannot_be_recalled_or_released_and_does_not_end_again(cast):
    broadcast_id = publish_message(cast["alice"])
    actions.cancel(broadcast_id, reason="Wrong", by=cast["alice"], now=NOW)
    before = count_rows()
    for again in (
        lambda: actions.cancel(broadcast_id, reason="Again", by=cast["alice"], now=NOW),
        lambda: actions.release(broadcast_id, by=cast["alice"], now=NOW),
    ):
        with pytest.raises(IllegalTransition) as caught:
            again()
        assert caught.value.current_status == "CANCELLED"
    assert actions.expire_due([broadcast_id], now=NOW) == []
    assert count_rows() == before
    assert broadcasts.get(broadcast_id).cancel_reason == "Wrong"


@pytest.mark.parametrize("reason", ["", "  ", "x" * 501, "a\0b", "\x1b[2J", "\ud800"])
def test_reason_is_a_sentence(cast, reason):
    broadcast_id = publish_message(cast["alice"])
    with pytest.raises(Invalid) as caught:
        actions.cancel(broadcast_id, reason=reason, by=cast["alice"], now=NOW)
    assert set(caught.value.fields) == {"reason"}
    assert status(broadcast_id) == "ACTIVE"


@pytest.mark.parametrize("name", ["bob", "charlie"])
def test_only_administrators_recall_and_release(cast, name):
    live, draft = publish_message(cast["alice"]), publish_message(cast["alice"], build_message(draft=True))
    before = count_rows()
    with pytest.raises(Forbidden):
        actions.cancel(live, reason="Mine now", by=cast[name], now=NOW)
    with pytest.raises(Forbidden):
        actions.release(draft, by=cast[name], now=NOW)
    assert count_rows() == before
    assert (status(live), status(draft)) == ("ACTIVE", "DRAFT")


@pytest.mark.parametrize("nobody", [99_999, 0])
def test_broadcast_that_does_not_exist_is_not_found(cast, nobody):
    with pytest.raises(NotFound):
        actions.cancel(nobody, reason="Wrong", by=cast["alice"], now=NOW)
    with pytest.raises(NotFound):
        actions.release(nobody, by=cast["alice"], now=NOW)


def test_recall_that_fails_halfway_changes_nothing(cast, monkeypatch):
    broadcast_id = publish_message(cast["alice"])
    before = count_rows()

    def fail(*args, **options):
        raise ZeroDivisionError

    with monkeypatch.context() as patched:
        patched.setattr(log, "append", fail)
        with pytest.raises(ZeroDivisionError):
            actions.cancel(broadcast_id, reason="Wrong", by=cast["alice"], now=NOW)
    assert count_rows() == before
    assert status(broadcast_id) == "ACTIVE"


# ---- sending later


def test_draft_is_sent_when_its_writer_says_so(cast):
    broadcast_id = publish_message(cast["alice"], build_message(draft=True))
    actions.release(broadcast_id, by=cast["alice"], now=NOW)
    assert status(broadcast_id) == "ACTIVE"
    assert events() == [("MESSAGE", broadcast_id)]
    with pytest.raises(IllegalTransition):
        actions.release(broadcast_id, by=cast["alice"], now=NOW)


# ---- the clock


def test_due_broadcast_fires_once_even_if_ticked_twice(cast):
    broadcast_id = publish_message(cast["alice"], due_in(10))
    due = broadcasts.get(broadcast_id).scheduled_at
    scheduler.tick(due - timedelta(milliseconds=1))
    assert status(broadcast_id) == "SCHEDULED"
    for _ in range(2):
        scheduler.tick(due)
    assert status(broadcast_id) == "ACTIVE"
    assert events() == [("MESSAGE", broadcast_id)]


def test_message_ends_on_time_and_once(cast):
    now = clock.now()
    broadcast_id = publish_message(cast["alice"], build_message(expiresAt=in_wire(now + timedelta(minutes=5))), now=now)
    ends = broadcasts.get(broadcast_id).expires_at
    scheduler.tick(ends - timedelta(milliseconds=1))
    assert status(broadcast_id) == "ACTIVE"
    for _ in range(2):
        scheduler.tick(ends)
    assert status(broadcast_id) == "EXPIRED"
    assert events() == [("MESSAGE", broadcast_id), ("MESSAGE_REMOVED", broadcast_id)]
    assert log.read_events(0)[-1].payload == {"id": broadcast_id, "reason": "EXPIRED"}


def test_late_one_is_fired_but_one_whose_time_is_over_is_not(cast):
    """F18: the clock was away for some minutes."""
    late = publish_message(cast["alice"], due_in(10))
    over = publish_message(cast["alice"], due_in(10, expiresAt=in_wire(clock.now() + timedelta(minutes=15))))
    scheduler.tick(clock.now() + timedelta(minutes=20))
    assert (status(late), status(over)) == ("ACTIVE", "SCHEDULED")
    assert events() == [("MESSAGE", late)]


def test_recalled_plan_never_fires(cast):
    broadcast_id = publish_message(cast["alice"], due_in(10))
    actions.cancel(broadcast_id, reason="Wrong", by=cast["alice"], now=NOW)
    scheduler.tick(clock.now() + timedelta(hours=1))
    assert status(broadcast_id) == "CANCELLED"
    assert events() == []


def test_tick_tells_when_there_is_something_to_do_next(cast):
    assert scheduler.tick(clock.now()) is None
    broadcast_id = publish_message(cast["alice"], due_in(10))
    assert scheduler.tick(clock.now()) == broadcasts.get(broadcast_id).scheduled_at


@pytest.mark.parametrize("ends", [False, True], ids=["to send", "to end"])
def test_one_broken_row_does_not_hold_up_the_others(cast, ends):
    """A row that nobody can read any more: its links, or its people, are not what they should be."""
    more = {"expiresAt": in_wire(clock.now() + timedelta(minutes=20))} if ends else {}
    broken, *fine = (publish_message(cast["alice"], due_in(10 + n, **more)) for n in range(3))
    if ends:
        scheduler.tick(clock.now() + timedelta(minutes=15))
    break_row(broken, "audience_kind = 'users', has_exceptions = false" if ends else """actions = '[{"odd": 1}]'""")
    later = clock.now() + timedelta(minutes=20)
    next_at = scheduler.tick(later)
    assert status(broken) == ("ACTIVE" if ends else "SCHEDULED")
    assert {status(one) for one in fine} == {"EXPIRED" if ends else "ACTIVE"}
    assert next_at > later, "the clock would spin on the broken row"


def break_row(broadcast_id: int, change: str) -> None:
    with db.engine.begin() as connection:
        connection.exec_driver_sql(f"UPDATE broadcasts SET {change} WHERE id = {broadcast_id}")


def test_plan_that_was_moved_after_the_clock_looked_is_not_sent(cast):
    broadcast_id = publish_message(cast["alice"], due_in(10))
    assert actions.release_due([broadcast_id], now=clock.now()) == []
    assert status(broadcast_id) == "SCHEDULED"


def test_plan_that_somebody_is_changing_is_left_for_later_and_the_others_go_out(cast):
    """On SQLite nobody can: the clock has the whole database."""
    if db.engine.dialect.name == "sqlite":
        pytest.skip("SQLite locks no rows")
    edited, *others = (publish_message(cast["alice"], due_in(10)) for _ in range(3))
    with db.engine.begin() as connection:
        connection.exec_driver_sql(f"SELECT 1 FROM broadcasts WHERE id = {edited} FOR UPDATE")
        scheduler.tick(clock.now() + timedelta(minutes=20))
        assert events() == [("MESSAGE", other) for other in others]
    scheduler.tick(clock.now() + timedelta(minutes=20))
    assert status(edited) == "ACTIVE"


def test_busy_database_is_told_to_the_loop(cast, monkeypatch):
    publish_message(cast["alice"], due_in(10))

    def busy(ids: list[int], **options):
        raise TemporarilyUnavailable

    monkeypatch.setattr(actions, "release_due", busy)
    with pytest.raises(TemporarilyUnavailable):
        scheduler.tick(clock.now() + timedelta(hours=1))


def test_two_clocks_fire_each_due_broadcast_once(cast, make_app):
    """F18: two workers see the same due rows."""
    ids = [publish_message(cast["alice"], due_in(10)) for _ in range(20)]
    later = clock.now() + timedelta(minutes=20)
    app = make_app(database_lock_timeout_seconds=20)
    call_at_once(app, 2, lambda _: scheduler.tick(later))
    assert sorted(broadcast_id for _, broadcast_id in events()) == ids
