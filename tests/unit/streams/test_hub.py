"""The hub without a transport: limits, memory, delivery reports."""

import gevent
import pytest

from broadcast.domain.audience import EveryoneAudience, Viewer, make_role_audience, make_user_audience
from broadcast.domain.events import Cursor, Event, EventType, encode_compact_json
from broadcast.streams import hub as hub_module
from broadcast.streams import sse
from broadcast.streams.connection_index import HEARTBEAT_SLOTS
from broadcast.streams.hub import Hub, StaleIdentity, StreamLimitExceeded, StreamLimits
from tests.support.hub_clients import NOW, make_hub, make_message_event, subscribe, wait_until

BOB = Viewer(2, frozenset({"ops"}))


@pytest.mark.parametrize(
    ("limits", "told"),
    [
        ({"streams": 2}, "BUSY"),
        ({"per_user": 2}, "CONNECTION_LIMIT_REACHED"),
        ({"per_address": 2}, "CONNECTION_LIMIT_REACHED"),
    ],
)
def test_stream_above_a_limit_is_refused_and_leaves_nothing_behind(limits, told):
    hub = make_hub(**limits)
    first = subscribe(hub, BOB)
    subscribe(hub, BOB)
    with pytest.raises(StreamLimitExceeded) as refused:
        subscribe(hub, BOB)
    assert refused.value.event_name == told
    assert len(hub) == 2
    hub.close(first, "left")
    subscribe(hub, BOB)


def test_hub_that_has_no_head_yet_or_is_draining_is_busy():
    hub = Hub({"json": sse.encode_event_json})
    with pytest.raises(StreamLimitExceeded):
        hub.subscribe(BOB, representation="json", session="s", address="a", viewer_as_of_seq=0, now=NOW)
    hub.start(Cursor("e", 0))
    hub.drain(0)
    with pytest.raises(StreamLimitExceeded):
        subscribe(hub, BOB)


@pytest.mark.parametrize(
    "steering",
    [
        Event(1, "e", EventType.VIEWER_CHANGED, None, make_user_audience([2]), '{"roles": [], "disabled": false}', NOW),
        Event(1, "e", EventType.SESSION_ENDED, None, make_user_audience([2]), '{"session": "session:2"}', NOW),
    ],
)
def test_roles_read_before_a_change_are_not_believed_after_it(steering):
    hub = make_hub()
    hub.deliver([steering])
    with pytest.raises(StaleIdentity):
        subscribe(hub, BOB, viewer_as_of_seq=0)
    subscribe(hub, BOB, viewer_as_of_seq=1)
    subscribe(hub, Viewer(3), viewer_as_of_seq=0)


def test_nothing_read_before_an_event_that_cannot_be_read_is_believed_after_it():
    hub = make_hub()
    hub.deliver([Event(1, "e", EventType.UNKNOWN, None, EveryoneAudience(), "{}", NOW)])
    with pytest.raises(StaleIdentity):
        subscribe(hub, BOB, viewer_as_of_seq=0)
    subscribe(hub, BOB, viewer_as_of_seq=1)


class Recorder:
    """A wire that remembers whom it wrote to."""

    def __init__(self, written: list):
        self._written = written

    def write(self, connection, data: bytes) -> None:
        self._written.append(connection)

    def end(self, connection) -> None:
        pass


def _record_bytes(written: list[bytes]) -> Recorder:
    transport = Recorder([])
    transport.write = lambda _connection, data: written.append(data)
    return transport


def test_hub_is_calm_except_while_a_message_is_on_its_way():
    hub, seen = make_hub(), []
    wire = Recorder([])
    wire.write = lambda _connection, _data: seen.append(hub.fanout_idle.is_set())
    hub.attach_transport(subscribe(hub, BOB), wire)
    assert hub.fanout_idle.is_set()
    hub.deliver([make_message_event(1)])
    assert seen == [False]
    assert hub.fanout_idle.is_set()


def test_fan_out_that_fails_tells_every_stream_to_load_its_list_anew(monkeypatch):
    hub, written = make_hub(), []
    hub.attach_transport(subscribe(hub, BOB), _record_bytes(written))
    monkeypatch.setattr(hub, "send_many", lambda _connections, _data: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        hub.deliver([make_message_event(1), make_message_event(2)])
    assert hub.fanout_idle.is_set()
    assert [data.split(b"event: ")[1].split(b"\n")[0] for data in written] == [b"RESET"]


def test_event_that_cannot_be_encoded_is_a_reset_and_costs_no_other_event():
    def encode(event: Event) -> bytes:
        return sse.encode_event_json(event) if event.seq != 2 else 1 / 0

    hub, written = Hub({"json": encode, "html": sse.encode_event_json}), []
    hub.start(Cursor("e", 0))
    hub.attach_transport(subscribe(hub, BOB), _record_bytes(written))
    hub.deliver([make_message_event(seq) for seq in (1, 2, 3)])
    [frames] = written
    assert [frame.split(b"\n")[:2] for frame in frames.split(b"\n\n") if frame] == [
        [b"id: e-1", b"event: MESSAGE"],
        [b"id: e-2", b"event: RESET"],
        [b"id: e-3", b"event: MESSAGE"],
    ]


def test_role_broadcast_touches_only_the_streams_of_that_role():
    hub = make_hub()
    written = []
    for n in range(50):
        connection = subscribe(hub, Viewer(n, frozenset({"ops"} if n < 5 else {"sales"})))
        hub.attach_transport(connection, Recorder(written))
    hub.deliver([make_message_event(1, make_role_audience(["ops"]))])
    assert len(written) == 5


def test_each_event_is_encoded_once_for_all_streams():
    encoded = []
    hub = Hub({"json": lambda event: encoded.append(event.seq) or sse.encode_event_json(event)})
    hub.start(Cursor("e", 0))
    for n in range(20):
        subscribe(hub, Viewer(n))
    hub.deliver([make_message_event(1), make_message_event(2)])
    assert encoded == [1, 2]


def test_memory_answers_for_exactly_what_it_holds():
    hub = make_hub(replay_events=10)
    hub.deliver([make_message_event(seq) for seq in range(1, 26)])
    seqs = lambda remembered: [r.event.seq for r in remembered]  # noqa: E731
    assert seqs(hub.replay_buffer.slice(15, 25)) == list(range(16, 26))
    assert seqs(hub.replay_buffer.slice(20, 23)) == [21, 22, 23]
    assert hub.replay_buffer.slice(25, 25) == []
    assert hub.replay_buffer.slice(14, 25) is None, "event 15 is gone"
    assert hub.replay_buffer.slice(20, 26) is None, "event 26 has not come"


def test_hub_warmed_at_start_remembers_what_came_before_it():
    hub = make_hub()
    hub.start(Cursor("e", 9), [make_message_event(seq) for seq in range(5, 10)])
    assert [r.event.seq for r in hub.replay_buffer.slice(6, 9)] == [7, 8, 9]
    assert hub.replay_buffer.slice(3, 9) is None
    assert hub.head == Cursor("e", 9)


def test_people_reached_are_reported_once_whatever_their_tabs():
    reached = []
    hub = Hub({"json": sse.encode_event_json}, on_delivered=lambda event, ids: reached.append((event.seq, sorted(ids))))
    hub.start(Cursor("e", 0))
    for user_id in (2, 2, 3):
        subscribe(hub, Viewer(user_id, frozenset({"ops"})))
    subscribe(hub, Viewer(4))
    removed = Event(
        2,
        "e",
        EventType.MESSAGE_REMOVED,
        1,
        make_role_audience(["ops"]),
        encode_compact_json({"id": 1, "reason": "CANCELLED"}),
        NOW,
    )
    hub.deliver([make_message_event(1, make_role_audience(["ops"])), removed])
    assert reached == [(1, [2, 3])]


class RecordingTransport:
    def __init__(self) -> None:
        self.written: list[bytes] = []

    def write(self, connection, data: bytes) -> None:
        self.written.append(data)

    def end(self, connection) -> None:
        pass


def test_heartbeats_come_after_the_last_client_of_a_fan_out(monkeypatch):
    monkeypatch.setattr(hub_module, "SEND_BATCH_SIZE", 1)
    monkeypatch.setattr(hub_module, "FANOUT_SLICE_SECONDS", -1)  # lets others run after each client
    hub, transport = make_hub(), RecordingTransport()
    for n in range(3):
        hub.attach_transport(subscribe(hub, Viewer(n)), transport)
    gevent.spawn(lambda: [hub.send_heartbeats() for _ in range(HEARTBEAT_SLOTS)])
    hub.deliver([make_message_event(1)])
    wait_until(lambda: len(transport.written) == 6)
    assert transport.written[3:] == [sse.HEARTBEAT_FRAME] * 3
    assert sse.HEARTBEAT_FRAME not in transport.written[:3]


def test_closing_everything_leaves_no_index_behind():
    hub = make_hub()
    connections = [subscribe(hub, Viewer(n % 3, frozenset({"ops", "sales"})), address=str(n)) for n in range(9)]
    for connection in connections:
        hub.close(connection, "left")
    index = hub._index
    leftovers = [index.by_id, index.by_user, index.fanout_groups, index.client_counts, *index.heartbeat_slots]
    assert not any(leftovers)


def test_limits_have_the_defaults_of_the_settings():
    from broadcast.config.settings import Settings

    settings, limits = Settings(), StreamLimits()
    assert settings.streams_per_worker == limits.streams
    assert settings.stream_backlog_bytes == limits.backlog_bytes
    assert settings.replay_events == limits.replay_events
