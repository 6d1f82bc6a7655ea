"""Recipients can still find ended broadcasts, read-only; recalled ones are gone."""

import re
from datetime import timedelta

import pytest

from broadcast.actions import broadcasts, receipts, retention, users
from broadcast.actions.retention import RetentionPolicy
from broadcast.domain import clock
from broadcast.domain.actor import SYSTEM
from broadcast.store import receipts as stored
from broadcast.store.transactions import write_transaction
from broadcast.streams.receipt_buffer import RECEIPT_BUFFER
from tests.support.builders import build_message, build_role_message, expire_broadcast, load_actor, publish_message

ENDED = "/inbox?view=ended"
SENTENCE = "This message has ended. You can only read it."


def receive(app, client) -> None:
    """Everything that is live reaches this client's inbox, and that is written down."""
    client.get("/inbox")
    with app.app_context():
        RECEIPT_BUFFER.of(app).flush(clock.now())


def end(app, *ids: int) -> None:
    with app.app_context():
        for broadcast_id in ids:
            expire_broadcast(broadcast_id, now=clock.now())


def titles(client, path: str = ENDED) -> list[str]:
    page = client.get(path).get_data(as_text=True)
    return re.findall(r'class="card-title"[^>]*><a [^>]*>([^<]+)</a>', page)


@pytest.fixture
def bob(client):
    return client("bob")


@pytest.fixture
def shift(app, bob) -> int:
    """A message to everyone that Bob received and whose time is over."""
    with app.app_context():
        shift = publish_message(
            load_actor("alice"), build_message(title="Shift plan", category="News", requiresAck=True)
        )
    receive(app, bob)
    end(app, shift)
    return shift


def test_ended_message_is_found_by_who_received_it(app, bob, client, shift):
    assert titles(bob, "/inbox") == []
    assert titles(bob) == ["Shift plan"]
    assert titles(client("charlie")) == []  # never had it
    [item] = bob.get("/api/user/messages?view=ended").json["items"]
    assert (item["title"], item["endedAt"] is not None) == ("Shift plan", True)
    assert bob.get("/inbox/count").json["counts"]["ended"] == 1
    page = bob.get(ENDED).get_data(as_text=True)
    assert re.search(r'data-count="ended">1<', page)
    assert bob.get("/api/user/messages?view=all").json["items"] == []


def test_message_whose_time_is_over_is_there_before_the_scheduler_has_run(app, bob, monkeypatch):
    ends_at = clock.now() + timedelta(minutes=1)
    with app.app_context():
        publish_message(load_actor("alice"), build_message(expiresAt=clock.to_rfc3339(ends_at)))
    receive(app, bob)
    monkeypatch.setattr(clock, "now", lambda: ends_at + timedelta(seconds=1))
    assert (titles(bob, "/inbox"), titles(bob)) == ([], ["Lifts"])


def test_nothing_can_be_done_with_it_and_the_reason_is_told(bob, shift):
    page = bob.get(ENDED).get_data(as_text=True)
    card = re.search(r"<article.*</article>", page, re.DOTALL)[0]
    for gone in ('data-act="', "Select ", "I have read and understood", "data-unread ", "data-ack "):
        assert gone not in card
    assert 'id="read-all"' not in page
    assert "It ended before you acknowledged it." in page
    for verb in ("read", "unread", "archive", "unarchive", "acknowledge", "snooze"):
        answer = bob.post(f"/inbox/{shift}/{verb}", {"preset": "tomorrow"}, headers={"Accept": "application/json"})
        assert (answer.status_code, answer.json["detail"]) == (409, SENTENCE)
    assert bob.send("POST", "/api/user/messages/read-all", json={"view": "ended"}).status_code == 422
    assert bob.post("/inbox/read-all", {"view": "ended", "through": "99"}).status_code == 303


def test_it_has_a_page_of_its_own_to_read(bob, client, shift):
    page = bob.get(f"/inbox/{shift}").get_data(as_text=True)
    assert "Shift plan" in page
    assert 'href="/inbox?view=ended"' in page
    assert 'id="snooze"' not in page
    assert client("charlie").get(f"/inbox/{shift}").status_code == 404


def test_what_was_recalled_is_nowhere(app, bob):
    with app.app_context():
        recalled = publish_message(load_actor("alice"))
    receive(app, bob)
    with app.app_context():
        broadcasts.cancel(recalled, reason="Wrong", by=load_actor("alice"), now=clock.now())
    assert titles(bob) == []
    assert bob.get(f"/inbox/{recalled}").status_code == 404
    assert bob.post(f"/inbox/{recalled}/read").status_code == 404


def test_who_has_lost_the_role_sees_it_no_more_and_who_got_it_later_never_did(app, bob, client):
    charlie = client("charlie")
    with app.app_context():
        ops = publish_message(load_actor("alice"), build_role_message("ops", title="For ops"))
    receive(app, bob)
    receive(app, charlie)
    end(app, ops)
    assert (titles(bob), titles(charlie)) == (["For ops"], [])
    with app.app_context():
        users.set_roles(load_actor("bob").user_id, [], by=SYSTEM, now=clock.now())
        users.set_roles(load_actor("charlie").user_id, ["ops"], by=SYSTEM, now=clock.now())
    assert (titles(bob), titles(charlie)) == ([], [])
    assert bob.get(f"/inbox/{ops}").status_code == 404


def test_archived_and_snoozed_copies_are_there_too(app, bob):
    with app.app_context():
        ids = [publish_message(load_actor("alice"), build_message(title=title)) for title in ("One", "Two")]
        receipts.archive(ids[:1], by=load_actor("bob"), now=clock.now())
        receipts.snooze(ids[1:], until=clock.now() + timedelta(days=1), by=load_actor("bob"), now=clock.now())
    end(app, *ids)
    assert titles(bob) == ["Two", "One"]
    counts = bob.get("/inbox/count").json["counts"]
    assert (counts["archived"], counts["snoozed"], counts["ended"]) == (0, 0, 2)


def test_view_is_searched_filtered_and_paged_like_the_others(app, bob, monkeypatch):
    monkeypatch.setattr("broadcast.web.inbox.pages.PAGE_SIZE", 2)
    with app.app_context():
        ids = [
            publish_message(load_actor("alice"), build_message(title=f"Übung {n}", category=f"C{n % 2}"))
            for n in range(5)
        ]
    receive(app, bob)
    receive(app, bob)
    with app.app_context(), write_transaction() as session:
        stored.set_timestamp(session, [(id, load_actor("bob").user_id) for id in ids], "delivered_at", at=clock.now())
    end(app, *ids)
    assert titles(bob, f"{ENDED}&q=ubung") == ["Übung 4", "Übung 3"]
    assert titles(bob, f"{ENDED}&category=C1") == ["Übung 3", "Übung 1"]
    page = bob.get(ENDED).get_data(as_text=True)
    assert '<option value="C1">' in page
    more = re.search(r'id="load-more" href="([^"]+)"', page)[1].replace("&amp;", "&")
    assert titles(bob, more) == ["Übung 2", "Übung 1"]
    first = bob.get("/api/user/messages?view=ended&limit=3").json
    rest = bob.get(f"/api/user/messages?view=ended&limit=3&after={first['next']}").json
    assert [item["id"] for item in first["items"] + rest["items"]] == ids[::-1]
    cards = bob.get(f"/inbox/cards?view=ended&ids={ids[0]},{ids[1]}").get_data(as_text=True)
    assert cards.count("<article") == 2


def test_retention_takes_it_out_of_the_view(app, bob, shift):
    with app.app_context():
        retention.delete_expired(RetentionPolicy(0, 0, receipts_days=1), now=clock.now() + timedelta(days=2))
    assert titles(bob) == []


def test_empty_view_says_what_will_be_there(bob):
    assert "No ended messages" in bob.get(ENDED).get_data(as_text=True)
