"""Alerts on opening a page, on whichever page or site they were dismissed before."""

from datetime import timedelta

import pytest
import time_machine

from broadcast.actions import edits, reminders, users
from broadcast.actions import receipts as actions
from broadcast.domain import clock
from broadcast.store import log
from broadcast.store.inbox import Inbox, InboxFilters
from tests.integration.web.api.test_api import publish
from tests.support.builders import build_message, build_user_message, load_actor

ANY = {"version": None}


def waiting(person) -> list[int]:
    told = person.get("/inbox/alerts").json
    assert [item["id"] for item in person.get("/api/user/alerts").json["items"]] == told["waiting"]
    assert set(told["since"]) == {str(id) for id in told["waiting"]}
    return told["waiting"]


@pytest.fixture
def later():
    """`with later(minutes=5)`: that long after the test began."""
    start = clock.now()
    return lambda **span: time_machine.travel(start + timedelta(**span), tick=True)


def show_again(app, broadcast_id: int) -> None:
    with app.app_context():
        edits.edit(
            broadcast_id, {"title": "As corrected"}, by=load_actor("alice"), now=clock.now(), notify_again=True, **ANY
        )


def remind(app, broadcast_id: int) -> None:
    with app.app_context():
        reminders.remind(broadcast_id, by=load_actor("alice"), now=clock.now())


def test_urgent_comes_before_high_however_many_of_these_are_newer(app, client):
    bob = client("bob")
    urgent = [publish(app, build_message(priority="URGENT")) for _ in range(2)]
    high = [publish(app, build_message(priority="HIGH")) for _ in range(5)]
    assert waiting(bob) == urgent + high[-3:]


def test_newcomer_is_interrupted_only_by_what_still_needs_something_of_them(app, client):
    client("alice")
    for _ in range(9):
        publish(app, build_message(priority="HIGH"))
    urgent, must = (
        publish(app, build_message(priority="URGENT")),
        publish(app, build_message(priority="HIGH", requiresAck=True)),
    )
    for _ in range(9):
        publish(app, build_message(priority="HIGH"))
    with app.app_context():
        users.create_user("dora", "correct horse battery", roles=(), by=load_actor("alice"), now=clock.now())
    dora = client("dora")
    assert waiting(dora) == [urgent, must]
    since = publish(app, build_message(priority="HIGH"))
    assert waiting(dora) == [urgent, must, since]


def test_account_made_long_ago_is_new_until_its_first_sign_in(app, client):
    client("alice")
    with app.app_context():
        users.create_user("dora", "correct horse battery", roles=(), by=load_actor("alice"), now=clock.now())
    publish(app, build_message(priority="HIGH"))
    dora = client()
    dora.post("/login", {"username": "dora", "password": "correct horse battery"})
    assert waiting(dora) == []
    since = publish(app, build_message(priority="HIGH"))
    dora.post("/login", {"username": "dora", "password": "correct horse battery"})
    assert waiting(dora) == [since]


def test_what_the_person_silenced_takes_no_place_of_what_they_want_to_hear(app, client):
    bob = client("bob")
    bob.send("PUT", "/api/user/preferences", {"mutedCategories": ["News"]})
    heard = publish(app, build_message(priority="HIGH"))
    for _ in range(4):
        publish(app, build_message(priority="HIGH", category="News"))
    assert waiting(bob) == [heard]


@pytest.mark.parametrize("way", ["form", "json", "seen"])
def test_alert_put_away_in_one_place_is_away_everywhere_and_the_message_stays_unread(app, client, way):
    bob, elsewhere = client("bob"), client("bob")
    high = publish(app, build_message(priority="HIGH"))
    assert waiting(elsewhere) == [high]
    if way == "form":
        answer = bob.post(f"/inbox/{high}/dismiss", headers={"Accept": "application/json"}).json
        assert (answer["kind"], answer["ids"], answer["unread"]) == ("dismissed", [high], 1)
    elif way == "json":
        assert bob.send("POST", "/api/user/messages/dismiss", {"broadcastIds": [high]}).json == {"unread": 1}
    else:
        assert bob.post("/inbox/seen", {"ids": str(high), "aside": "yes"}).status_code == 204
    assert waiting(elsewhere) == []
    assert elsewhere.get("/inbox/count").json["version"] == 1  # so that pages which hear no signal find out


def test_nobody_puts_away_what_is_not_for_them_or_without_a_csrf_token(app, client):
    bob, theirs = client("bob"), publish(app, build_user_message("charlie", priority="HIGH"))
    mine = publish(app, build_message(priority="HIGH"))
    assert bob.post(f"/inbox/{theirs}/dismiss").status_code == 404
    assert bob.send("POST", "/api/user/messages/dismiss", {"broadcastIds": [theirs]}).status_code == 404
    assert bob.post("/inbox/seen", {"ids": str(theirs), "aside": "yes"}).status_code == 204
    assert bob.http.post(f"/inbox/{mine}/dismiss").status_code == 403
    assert waiting(client("charlie")) == [theirs, mine]
    assert waiting(bob) == [mine]


def test_putting_away_is_no_way_around_an_urgent_acknowledgement(app, client):
    bob, must = client("bob"), publish(app, build_message(priority="URGENT", requiresAck=True))
    bob.post(f"/inbox/{must}/dismiss")
    assert waiting(bob) == [must]
    bob.post(f"/inbox/{must}/acknowledge")
    assert waiting(bob) == []


@pytest.mark.parametrize("priority", ["NORMAL", "HIGH", "URGENT"])
@pytest.mark.parametrize("before", ["dismiss", "read", "seen"])
def test_shown_again_it_reaches_who_was_away_whatever_they_had_done_with_it(app, client, later, priority, before):
    bob, sent = client("bob"), publish(app, build_message(priority=priority))
    if before == "seen":
        bob.post("/inbox/seen", {"ids": str(sent), "aside": "yes"})
    else:
        bob.post(f"/inbox/{sent}/{before}")
    assert waiting(bob) == []
    with later(minutes=5):
        show_again(app, sent)
        assert waiting(bob) == [sent]
        bob.post(f"/inbox/{sent}/dismiss")
        assert waiting(bob) == []


def test_reminder_reaches_who_was_away_and_only_who_is_missing(app, client, later):
    bob, charlie = client("bob"), client("charlie")
    sent = publish(app, build_message(priority="HIGH", requiresAck=True))
    for person in (bob, charlie):
        person.post(f"/inbox/{sent}/read")
        person.post(f"/inbox/{sent}/dismiss")
    charlie.post(f"/inbox/{sent}/acknowledge")
    assert waiting(bob) == waiting(charlie) == []
    with later(minutes=5):
        remind(app, sent)
        assert (waiting(bob), waiting(charlie)) == ([sent], [])


def test_quiet_edit_and_low_priority_interrupt_nobody(app, client, later):
    bob = client("bob")
    sent, low = publish(app, build_message(priority="HIGH")), publish(app, build_message(priority="LOW"))
    bob.post(f"/inbox/{sent}/dismiss")
    with later(minutes=5), app.app_context():
        edits.edit(sent, {"title": "A comma"}, by=load_actor("alice"), now=clock.now(), **ANY)
        edits.edit(low, {"title": "Low"}, by=load_actor("alice"), now=clock.now(), notify_again=True, **ANY)
    with later(minutes=6):
        assert waiting(bob) == []


def views_of(by, now) -> dict[str, list[int]]:
    views = ("inbox", "unread", "archived", "snoozed")
    found = {view: [item.card.id for item in Inbox(by.viewer, now).list_page(InboxFilters(view))] for view in views}
    counted = Inbox(by.viewer, now).count_views()
    assert [len(found[view]) for view in views] == [counted.inbox, counted.unread, counted.archived, counted.snoozed]
    return found


def test_shown_again_comes_back_from_the_archive_and_out_of_its_sleep(app, client):
    client("bob")
    archived, asleep = publish(app), publish(app)
    now = clock.now()
    with app.app_context():
        bob = load_actor("bob")
        actions.archive([archived], by=bob, now=now)
        actions.snooze([asleep], until=now + timedelta(days=1), by=bob, now=now)
        later = now + timedelta(minutes=5)
        for sent in (archived, asleep):
            edits.edit(sent, {"title": "New"}, by=load_actor("alice"), now=later, notify_again=True, **ANY)
        both = [asleep, archived]
        assert views_of(bob, later) == {"inbox": both, "unread": both, "archived": [], "snoozed": []}
        items = Inbox(bob.viewer, later).list_page(InboxFilters())
        assert [(item.archived_at, item.snoozed_until, item.is_back) for item in items] == [(None, None, False)] * 2
        # nobody is told once more when the time of the former sleep has come
        version = Inbox(bob.viewer, later).count_views().version
        actions.notify_ended_snoozes(now + timedelta(days=2))
        assert Inbox(bob.viewer, now + timedelta(days=2)).count_views().version == version
        # put away once more it stays away
        actions.archive([archived], by=bob, now=now + timedelta(days=3))
        actions.snooze([asleep], until=now + timedelta(days=9), by=bob, now=now + timedelta(days=3))
        day = now + timedelta(days=4)
        assert views_of(bob, day) == {"inbox": [], "unread": [], "archived": [archived], "snoozed": [asleep]}


def test_all_marked_read_includes_what_came_back_from_the_archive(app, client):
    client("bob")
    sent, now = publish(app), clock.now()
    with app.app_context():
        bob = load_actor("bob")
        actions.archive([sent], by=bob, now=now)
        later = now + timedelta(minutes=5)
        edits.edit(sent, {"title": "New"}, by=load_actor("alice"), now=later, notify_again=True, **ANY)
        actions.mark_all_read(InboxFilters(), through=log.get_head().seq, by=bob, now=later)
        assert views_of(bob, later)["unread"] == []
