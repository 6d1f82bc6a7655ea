"""Edits of drafts, scheduled and live broadcasts; two concurrent editors, and an editor against the scheduler."""

from datetime import timedelta

import pytest

from broadcast.actions import broadcasts as actions
from broadcast.actions import edits, receipts
from broadcast.actions import users as people_actions
from broadcast.base.errors import Conflict, Forbidden, IllegalTransition, Invalid, NotFound, VersionConflict
from broadcast.domain import clock
from broadcast.domain.events import EventType
from broadcast.domain.message import parse_draft
from broadcast.store import audiences, broadcast_totals, broadcasts, log
from broadcast.store.database import db
from broadcast.store.inbox import Inbox, InboxFilters
from broadcast.worker import scheduler
from tests.support.background import call_at_once
from tests.support.builders import (
    build_message,
    build_role_message,
    build_user_message,
    count_rows,
    load_actor,
    publish_message,
)

NOW = clock.now()
LATER = clock.to_rfc3339(NOW + timedelta(hours=1))


def found(broadcast_id: int):
    db.session.rollback()
    return broadcasts.get(broadcast_id)


def acts(broadcast_id: int) -> list[str]:
    return [act.action.removeprefix("broadcast.") for act in broadcasts.list_audit_entries(broadcast_id)]


def edit(broadcast_id: int, by, *, version: str | None = None, again: bool = False, **changes) -> str:
    return edits.edit(broadcast_id, changes, version=version, by=by, now=clock.now(), notify_again=again)


# ---- live


def test_live_edit_is_a_new_revision_and_an_event_for_its_audience(cast):
    broadcast_id = publish_message(cast["alice"], build_role_message("ops"))
    seq = found(broadcast_id).seq
    assert (
        edit(broadcast_id, cast["alice"], version="1-ACTIVE", title="Lifts run again", content="**Both**") == "2-ACTIVE"
    )
    broadcast, event = found(broadcast_id), log.read_events(seq)[-1]
    assert (broadcast.title, broadcast.content_html, broadcast.revision) == (
        "Lifts run again", "<p><strong>Both</strong></p>\n", 2,
    )  # fmt: skip
    assert broadcast.edited_at is not None
    assert (broadcast.seq, event.seq) == (seq, seq + 1)
    assert (event.type, event.audience) == (EventType.MESSAGE_UPDATED, audiences.get_audience(broadcast))
    assert event.payload == broadcast.to_card().to_payload() | {"seq": seq, "again": False}
    assert broadcasts.list_audit_entries(broadcast_id)[-1].detail == {"fields": ["content", "title"], "revision": 2}


def test_edit_without_a_change_is_none(cast):
    broadcast_id = publish_message(cast["alice"])
    before = count_rows()
    assert edit(broadcast_id, cast["alice"], title="Lifts") == "1-ACTIVE"
    assert count_rows() == before


def test_shown_again_is_unread_on_top_for_those_who_had_read_it(cast):
    """By receipt and by watermark; reading it once more settles it."""
    bob, charlie = cast["bob"], cast["charlie"]
    first, second = (
        publish_message(cast["alice"], build_message(title="first")),
        publish_message(cast["alice"], build_message(title="second")),
    )
    receipts.mark_read([first], by=bob, now=clock.now())
    receipts.mark_all_read(InboxFilters(), through=99, by=charlie, now=clock.now())
    edit(first, cast["alice"], content="Other", again=True)
    for person in (bob, charlie):
        top = Inbox(person.viewer, clock.now()).list_page(InboxFilters())[0]
        assert (top.card.id, top.is_read) == (first, False)
    receipts.mark_read([first], by=bob, now=clock.now())
    receipts.mark_all_read(InboxFilters(), through=99, by=charlie, now=clock.now())
    for person in (bob, charlie):
        assert Inbox(person.viewer, clock.now()).find(first).is_read
    assert not Inbox(bob.viewer, clock.now()).find(second).is_read
    assert broadcast_totals.count_totals([found(first)])[first].targeted.read == 2


def test_reading_again_what_was_shown_again_settles_it_and_nothing_else(cast):
    """The moment of renewal is the broadcast's own, whatever other broadcasts and receipts there are."""
    old, renewed, bob = publish_message(cast["alice"]), publish_message(cast["alice"]), cast["bob"]
    for by in (bob, cast["charlie"]):
        receipts.mark_read([old, renewed], by=by, now=NOW)
    edit(renewed, cast["alice"], content="Other", again=True)
    later = clock.now()
    receipts.mark_read([old, renewed], by=bob, now=later)
    moments = {item.card.id: item.read_at for item in Inbox(bob.viewer, later).list_page(InboxFilters(view="all"))}
    assert moments == {old: NOW, renewed: later}


def test_quiet_edit_leaves_it_read_and_in_its_place(cast):
    first, second = publish_message(cast["alice"]), publish_message(cast["alice"])
    receipts.mark_read([first], by=cast["bob"], now=clock.now())
    edit(first, cast["alice"], content="Other")
    page = Inbox(cast["bob"].viewer, clock.now()).list_page(InboxFilters())
    assert [(item.card.id, item.is_read) for item in page] == [(second, False), (first, True)]


@pytest.mark.parametrize(
    "change",
    [
        {"targetType": "ALL"}, {"targetIds": ["ops"]}, {"exceptRoles": ["ops"]}, {"snapshot": True}, {"scheduledAt": LATER},
        {"status": "DRAFT"}, {"senderId": 1}, {"draft": True}, {"title": ""}, {"title": None}, {"content": 7},
        {"expiresAt": "2020-01-01T00:00:00Z"}, {"priority": "LOUD"},
    ],
)  # fmt: skip
def test_edit_of_what_may_not_change_is_told_at_its_field(cast, change):
    broadcast_id = publish_message(cast["alice"], build_role_message("ops"))
    before = count_rows()
    with pytest.raises(Invalid) as caught:
        edit(broadcast_id, cast["alice"], **change)
    assert set(caught.value.fields) == set(change)
    assert count_rows() == before
    assert found(broadcast_id).version == "1-ACTIVE"


def test_overdue_message_can_still_be_corrected(cast):
    due = NOW + timedelta(minutes=1)
    broadcast_id = publish_message(
        cast["alice"], build_message(requiresAck=True, ackDueAt=clock.to_rfc3339(due)), now=NOW
    )
    edits.edit(broadcast_id, {"title": "New"}, version=None, by=cast["alice"], now=NOW + timedelta(hours=1))
    assert (found(broadcast_id).title, found(broadcast_id).requires_ack) == ("New", True)
    assert clock.to_rfc3339(found(broadcast_id).ack_due_at) == clock.to_rfc3339(due)


def test_ended_broadcast_is_not_edited(cast):
    broadcast_id = publish_message(cast["alice"])
    actions.cancel(broadcast_id, reason="Wrong", by=cast["alice"], now=NOW)
    with pytest.raises(IllegalTransition):
        edit(broadcast_id, cast["alice"], title="New")


@pytest.mark.parametrize("name", ["bob", "charlie"])
def test_only_administrators_edit(cast, name):
    live, draft = publish_message(cast["alice"]), publish_message(cast["alice"], build_message(draft=True))
    before = count_rows()
    for attempt in (
        lambda: edit(live, cast[name], title="Mine"),
        lambda: edits.save_draft({}, None, broadcast_id=None, version=None, by=cast[name], now=NOW),
        lambda: actions.publish(
            parse_draft(build_message(), now=NOW), broadcast_id=draft, version=None, by=cast[name], now=NOW
        ),
        lambda: edits.send_delayed(draft, by=cast[name], now=NOW, until=NOW),
        lambda: edits.withdraw_broadcast(draft, by=cast[name], now=NOW),
        lambda: edits.duplicate(live, by=cast[name], now=NOW),
        lambda: actions.discard_draft(draft, by=cast[name], now=NOW),
        lambda: actions.archive(live, by=cast[name], now=NOW),
    ):
        with pytest.raises(Forbidden):
            attempt()
    assert count_rows() == before


# ---- two at once


@pytest.mark.parametrize("raw", [build_message(), build_message(draft=True), build_message(scheduledAt=LATER)])
def test_second_editor_is_told_and_overwrites_nothing(cast, raw):
    """F20"""
    broadcast_id = publish_message(cast["alice"], raw)
    version = found(broadcast_id).version
    newest = edit(broadcast_id, cast["alice"], version=version, content="Hers")
    with pytest.raises(VersionConflict) as caught:
        edit(broadcast_id, cast["alice"], version=version, content="His")
    assert caught.value.version == newest != version
    assert found(broadcast_id).content == "Hers"


def test_edit_against_the_clock_is_told_that_it_went_out(cast):
    """F20: the plan fires while somebody edits it."""
    broadcast_id = publish_message(cast["alice"], build_message(scheduledAt=LATER))
    version = found(broadcast_id).version
    scheduler.tick(NOW + timedelta(hours=1))
    for attempt in (
        lambda: edit(broadcast_id, cast["alice"], version=version, title="Too late"),
        lambda: actions.publish(
            parse_draft(build_message(), now=NOW),
            broadcast_id=broadcast_id,
            version=version,
            by=cast["alice"],
            now=NOW,
        ),
    ):
        with pytest.raises(VersionConflict):
            attempt()
    assert found(broadcast_id).title == "Lifts"


def test_parallel_edits_from_one_version_let_one_through(cast, make_app):
    """F20: twenty editors at the same moment."""
    broadcast_id = publish_message(cast["alice"])
    app = make_app(database_lock_timeout_seconds=25, database_pool_size=30)

    def save(n: int) -> str | Conflict:
        try:
            edits.edit(broadcast_id, {"title": f"By {n}"}, version="1-ACTIVE", by=cast["alice"], now=clock.now())
        except Conflict as conflict:
            return conflict
        return f"By {n}"

    answers = call_at_once(app, 20, save)
    assert [found(broadcast_id).title] == [answer for answer in answers if isinstance(answer, str)]
    assert [type(answer) for answer in answers].count(VersionConflict) == 19


# ---- drafts and plans


def test_draft_is_kept_as_it_was_typed_and_reaches_nobody(cast):
    typed = {
        "title": "  Half a ",
        "content": "",
        "targetType": "SELECTED",
        "people": "bob, nob",
        "scheduledAt": "2026-99",
    }
    saved = edits.save_draft(typed, None, broadcast_id=None, version=None, by=cast["alice"], now=NOW)
    broadcast = found(saved.id)
    assert (broadcast.typed, broadcast.title, broadcast.status) == (typed, "Half a", "DRAFT")
    again = edits.save_draft(
        typed | {"title": "x"}, None, broadcast_id=saved.id, version=saved.version, by=cast["alice"], now=NOW
    )
    assert again != saved
    assert acts(saved.id) == ["drafted"], "one writer's autosaves are one act"
    for attempt in (
        lambda: actions.release(saved.id, by=cast["alice"], now=NOW),
        lambda: edits.send_delayed(saved.id, by=cast["alice"], now=NOW, until=NOW),
    ):
        with pytest.raises(Conflict, match="review"):
            attempt()
    assert found(saved.id).status == "DRAFT"
    assert log.get_head().seq == 0


def test_draft_saved_from_an_older_page_is_refused(cast):
    """F20"""
    first = edits.save_draft({"title": "a"}, None, broadcast_id=None, version=None, by=cast["alice"], now=NOW)
    edits.save_draft({"title": "b"}, None, broadcast_id=first.id, version=first.version, by=cast["alice"], now=NOW)
    with pytest.raises(VersionConflict):
        edits.save_draft({"title": "c"}, None, broadcast_id=first.id, version=first.version, by=cast["alice"], now=NOW)
    assert found(first.id).typed == {"title": "b"}
    with pytest.raises(NotFound):
        edits.save_draft({}, None, broadcast_id=99_999, version="1-DRAFT", by=cast["alice"], now=NOW)


def test_autosave_of_what_was_sent_meanwhile_is_refused(cast):
    broadcast_id = publish_message(cast["alice"], build_message(scheduledAt=LATER))
    with pytest.raises(IllegalTransition):
        edits.save_draft({}, None, broadcast_id=broadcast_id, version=None, by=cast["alice"], now=NOW)


def test_draft_sent_with_its_final_words(cast):
    saved = edits.save_draft({"title": "Half"}, None, broadcast_id=None, version=None, by=cast["alice"], now=NOW)
    draft = parse_draft(build_user_message("charlie", title="Whole"), now=NOW)
    published = actions.publish(
        draft, broadcast_id=saved.id, version=saved.version, by=cast["alice"], now=NOW, idempotency_key="k"
    )
    broadcast = found(saved.id)
    assert (broadcast.status, broadcast.title, broadcast.typed) == ("ACTIVE", "Whole", None)
    assert Inbox(cast["charlie"].viewer, NOW).find(saved.id)
    assert not Inbox(cast["bob"].viewer, NOW).find(saved.id)
    again = actions.publish(
        draft, broadcast_id=saved.id, version=saved.version, by=cast["alice"], now=NOW, idempotency_key="k"
    )
    assert (again.id, again.is_new, published.is_new) == (saved.id, False, True)


def test_plan_is_edited_with_its_audience_and_its_time(cast):
    broadcast_id = publish_message(cast["alice"], build_role_message("ops", scheduledAt=LATER))
    much_later = clock.to_rfc3339(NOW + timedelta(days=3))
    edit(broadcast_id, cast["alice"], targetType="SELECTED", targetIds=["charlie"], scheduledAt=much_later)
    broadcast = found(broadcast_id)
    assert (broadcast.version, clock.to_rfc3339(broadcast.scheduled_at)) == ("2-SCHEDULED", much_later)
    scheduler.tick(NOW + timedelta(hours=2))
    assert found(broadcast_id).status == "SCHEDULED"
    scheduler.tick(NOW + timedelta(days=3) - timedelta(minutes=1))
    scheduler.tick(NOW + timedelta(days=3))
    assert Inbox(cast["charlie"].viewer, clock.now()).find(broadcast_id)
    assert not Inbox(cast["bob"].viewer, clock.now()).find(broadcast_id)
    with pytest.raises(Invalid):
        edit(publish_message(cast["alice"], build_message(scheduledAt=LATER)), cast["alice"], scheduledAt=None)


# ---- the moment in which it can be undone


def test_held_broadcast_is_in_no_log_until_its_moment_has_passed(cast):
    held = actions.publish(parse_draft(build_message(), now=NOW), by=cast["alice"], now=NOW, undo_seconds=10)
    assert (found(held.id).status, found(held.id).is_held) == ("SCHEDULED", True)
    assert log.get_head().seq == 0
    assert Inbox(cast["bob"].viewer, NOW).list_page(InboxFilters()) == []
    assert scheduler.tick(NOW + timedelta(seconds=9.9)) == NOW + timedelta(seconds=10)
    assert log.get_head().seq == 0
    scheduler.tick(NOW + timedelta(seconds=10))
    broadcast = found(held.id)
    assert (broadcast.status, broadcast.is_held, broadcast.scheduled_at) == ("ACTIVE", False, None)
    with pytest.raises(IllegalTransition, match="already been sent"):
        edits.withdraw_broadcast(held.id, by=cast["alice"], now=NOW)


def test_undone_broadcast_is_a_draft_and_never_goes_out(cast):
    held = actions.publish(parse_draft(build_message(), now=NOW), by=cast["alice"], now=NOW, undo_seconds=10)
    edits.withdraw_broadcast(held.id, by=cast["alice"], now=NOW)
    scheduler.tick(NOW + timedelta(hours=1))
    broadcast = found(held.id)
    assert (broadcast.status, broadcast.is_held, broadcast.scheduled_at) == ("DRAFT", False, None)
    assert acts(held.id) == ["held", "withdrawn"]
    assert log.get_head().seq == 0
    edits.send_delayed(held.id, by=cast["alice"], now=NOW, until=NOW + timedelta(seconds=10))
    scheduler.tick(NOW + timedelta(seconds=10))
    assert found(held.id).status == "ACTIVE"


def test_what_waits_for_later_is_not_held(cast):
    planned = actions.publish(
        parse_draft(build_message(scheduledAt=LATER), now=NOW), by=cast["alice"], now=NOW, undo_seconds=10
    )
    assert (found(planned.id).status, found(planned.id).is_held) == ("SCHEDULED", False)


# ---- putting away


@pytest.mark.parametrize(
    "raw",
    [
        build_message(),
        build_role_message("ops", "admin", targetMatch="ALL"),
        build_user_message("bob", exceptRoles=["admin"]),
    ],
)
def test_duplicate_is_a_draft_with_the_same_words_and_audience(cast, raw):
    people = {"targetMatch": "ANY"} if raw["targetType"] != "ROLE" else {}
    original = publish_message(cast["alice"], raw | people | {"draft": True, "category": "News", "scheduledAt": LATER})
    copy = edits.duplicate(original, by=cast["alice"], now=NOW)
    was, now = edits.to_public_fields(found(original)), edits.to_public_fields(found(copy.id))
    assert now == was | {"scheduledAt": None}
    assert (found(copy.id).status, found(copy.id).revision) == ("DRAFT", 1)


def test_deleted_draft_leaves_every_list_but_the_archive(cast):
    draft, live = publish_message(cast["alice"], build_message(draft=True)), publish_message(cast["alice"])
    actions.discard_draft(draft, by=cast["alice"], now=NOW)
    assert found(draft).archived_at == NOW
    assert acts(draft)[-1] == "discarded"
    with pytest.raises(IllegalTransition):
        actions.discard_draft(live, by=cast["alice"], now=NOW)


def test_only_what_has_ended_is_archived(cast):
    live = publish_message(cast["alice"])
    with pytest.raises(IllegalTransition, match="Recall it first"):
        actions.archive(live, by=cast["alice"], now=NOW)
    actions.cancel(live, reason="Wrong", by=cast["alice"], now=NOW)
    for _ in range(2):
        actions.archive(live, by=cast["alice"], now=NOW)
    assert acts(live) == ["published", "cancelled", "archived"]


def test_audience_that_shrank_to_nobody_is_refused_when_sent(cast):
    draft = publish_message(cast["alice"], build_user_message("charlie", draft=True))
    people_actions.disable_user(cast["charlie"].user_id, by=load_actor("alice"), now=NOW)
    with pytest.raises(Invalid, match="charlie"):
        actions.publish(
            parse_draft(build_user_message("charlie"), now=NOW),
            broadcast_id=draft,
            version=None,
            by=cast["alice"],
            now=NOW,
        )
    assert found(draft).status == "DRAFT"
