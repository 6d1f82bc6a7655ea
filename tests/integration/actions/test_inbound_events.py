"""Batches of inbound events: each becomes exactly one broadcast, whatever else is in the batch (I7, F07, F08)."""

from datetime import UTC, datetime

import pytest
import sqlalchemy
from sqlalchemy.exc import IntegrityError, ProgrammingError

from broadcast.actions import broadcasts as singles
from broadcast.actions import inbound_events
from broadcast.base.errors import Forbidden, TemporarilyUnavailable
from broadcast.domain import clock
from broadcast.domain.actor import Actor
from broadcast.domain.events import EventType
from broadcast.domain.inbound import InboundEvent, InboundRecord
from broadcast.ingest import contract
from broadcast.store import audiences, broadcasts, dead_letters, log
from broadcast.store.database import db
from broadcast.store.models import AuditEntry, Broadcast
from broadcast.store.models.ingest import InboundSourceStats
from tests.support.builders import build_message, build_role_message, build_user_message, count_rows
from tests.support.inbound_records import (
    SOURCE,
    build_bare_record,
    build_cancel_event,
    build_cloud_event,
    build_structured_record,
)

NOW = datetime(2026, 11, 4, 10, 0, tzinfo=UTC)

pytestmark = pytest.mark.usefixtures("cast")


@pytest.fixture
def outside(cast) -> Actor:
    return inbound_events.get_ingest_actor(now=NOW)


def arrivals(*records: InboundRecord) -> list[InboundEvent]:
    return [InboundEvent(record, contract.read_command(record, now=NOW)) for record in records]


def ingest(by: Actor, *records: InboundRecord) -> list[str]:
    outcomes = inbound_events.ingest(arrivals(*records), by=by, now=NOW)
    db.session.rollback()
    return [outcome.kind for outcome in outcomes]


def stored() -> list[Broadcast]:
    return list(db.session.scalars(sqlalchemy.select(Broadcast).order_by(Broadcast.id)))


def figures(source: str = SOURCE) -> tuple[int, ...]:
    row = db.session.get(InboundSourceStats, source)
    return row.published, row.repeated, row.cancelled, row.rejected


def test_batch_is_published_in_its_order_with_numbers_without_gaps(outside):
    kinds = ingest(
        outside,
        *(
            build_structured_record(build_cloud_event(str(n), data=build_message(title=f"t{n}")), offset=n)
            for n in range(50)
        ),
    )
    assert kinds == ["published"] * 50
    rows = stored()
    assert [row.source_id for row in rows] == [str(n) for n in range(50)]
    assert [row.seq for row in rows] == list(range(1, 51))
    logged = log.read_events(0)
    assert [(event.seq, event.broadcast_id, event.payload["id"]) for event in logged] == [
        (row.seq, row.id, row.id) for row in rows
    ]
    assert figures() == (50, 0, 0, 0)


def test_event_in_a_batch_becomes_what_a_person_would_have_sent(outside, cast):
    for raw in (
        build_message(content="**b**"),
        build_role_message("ops", "admin"),
        build_user_message("bob", "charlie"),
    ):
        ingest(outside, build_structured_record(build_cloud_event(f"{raw['targetType']}", data=raw)))
        by_hand = singles.publish(contract.parse_draft(raw, now=NOW), by=cast["alice"], now=NOW).id
        from_outside, typed = stored()[-2], broadcasts.get(by_hand)
        for name in ("status", "content_html", "audience_kind", "audience_count", "role_names", "why", "published_at"):
            assert getattr(from_outside, name) == getattr(typed, name), name
        assert audiences.get_audience(from_outside) == audiences.get_audience(typed)
        first, second = log.read_events(typed.seq - 2)
        assert first.payload.keys() == second.payload.keys()
        assert first.audience == second.audience


def test_sender_on_the_card_is_the_source(outside):
    ingest(outside, build_structured_record(build_cloud_event()))
    assert stored()[0].sender_name == SOURCE
    assert log.read_events(0)[0].payload["senderName"] == SOURCE


def test_repeat_is_counted_and_not_published(outside):
    """Twice in one batch, in another batch, from another partition."""
    assert ingest(
        outside, build_structured_record(build_cloud_event()), build_structured_record(build_cloud_event(), offset=43)
    ) == ["published", "repeated"]
    assert ingest(outside, build_structured_record(build_cloud_event(), offset=44)) == ["repeated"]
    assert len(stored()) == 1
    assert log.get_head().seq == 1
    assert figures() == (1, 2, 0, 0)


def test_same_id_of_another_source_is_another_event(outside):
    assert (
        ingest(
            outside,
            build_structured_record(build_cloud_event()),
            build_structured_record(build_cloud_event(source="https://other")),
        )
        == ["published"] * 2
    )


def test_bad_event_leaves_the_batch_with_its_reason_and_the_rest_goes_out(outside):
    good, poison = (
        build_structured_record(build_cloud_event("1"), offset=1),
        build_structured_record(b"{nope", offset=2),
    )
    nobody = build_structured_record(build_cloud_event("3", data=build_role_message("nosuchrole")), offset=3)
    assert ingest(outside, good, poison, nobody) == ["published", "rejected", "rejected"]
    last, first = dead_letters.list_page(None)
    assert (first.position, first.code, first.value, first.source) == ("ext.events:1:2", "not-json", b"{nope", None)
    assert (last.code, last.source, last.source_id) == ("audience", SOURCE, "3")
    assert "nosuchrole" in last.reason
    assert dead_letters.to_record(last) == nobody
    assert figures() == (1, 0, 0, 1)
    assert figures("kafka:ext.events") == (0, 0, 0, 1)


def test_dead_letter_that_comes_again_is_a_repeat(outside):
    poison = build_structured_record(b"{nope")
    assert ingest(outside, poison) == ["rejected"]
    assert ingest(outside, poison) == ["repeated"]
    assert len(dead_letters.list_page(None)) == 1


def test_of_a_value_that_is_too_large_the_first_part_is_kept(outside):
    ingest(outside, build_structured_record(b"x" * 5_000_000))
    [letter] = dead_letters.list_page(None)
    assert (len(letter.value), letter.size) == (64 * 1024, 5_000_000)


def test_recall_takes_the_broadcast_from_every_screen(outside):
    ingest(outside, build_structured_record(build_cloud_event("1", data=build_role_message("ops"))))
    assert ingest(outside, build_structured_record(build_cancel_event("1"))) == ["cancelled"]
    [row] = stored()
    assert (row.status, row.cancel_reason) == ("CANCELLED", "All clear")
    removed = log.read_events(1)[0]
    assert (removed.type, removed.payload["id"]) == (EventType.MESSAGE_REMOVED, row.id)
    assert removed.audience == audiences.get_audience(row)


def test_announcement_and_recall_in_one_batch_are_both_logged_in_order(outside):
    kinds = ingest(
        outside,
        build_structured_record(build_cloud_event("1")),
        build_structured_record(build_cancel_event("1")),
        build_structured_record(build_cloud_event("2")),
    )
    assert kinds == ["published", "cancelled", "published"]
    assert [event.type for event in log.read_events(0)] == [
        EventType.MESSAGE,
        EventType.MESSAGE_REMOVED,
        EventType.MESSAGE,
    ]
    assert [(row.status, row.seq) for row in stored()] == [("CANCELLED", 1), ("ACTIVE", 3)]


def test_recall_that_comes_again_is_a_repeat(outside):
    ingest(outside, build_structured_record(build_cloud_event("1")), build_structured_record(build_cancel_event("1")))
    assert ingest(outside, build_structured_record(build_cancel_event("1"), offset=44)) == ["repeated"]
    assert log.get_head().seq == 2


def test_source_cannot_recall_what_another_announced(outside, cast):
    ingest(outside, build_structured_record(build_cloud_event("1")))
    mine = singles.publish(contract.parse_draft(build_message(), now=NOW), by=cast["alice"], now=NOW).id
    stranger = build_structured_record(build_cancel_event("1", source="https://other.example.com"), offset=50)
    by_number = build_structured_record(build_cancel_event(str(mine), "c2"), offset=51)
    assert ingest(outside, stranger, by_number) == ["rejected", "rejected"]
    assert {row.status for row in stored()} == {"ACTIVE"}


def test_scheduled_and_draft_wait_without_a_number(outside):
    later = build_structured_record(build_cloud_event("1", data=build_message(scheduledAt="2026-11-05T10:00:00Z")))
    assert (
        ingest(outside, later, build_structured_record(build_cloud_event("2", data=build_message(draft=True))))
        == ["published"] * 2
    )
    assert [(row.status, row.seq) for row in stored()] == [("SCHEDULED", None), ("DRAFT", None)]
    assert log.get_head().seq == 0


def test_record_that_cannot_even_be_buried_as_it_is_is_buried_without_its_names(outside, monkeypatch):
    """Whatever a record holds, it comes once: else its batch is handed in for ever."""
    add, tried = dead_letters.add, []

    def refusing(session, record, rejected, *, at):
        tried.append(rejected.code)
        if record.headers:
            raise ValueError("this cannot be stored")
        return add(session, record, rejected, at=at)

    monkeypatch.setattr(dead_letters, "add", refusing)
    assert ingest(
        outside, build_structured_record(b"{nope"), build_structured_record(build_cloud_event("1"), offset=43)
    ) == ["rejected", "published"]
    [letter] = dead_letters.list_page(None)
    assert (letter.code, letter.value, letter.headers) == ("failed", b"{nope", [])


def test_database_without_a_table_buries_nothing(outside, monkeypatch):
    problem = ProgrammingError("INSERT", {}, Exception("relation does not exist"))

    def fail(*args, **options):
        raise problem

    monkeypatch.setattr(log, "append", fail)
    with pytest.raises(ProgrammingError):
        inbound_events.ingest(
            arrivals(
                build_structured_record(build_cloud_event("1")),
                build_structured_record(build_cloud_event("2"), offset=43),
            ),
            by=outside,
            now=NOW,
        )
    db.session.rollback()
    assert dead_letters.list_page(None) == []


def test_mistake_in_our_own_code_costs_one_event(outside, monkeypatch):
    reader = contract.parse_draft

    def failing(raw, *, now):
        if raw["title"] == "boom":
            raise KeyError("boom")
        return reader(raw, now=now)

    monkeypatch.setattr(contract, "parse_draft", failing)
    bad = build_structured_record(build_cloud_event("1", data=build_message(title="boom")), offset=1)
    assert ingest(outside, bad, build_structured_record(build_cloud_event("2"), offset=2)) == ["rejected", "published"]
    assert dead_letters.list_page(None)[0].code == "failed"


def test_every_broadcast_has_its_line_in_the_audit(outside):
    ingest(
        outside,
        build_structured_record(build_cloud_event("1")),
        build_structured_record(build_cloud_event("2")),
        build_structured_record(build_cancel_event("1")),
    )
    rows = db.session.scalars(
        sqlalchemy.select(AuditEntry).where(AuditEntry.object_type == "broadcast").order_by(AuditEntry.id)
    ).all()
    told = [(row.action, row.actor_name, row.detail["sourceId"]) for row in rows]
    assert sorted(told) == [
        ("broadcast.cancelled", outside.name, "1"),
        ("broadcast.published", outside.name, "1"),
        ("broadcast.published", outside.name, "2"),
    ]


@pytest.fixture
def refused_by_the_database(in_app):
    """A trigger that refuses one title: what no check of ours foresees."""
    is_sqlite = db.engine.dialect.name == "sqlite"
    with db.engine.begin() as connection:
        if is_sqlite:
            connection.exec_driver_sql(
                "CREATE TRIGGER refuse BEFORE INSERT ON broadcasts WHEN NEW.title = 'cursed'"
                " BEGIN SELECT RAISE(ABORT, 'cursed'); END"
            )
        else:
            connection.exec_driver_sql("ALTER TABLE broadcasts ADD CONSTRAINT refuse CHECK (title <> 'cursed')")
    yield "cursed"
    db.session.rollback()
    with db.engine.begin() as connection:
        if is_sqlite:
            connection.exec_driver_sql("DROP TRIGGER refuse")
        else:
            connection.exec_driver_sql("ALTER TABLE broadcasts DROP CONSTRAINT refuse")


def test_event_that_the_database_refuses_does_not_hold_up_the_rest(outside, refused_by_the_database):
    batch = [build_structured_record(build_cloud_event(str(n)), offset=n) for n in range(10)]
    batch[4] = build_structured_record(
        build_cloud_event("4", data=build_message(title=refused_by_the_database)), offset=4
    )
    kinds = ingest(outside, *batch)
    assert kinds == ["published"] * 4 + ["rejected"] + ["published"] * 5
    assert [row.source_id for row in stored()] == [str(n) for n in range(10) if n != 4]
    [letter] = dead_letters.list_page(None)
    assert (letter.code, letter.source_id) == ("failed", "4")
    assert log.get_head().seq == 9
    assert figures() == (9, 0, 0, 1)


def test_event_that_another_worker_announced_meanwhile_is_a_repeat_and_no_dead_letter(outside, monkeypatch):
    ingest_one = inbound_events._ingest_in_transaction

    def be_slower(*given):
        monkeypatch.setattr(inbound_events, "_ingest_in_transaction", ingest_one)
        ingest_one(*given)
        raise IntegrityError("INSERT", {}, Exception("unique"))

    monkeypatch.setattr(inbound_events, "_ingest_in_transaction", be_slower)
    assert ingest(outside, build_structured_record(build_cloud_event())) == ["repeated"]
    assert (len(stored()), dead_letters.list_page(None)) == (1, [])


def test_batch_writes_nothing_while_the_database_is_locked(outside, make_app):
    if db.engine.dialect.name != "sqlite":
        pytest.skip("SQLite's one write lock")
    before = count_rows()
    connection = db.engine.connect().execution_options(broadcast_writes=True)
    connection.exec_driver_sql("SELECT 1")
    with pytest.raises(TemporarilyUnavailable):
        inbound_events.ingest(
            arrivals(build_structured_record(build_cloud_event()), build_structured_record(b"{", offset=9)),
            by=outside,
            now=NOW,
        )
    connection.close()
    assert count_rows() == before


def test_who_may_not_announce_is_refused(cast):
    with pytest.raises(Forbidden):
        inbound_events.ingest(arrivals(build_structured_record(build_cloud_event())), by=cast["alice"], now=NOW)


def test_account_of_events_is_made_once_and_is_in_no_audience(outside):
    assert inbound_events.get_ingest_actor(now=clock.now()).user_id == outside.user_id
    ingest(outside, build_bare_record(build_message(), key=b"k"))
    assert stored()[0].audience_count == 3
