"""Flood control: a source's events join the card with their key, or become drafts above the cap. Each counts once."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy

from broadcast.actions import broadcasts as singles
from broadcast.actions import edits, inbound_events, receipts
from broadcast.base.errors import TemporarilyUnavailable
from broadcast.domain import flood_control
from broadcast.domain.actor import Actor
from broadcast.domain.events import EventType
from broadcast.domain.flood_control import MAX_QUARANTINED_PER_SOURCE
from broadcast.domain.inbound import InboundEvent, InboundRecord, RateCap, RecordPosition
from broadcast.ingest import contract
from broadcast.ingest.rules import Rule
from broadcast.store import audiences, broadcast_totals, dead_letters, inbox, log
from broadcast.store import receipts as stored_receipts
from broadcast.store.database import db
from broadcast.store.models import AuditEntry, Broadcast
from broadcast.store.models.ingest import InboundEventKey, InboundSourceStats, RuleTally
from broadcast.store.transactions import write_transaction
from tests.support.background import call_at_once
from tests.support.builders import build_message, build_role_message, build_user_message, count_rows
from tests.support.inbound_records import SOURCE, build_cancel_event, build_cloud_event, build_structured_record

NOW = datetime(2026, 11, 4, 10, 0, tzinfo=UTC)
CAP = RateCap(limit=3, window_seconds=60, rule="r")
CAPPED = (Rule(patterns={"source": ("*",)}, rate_cap=CAP),)

pytestmark = pytest.mark.usefixtures("cast")


@pytest.fixture
def outside(cast) -> Actor:
    return inbound_events.get_ingest_actor(now=NOW)


def arrivals(records, rules=(), now=NOW) -> list[InboundEvent]:
    return [InboundEvent(record, contract.read_command(record, now=now, rules=rules)) for record in records]


def ingest(by: Actor, *records: InboundRecord, rules=(), after: float = 0) -> list[str]:
    now = NOW + timedelta(seconds=after)
    outcomes = inbound_events.ingest(arrivals(records, rules, now), by=by, now=now)
    db.session.rollback()
    return [outcome.kind for outcome in outcomes]


def keyed(id: str, key: str | None = "line-4", *, data=None, **changes) -> InboundRecord:
    raw = (data or build_message(title=f"t{id}")) | changes | ({"collapseKey": key} if key else {})
    return build_structured_record(build_cloud_event(id, data=raw), offset=abs(hash(id)) % 10**9)


def stored() -> list[Broadcast]:
    return list(db.session.scalars(sqlalchemy.select(Broadcast).order_by(Broadcast.id)))


def states() -> list[str]:
    return [row.status for row in stored()]


def read_by(name: str, cast, *, now=NOW) -> None:
    receipts.mark_read([stored()[0].id], by=cast[name], now=now)
    db.session.rollback()


def unread(name: str, cast, *, now) -> int:
    found = inbox.Inbox(cast[name].viewer, now).count_unread().count
    db.session.rollback()
    return found


# ---- a key: one card


def test_second_event_with_the_key_of_a_live_card_changes_it_and_counts(outside):
    assert ingest(outside, keyed("1")) == ["published"]
    assert ingest(outside, keyed("2", content="**newest**", priority="HIGH"), after=9) == ["collapsed"]
    [card] = stored()
    assert (card.title, card.content_html.strip(), card.priority) == ("t2", "<p><strong>newest</strong></p>", "HIGH")
    assert (card.times, card.revision, card.source_id) == (2, 2, "1")
    assert card.repeated_at == NOW + timedelta(seconds=9)
    first, second = log.read_events(0)
    assert (first.type, second.type) == (EventType.MESSAGE, EventType.MESSAGE_UPDATED)
    assert (second.payload["times"], second.payload["title"], second.payload["again"]) == (2, "t2", True)
    assert second.payload["repeatedAt"] == "2026-11-04T10:00:09.000Z"
    assert second.audience == first.audience
    assert card.seq == second.seq == 2


def test_card_is_unread_again_for_those_who_had_read_it(outside, cast):
    ingest(outside, keyed("1"))
    read_by("bob", cast)
    assert unread("bob", cast, now=NOW) == 0
    ingest(outside, keyed("2"), after=5)
    assert unread("bob", cast, now=NOW + timedelta(seconds=6)) == 1


def test_card_that_was_seen_by_marking_all_read_stays_seen(outside, cast):
    ingest(outside, keyed("1"))
    [card] = stored()
    with write_transaction() as session:
        stored_receipts.set_timestamp(session, [(card.id, cast["bob"].user_id)], "delivered_at", at=NOW)
    receipts.mark_all_read(inbox.InboxFilters(), through=99, by=cast["bob"], now=NOW + timedelta(seconds=1))
    ingest(outside, keyed("2"), keyed("3"), after=5)
    reached = broadcast_totals.count_totals(stored())[card.id].targeted
    assert (reached.delivered, reached.seen, reached.read) == (1, 1, 0)


def test_events_of_one_batch_share_a_card_and_the_log_tells_it_once(outside):
    kinds = ingest(outside, *(keyed(str(n)) for n in range(5)), keyed("x", "other"))
    assert kinds == ["published", *["collapsed"] * 4, "published"]
    card, other = stored()
    assert (card.title, card.times, other.times) == ("t4", 5, 1)
    told = log.read_events(0)
    assert [(event.type, event.payload["times"]) for event in told] == [
        (EventType.MESSAGE, 5),
        (EventType.MESSAGE, 1),
    ]
    ingest(outside, *(keyed(f"b{n}") for n in range(5)))
    assert [event.payload["times"] for event in log.read_events(2)] == [10]


def test_event_that_comes_again_counts_once(outside):
    """I7, F07: in its batch, in a later one, and the one that began the card."""
    assert ingest(outside, keyed("1"), keyed("2"), keyed("2")) == ["published", "collapsed", "repeated"]
    assert ingest(outside, keyed("2"), keyed("1")) == ["repeated", "repeated"]
    assert stored()[0].times == 2
    assert log.get_head().seq == 1
    row = db.session.get(InboundSourceStats, SOURCE)
    assert (row.published, row.collapsed, row.repeated) == (1, 1, 3)


def test_key_of_another_source_or_none_is_another_card(outside):
    stranger = build_cloud_event("9", data=build_message() | {"collapseKey": "line-4"}, source="https://other")
    assert (
        ingest(outside, keyed("1"), build_structured_record(stranger, offset=9), keyed("2", None), keyed("3", None))
        == ["published"] * 4
    )


def test_card_for_others_is_never_joined(outside):
    """What is for administrators must not be read by everybody who has the card."""
    to_ops = keyed("1", data=build_role_message("ops"))
    to_admin = keyed("2", data=build_role_message("admin"))
    chosen = [keyed("3", data=build_user_message("bob")), keyed("4", data=build_user_message("bob", "charlie"))]
    assert ingest(outside, to_ops, to_admin, *chosen) == ["published"] * 4
    again = [keyed("5", data=build_role_message("admin")), keyed("6", data=build_user_message("charlie", "bob"))]
    assert ingest(outside, *again) == ["collapsed"] * 2
    assert [row.times for row in stored()] == [1, 2, 1, 2]


def test_card_that_is_over_is_not_joined(outside, cast):
    ingest(outside, keyed("1"))
    singles.cancel(stored()[0].id, reason="x", by=cast["alice"], now=NOW)
    assert ingest(outside, keyed("2", expiresAt="2026-11-04T10:01:00Z")) == ["published"]
    assert ingest(outside, keyed("3"), after=61) == ["published"]  # over, though the clock has not run yet


def test_recall_of_any_of_its_events_recalls_the_card(outside):
    ingest(outside, keyed("1"), keyed("2"))
    assert ingest(outside, build_structured_record(build_cancel_event("2"))) == ["cancelled"]
    assert states() == ["CANCELLED"]
    assert ingest(outside, keyed("3")) == ["published"]


def test_recall_and_new_card_in_one_batch_keep_their_order(outside):
    kinds = ingest(
        outside, keyed("1"), keyed("2"), build_structured_record(build_cancel_event("1"), offset=77), keyed("3")
    )
    assert kinds == ["published", "collapsed", "cancelled", "published"]
    assert [event.type for event in log.read_events(0)] == [
        EventType.MESSAGE,
        EventType.MESSAGE_REMOVED,
        EventType.MESSAGE,
    ]


def test_what_is_for_later_joins_no_card(outside):
    ingest(outside, keyed("1"))
    later, kept = keyed("2", scheduledAt="2026-11-05T10:00:00Z"), keyed("3", draft=True)
    assert ingest(outside, later, kept) == ["published"] * 2
    assert states() == ["ACTIVE", "SCHEDULED", "DRAFT"]


def test_joined_events_stand_in_the_audit_once_for_each_batch(outside):
    ingest(outside, keyed("1"))
    ingest(outside, *(keyed(str(n)) for n in range(2, 9)))
    rows = db.session.scalars(sqlalchemy.select(AuditEntry).where(AuditEntry.action == "broadcast.repeated")).all()
    assert [(row.actor_name, row.detail["times"], row.detail["again"]) for row in rows] == [(outside.name, 8, True)]


# ---- a cap: quarantine


def test_what_is_above_the_cap_waits_as_a_draft_with_its_reason(outside):
    kinds = ingest(outside, *(keyed(str(n), None) for n in range(5)), rules=CAPPED)
    assert kinds == ["published"] * 3 + ["quarantined"] * 2
    assert states() == ["ACTIVE"] * 3 + ["DRAFT"] * 2
    held = stored()[-1]
    assert held.quarantine_reason.startswith("Its source sent more than 3 broadcasts in 60 s.")
    assert (held.seq, held.source, held.source_id, held.sender_name) == (None, SOURCE, "4", SOURCE)
    assert log.get_head().seq == 3
    actions = db.session.scalars(sqlalchemy.select(AuditEntry.action).order_by(AuditEntry.id)).all()
    assert actions.count("broadcast.quarantined") == 2


def test_cap_holds_over_batches_and_its_window_moves_on(outside):
    assert ingest(outside, keyed("1", None), keyed("2", None), rules=CAPPED) == ["published"] * 2
    assert ingest(outside, keyed("3", None), keyed("4", None), rules=CAPPED, after=50) == ["published", "quarantined"]
    assert ingest(outside, *(keyed(f"5{n}", None) for n in range(3)), rules=CAPPED, after=61) == [
        "published", "published", "quarantined",
    ]  # fmt: skip
    assert db.session.scalar(sqlalchemy.select(sqlalchemy.func.count()).select_from(RuleTally)) == 2


def test_cap_is_of_each_source_and_each_rule(outside):
    others = [build_structured_record(build_cloud_event(str(n), source="https://b"), offset=n) for n in range(4)]
    roomy = (Rule(patterns={"source": ("*",)}, rate_cap=RateCap(3, 60, "r", sender_limit=6)),)
    assert ingest(outside, *(keyed(str(n), None) for n in range(3)), *others, rules=roomy) == [
        *["published"] * 6, "quarantined",
    ]  # fmt: skip
    another = (Rule(patterns={"source": ("*",)}, rate_cap=RateCap(3, 60, "another")),)
    assert ingest(outside, keyed("9", None), rules=another) == ["published"]


def test_new_names_are_no_way_around_a_cap(outside):
    records = [
        build_structured_record(build_cloud_event(str(n), source=f"https://grid.example.com/{n}"), offset=n)
        for n in range(5)
    ]
    assert ingest(outside, *records, rules=CAPPED) == ["published"] * 3 + ["quarantined"] * 2
    elsewhere = build_structured_record(build_cloud_event("9", source="https://grid.example.com/9"), offset=9)
    assert ingest(outside, elsewhere, rules=CAPPED, after=50) == ["quarantined"]
    assert ingest(outside, build_structured_record(build_cloud_event("10"), offset=10), rules=CAPPED, after=61) == [
        "published"
    ]


def test_quarantine_has_a_bound_for_one_sender_whatever_names_it_uses(outside, monkeypatch):
    monkeypatch.setattr(flood_control, "MAX_QUARANTINED_PER_OWNER", 4)
    records = [
        build_structured_record(build_cloud_event(str(n), source=f"https://grid.example.com/{n}"), offset=n)
        for n in range(10)
    ]
    assert ingest(outside, *records, rules=CAPPED) == ["published"] * 3 + ["quarantined"] * 4 + ["rejected"] * 3
    again = build_structured_record(build_cloud_event("x", source="https://grid.example.com/x"), offset=99)
    assert ingest(outside, again, rules=CAPPED) == ["rejected"]
    assert "4 drafts of whoever sent this wait" in dead_letters.list_page(None)[0].reason


def test_card_of_another_owner_is_never_joined_and_its_quarantine_not_filled(outside, cast):
    """Two topics may speak for one source where no rule says otherwise: what one has announced, the other does not change."""
    assert ingest(outside, keyed("1")) == ["published"]
    other = replace(keyed("2"), position=RecordPosition("other.topic", 0, 1))
    assert ingest(outside, other) == ["published"]
    assert [(row.times, row.source_owner) for row in stored()] == [(1, "topic:ext.events"), (1, "topic:other.topic")]


def test_held_back_event_that_comes_again_is_a_repeat(outside):
    ingest(outside, *(keyed(str(n), None) for n in range(5)), rules=CAPPED)
    before = count_rows()
    assert ingest(outside, *(keyed(str(n), None) for n in range(5)), rules=CAPPED, after=100) == ["repeated"] * 5
    assert count_rows() == before


def test_ten_thousand_equal_events_are_three_cards_and_one_draft(outside):
    equal = build_message(title="Disk full")
    kinds: list[str] = []
    for batch in range(20):
        records = [keyed(f"{batch}/{n}", None, data=equal) for n in range(500)]
        kinds += ingest(outside, *records, rules=CAPPED, after=batch)
    assert (kinds.count("published"), kinds.count("quarantined")) == (3, 9997)
    *cards, draft = stored()
    assert [card.times for card in cards] == [1, 1, 1]
    assert (draft.status, draft.times) == ("DRAFT", 9997)
    assert db.session.scalar(sqlalchemy.select(sqlalchemy.func.count()).select_from(InboundEventKey)) == 9996


def test_ten_thousand_events_with_one_key_are_one_card_shown_again_as_often_as_the_cap_allows(outside):
    for batch in range(20):
        records = [keyed(f"{batch}/{n}", "disk") for n in range(500)]
        ingest(outside, *records, rules=CAPPED, after=batch)
    [card] = stored()
    assert (card.times, card.title) == (10_000, "t19/499")
    told = log.read_events(0)
    assert len(told) == 20
    assert [event.payload.get("again") for event in told] == [None, True, True, *[False] * 17]
    assert [event.payload["times"] for event in told] == list(range(500, 10_001, 500))
    assert card.seq == 3  # where it was shown last; a quiet change moves nothing


def test_more_distinct_events_than_may_wait_become_dead_letters(outside):
    """A hundred drafts are what the console deletes with one press; the rest waits where all of it is redriven or purged."""
    kinds = ingest(outside, *(keyed(str(n), None) for n in range(150)), rules=CAPPED)
    assert [kinds.count(kind) for kind in ("published", "quarantined", "rejected")] == [
        3,
        MAX_QUARANTINED_PER_SOURCE,
        47,
    ]
    letters = dead_letters.list_page(None, limit=100)
    assert {letter.code for letter in letters} == {"over-cap"}
    assert "100 drafts of this source wait" in letters[0].reason


def test_draft_that_a_person_has_worked_on_is_left_to_them(outside, cast):
    same = build_message(title="Disk full")
    ingest(outside, *(keyed(str(n), None, data=same) for n in range(5)), rules=CAPPED)
    draft = stored()[-1]
    assert draft.times == 2
    edits.edit(draft.id, {"title": "All disks"}, version=None, by=cast["alice"], now=NOW + timedelta(seconds=2))
    assert ingest(outside, keyed("6", None, data=same), rules=CAPPED, after=3) == ["quarantined"]
    assert [row.title for row in stored()[-2:]] == ["All disks", "Disk full"]


def test_quarantine_is_joined_by_its_key_and_its_draft_is_sent_by_a_person(outside, cast):
    ingest(outside, *(keyed(str(n), None) for n in range(3)), rules=CAPPED)
    assert ingest(outside, keyed("a"), keyed("b"), rules=CAPPED) == ["quarantined"] * 2
    draft = stored()[-1]
    assert (draft.title, draft.times, draft.is_quarantined) == ("tb", 2, True)
    singles.release(draft.id, by=cast["alice"], now=NOW)
    db.session.rollback()
    assert ingest(outside, keyed("c"), rules=CAPPED) == ["collapsed"]
    assert (stored()[-1].times, stored()[-1].is_live) == (3, True)


def test_plans_count_towards_the_cap_and_drafts_do_not(outside):
    plans = [keyed(f"p{n}", None, scheduledAt="2026-11-05T10:00:00Z") for n in range(4)]
    drafts = [keyed(f"d{n}", None, draft=True) for n in range(4)]
    assert ingest(outside, *drafts, *plans, rules=CAPPED) == ["published"] * 7 + ["quarantined"]


def test_cap_costs_the_same_few_queries_whatever_the_size_of_the_batch(in_app, outside):
    def queries(count: int, first: int) -> int:
        asked = []
        listener = lambda *args: asked.append(args[2])  # noqa: E731
        records = [keyed(str(first + n), None, data=build_message(title=f"same {first}")) for n in range(count)]
        sqlalchemy.event.listen(db.engine, "before_cursor_execute", listener)
        try:
            ingest(outside, *records, rules=CAPPED)
        finally:
            sqlalchemy.event.remove(db.engine, "before_cursor_execute", listener)
        return len(asked)

    ingest(outside, *(keyed(f"w{n}", None) for n in range(5)), rules=CAPPED)
    assert queries(10, 0) == queries(200, 1000)


def until_written(records, *, by) -> None:
    """TemporarilyUnavailable means that nothing was written: hand it in again, as the bridge and the webhook's callers do."""
    while True:
        try:
            inbound_events.ingest(arrivals(records, CAPPED), by=by, now=NOW)
            return
        except TemporarilyUnavailable:
            pass


def test_two_at_once_show_no_more_than_the_cap_and_one_card(outside, make_app):
    """Two workers with batches of one source: each must know what the other has shown."""

    def run(worker: int) -> None:
        for n in range(5):
            records = [keyed(f"{worker}/{n}/a", None), keyed(f"{worker}/{n}/b", "shared")]
            until_written(records, by=outside)

    call_at_once(make_app(database_lock_timeout_seconds=2), 2, run)
    db.session.rollback()
    shared = [row for row in stored() if row.collapse_key == "shared"]
    assert sum(row.times for row in shared) == 10
    assert sum(row.is_live for row in shared) <= 1
    shown = [event for event in log.read_events(0) if event.payload.get("again", True)]
    assert len(shown) == CAP.limit


def test_failure_in_the_middle_leaves_nothing_counted(outside, monkeypatch):
    ingest(outside, keyed("1"))
    before = count_rows()
    monkeypatch.setattr(log, "append", lambda *args, **options: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        inbound_events.ingest(
            arrivals([InboundRecord(keyed("2").value, headers=keyed("2").headers)], CAPPED), by=outside, now=NOW
        )
    db.session.rollback()
    assert count_rows() == before
    assert stored()[0].times == 1


def test_card_reaches_whom_it_reached(outside):
    ingest(outside, keyed("1", data=build_role_message("ops")), keyed("2", data=build_role_message("ops")))
    [card] = stored()
    assert card.audience_count == 1
    assert audiences.get_audience(card) == log.read_events(0)[0].audience
