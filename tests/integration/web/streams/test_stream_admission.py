"""Admission control: a few streams open at a time, none is refused for that, and pages do not wait behind them."""

from collections.abc import Iterator

import gevent
import pytest
from gevent.event import Event

from broadcast.actions import tokens
from broadcast.domain import clock
from broadcast.domain.actor import SYSTEM
from broadcast.store import credentials
from broadcast.store import users as known
from broadcast.web.core import stream_admission


class SlowDatabase:
    """Answers who a token belongs to once `answers` is set; counts who waits for that at a time."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch):
        self.answers, self.asking, self.most = Event(), 0, 0
        self.asked = Event()
        self._of_token = credentials.find_by_api_token
        monkeypatch.setattr(credentials, "find_by_api_token", self.of_token)

    def of_token(self, token_hash: str):
        self.asking += 1
        self.most = max(self.most, self.asking)
        self.asked.set()
        self.answers.wait(10)
        self.asking -= 1
        return self._of_token(token_hash)


@pytest.fixture
def database(monkeypatch: pytest.MonkeyPatch) -> SlowDatabase:
    return SlowDatabase(monkeypatch)


@pytest.fixture
def open_streams(app, client, database) -> Iterator:
    """`open_streams(count)` asks for that many streams at once, by Bob's token; returns greenlets of their first bytes."""
    client()
    with app.app_context():
        bob = known.get_by_username("bob")
        token = tokens.create_token(bob.id, scopes=["inbox"], label="a program", by=SYSTEM, now=clock.now())
    responses = []

    def one() -> str:
        with app.test_client() as browser:
            response = browser.get("/api/sse/connect", headers={"Authorization": f"Bearer {token}"}, buffered=False)
            responses.append(response)
            return next(iter(response.response)).decode()

    yield lambda count: [gevent.spawn(one) for _ in range(count)]
    for response in responses:
        response.close()


@pytest.fixture
def app(make_app):
    return make_app(streams_per_user=100)


@pytest.fixture
def at_once(settings) -> int:
    return stream_admission.get_max_concurrent_openings(settings)


def test_streams_are_opened_a_few_at_a_time_and_none_is_refused(open_streams, database, at_once):
    opening = open_streams(40)
    database.asked.wait(10)
    database.answers.set()
    gevent.joinall(opening, timeout=20)
    assert ["CONNECTED" in stream.value for stream in opening] == [True] * 40
    assert database.most == at_once


def test_streams_leave_database_connections_to_pages(settings):
    on_a_server = settings.model_copy(update={"database_url": "postgresql://somebody@localhost/b"})
    assert 1 < stream_admission.get_max_concurrent_openings(on_a_server) < on_a_server.database_pool_size


def test_pages_do_not_stand_behind_streams(open_streams, database, client):
    opening = open_streams(40)
    database.asked.wait(10)
    assert client("charlie").get("/inbox").status_code == 200
    assert not any(stream.ready() for stream in opening)
    database.answers.set()
    gevent.joinall(opening, timeout=20)


def test_who_waits_in_vain_is_told_to_come_back(open_streams, database, at_once, monkeypatch):
    monkeypatch.setattr(stream_admission, "_ADMISSION_TIMEOUT_SECONDS", 0.05)
    opening = open_streams(at_once + 1)
    refused = gevent.wait(opening, count=1, timeout=10)
    assert ["event: BUSY" in stream.value for stream in refused] == [True]
    database.answers.set()
    gevent.joinall(opening, timeout=20)
    assert sum("CONNECTED" in stream.value for stream in opening) == at_once
