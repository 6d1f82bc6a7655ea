"""What the Kafka bridge processes in one transaction."""

import json
from types import SimpleNamespace

import pytest
from gevent.event import Event as Bell

from broadcast.actions import inbound_events
from broadcast.base.errors import TemporarilyUnavailable
from broadcast.config.settings import SETTINGS
from broadcast.domain import clock
from broadcast.domain.inbound import InboundEvent, InboundRecord, RecordPosition, Rejection
from broadcast.ingest.kafka.bridge import _ConsumerSession
from broadcast.ingest.kafka.record_batches import DecodedRecord
from broadcast.store import log
from tests.support.inbound_records import build_cloud_event

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


class Full(OneByOne):
    """A broker with so much to give that every poll is full; notes what it is asked, in order."""

    def __init__(self, count: int):
        super().__init__(count)
        self.asked: list[str] = []

    def poll(self, *, timeout_ms: int, max_records: int = inbound_events.MAX_BATCH_EVENTS) -> dict:
        self.asked.append("poll")
        most = min(max_records, inbound_events.MAX_BATCH_EVENTS)
        given, self.waiting = self.waiting[:most], self.waiting[most:]
        return {_WHERE: given} if given else {}

    def close(self, **options: object) -> None:
        pass

    def commit(self, offsets: dict, *, timeout_ms: int) -> None:
        super().commit(offsets, timeout_ms=timeout_ms)
        self.asked.append("commit")


def _raw(n: int) -> DecodedRecord:
    value = json.dumps(build_cloud_event(id=str(n))).encode()
    headers = (("content-type", b"application/cloudevents+json"),)
    return DecodedRecord(
        InboundRecord(value, headers=headers, position=RecordPosition("news", 0, n, 1_790_000_000_000 + n)), n + 1
    )


def _reading(app, consumer: OneByOne, *, is_alone: bool = True) -> _ConsumerSession:
    return _ConsumerSession(app, SETTINGS.of(app), consumer, stop_event=Bell(), is_sole_reader=is_alone)


def _turns(app, consumer: OneByOne, *, is_alone: bool) -> list[int]:
    reading = _reading(app, consumer, is_alone=is_alone)
    while consumer.waiting:
        reading.process_batch()
    reading.finish_batch()
    return consumer.committed


def test_events_that_follow_closely_share_a_transaction(in_app):
    assert _turns(in_app, OneByOne(8), is_alone=True) == [1, 8]


def test_transaction_has_its_bound_however_many_follow(in_app, monkeypatch):
    monkeypatch.setattr(inbound_events, "MAX_BATCH_EVENTS", 3)
    assert _turns(in_app, OneByOne(8), is_alone=True) == [1, 4, 7, 8]


def test_member_of_a_group_commits_after_each_poll(in_app):
    assert _turns(in_app, OneByOne(3), is_alone=False) == [1, 2, 3]


def test_next_batch_is_polled_while_one_is_written_and_offsets_follow_in_order(in_app, monkeypatch):
    monkeypatch.setattr(inbound_events, "MAX_BATCH_EVENTS", 3)
    consumer = Full(9)
    assert _turns(in_app, consumer, is_alone=True) == [3, 6, 9]
    assert consumer.asked == ["poll", "poll", "commit", "poll", "commit", "commit"]


def test_neither_a_batch_that_cannot_be_written_nor_what_follows_is_committed(in_app, monkeypatch):
    monkeypatch.setattr(inbound_events, "MAX_BATCH_EVENTS", 3)
    consumer = Full(9)
    reading = _reading(in_app, consumer)
    reading.process_batch()
    reading.finish_batch()
    monkeypatch.setattr(inbound_events, "ingest", _busy)
    reading.process_batch()
    for _ in range(2):
        with pytest.raises(TemporarilyUnavailable):
            reading.process_batch()
    assert consumer.committed == [3]


def test_batch_under_way_is_written_though_the_offsets_before_it_cannot_be_committed(in_app, monkeypatch):
    monkeypatch.setattr(inbound_events, "MAX_BATCH_EVENTS", 3)
    consumer = Full(6)
    monkeypatch.setattr(consumer, "commit", _busy)
    reading = _reading(in_app, consumer)
    reading.process_batch()
    with pytest.raises(TemporarilyUnavailable):
        reading.process_batch()
    reading.close()
    with in_app.app_context():
        assert log.get_head().seq == 6


def test_batch_that_is_polled_when_the_worker_ends_is_left_to_another(in_app, monkeypatch):
    monkeypatch.setattr(inbound_events, "MAX_BATCH_EVENTS", 3)
    consumer = Full(6)
    reading = _reading(in_app, consumer)
    reading.process_batch()
    reading._stop_event.set()
    reading.process_batch()
    reading.finish_batch()
    assert consumer.committed == [3]


def test_dead_letter_of_the_batch_under_way_is_forwarded_though_one_forwards_meanwhile(in_app):
    reading = _reading(in_app, Full(0))

    def forward() -> bool:
        if forwarded.append(1) or len(forwarded) == 1:
            reading._write_batch([InboundEvent(_raw(1).record, Rejection("fields", "It has none."))], clock.now())
        return True

    forwarded: list[int] = []
    reading._forwarder = SimpleNamespace(forward_pending=forward)
    for _ in range(3):
        reading.process_batch()
    assert len(forwarded) == 2


class Grouped(OneByOne):
    """A consumer of a group whose offsets at the brokers others may set."""

    def __init__(self, count: int):
        super().__init__(count)
        self.there: dict = {}
        self._coordinator = self

    def fetch_committed_offsets(self, partitions: list, *, timeout_ms: int) -> dict:
        return {where: SimpleNamespace(offset=offset) for where, offset in self.there.items() if where in partitions}

    def assignment(self) -> set:
        return {_WHERE}

    def commit(self, offsets: dict, *, timeout_ms: int) -> None:
        super().commit(offsets, timeout_ms=timeout_ms)
        self.there[_WHERE] = offsets[_WHERE].offset


def test_second_reader_of_the_group_is_noticed_and_told_for_a_while(in_app, monkeypatch):
    consumer = Grouped(2)
    reading = _reading(in_app, consumer)
    reading._committed_offsets = reading._fetch_committed_offsets()
    reading.process_batch()
    reading.finish_batch()
    reading._detect_rival_consumer()
    assert reading._rival_until == 0
    consumer.there[_WHERE] = 77
    reading._detect_rival_consumer()
    assert reading._rival_until > 0
    told_until = reading._rival_until
    reading._detect_rival_consumer()
    assert reading._rival_until == told_until


def _busy(*args: object, **options: object) -> None:
    raise TemporarilyUnavailable
