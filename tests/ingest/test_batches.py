"""What the bridge takes in one transaction."""

import json
from types import SimpleNamespace

import pytest

from broadcast.actions import events
from broadcast.ingest.bridge import _Reading
from tests.ingest.records import an_event

pytestmark = [
    pytest.mark.usefixtures("cast"),
    pytest.mark.filterwarnings("ignore:(read|open)_text is deprecated:DeprecationWarning"),  # kafka-python's
]
_WHERE = ("news", 0)


class OneByOne:
    """A consumer whose broker hands out one record for each poll."""

    def __init__(self, count: int):
        self.waiting = [_raw(n) for n in range(count)]
        self.committed: list[int] = []

    def poll(self, *, timeout_ms: int, max_records: int = 500) -> dict:
        return {_WHERE: [self.waiting.pop(0)]} if self.waiting else {}

    def commit(self, offsets: dict, *, timeout_ms: int) -> None:
        self.committed.append(offsets[_WHERE].offset)


def _raw(n: int) -> SimpleNamespace:
    value = json.dumps(an_event(id=str(n))).encode()
    headers = [("content-type", b"application/cloudevents+json")]
    return SimpleNamespace(
        topic="news", partition=0, offset=n, timestamp=1_790_000_000_000 + n, key=None, value=value, headers=headers
    )


def _turns(app, consumer: OneByOne, *, is_alone: bool) -> list[int]:
    reading = _Reading(app, app.extensions["settings"], consumer, is_alone=is_alone)
    while consumer.waiting:
        reading.turn()
    return consumer.committed


def test_events_that_follow_closely_share_a_transaction(in_app):
    assert _turns(in_app, OneByOne(8), is_alone=True) == [1, 8]


def test_transaction_has_its_bound_however_many_follow(in_app, monkeypatch):
    monkeypatch.setattr(events, "MOST", 3)
    assert _turns(in_app, OneByOne(8), is_alone=True) == [1, 4, 7, 8]


def test_member_of_a_group_commits_after_each_poll(in_app):
    assert _turns(in_app, OneByOne(3), is_alone=False) == [1, 2, 3]
