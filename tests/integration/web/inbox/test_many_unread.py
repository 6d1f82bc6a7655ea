"""F26: ten thousand unread messages, and a page as small as with a hundred."""

import pytest
from flask import Flask
from sqlalchemy import insert, update

from broadcast.domain import clock
from broadcast.store import log
from broadcast.store.models import Broadcast, LogHead
from broadcast.store.transactions import write_transaction
from broadcast.streams.hub import HUB
from tests.support.builders import load_actor, publish_message
from tests.support.stream_reader import StreamReader
from tests.support.users import BrowserClient

MANY = 10_000
_PAGE, _REPLAY = 50, 200


@pytest.fixture
def bob(app: Flask, client) -> BrowserClient:
    client()
    with app.app_context():
        first = publish_message(load_actor("alice"), now=clock.now())
        with write_transaction() as session:
            row = session.get(Broadcast, first)
            same = {c.name: getattr(row, c.name) for c in Broadcast.__table__.columns if c.name not in ("id", "seq")}
            session.execute(insert(Broadcast.__table__), [same | {"seq": n} for n in range(2, MANY + 1)])
            session.execute(update(LogHead).values(seq=MANY))
        HUB.of(app).start(log.get_head())
    return BrowserClient.for_user(app, "bob")


def test_ten_thousand_unread_are_a_page_and_a_count(bob):
    """F26"""
    page = bob.get("/inbox").get_data(as_text=True)
    assert 0 < page.count('id="card-') <= _PAGE
    assert "10,000" in page
    assert len(page) < 400_000, "a page is small, whatever waits behind it"
    listed = bob.get("/api/user/messages?limit=200").json
    assert len(listed["items"]) == 200
    assert listed["next"]


def test_stream_that_begins_without_a_cursor_is_sent_the_newest_of_them_and_the_count(bob):
    stream = StreamReader(bob.http)
    frames = stream.read_until("CONNECTED")
    assert len(frames) - 1 <= _REPLAY
    assert frames[-1].data["unread"] == MANY
    stream.close()
