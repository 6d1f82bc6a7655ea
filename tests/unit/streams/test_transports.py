"""The contract of a stream on both transports: WSGI generator and adopted socket."""

import sys

import gevent
import pytest

from broadcast.domain.audience import Viewer, make_role_audience, make_user_audience
from broadcast.domain.events import Event, EventType, encode_compact_json
from broadcast.streams import hub as hub_module
from broadcast.streams.hub import Hub
from tests.support.hub_clients import NOW, make_hub, make_message_event, serve_clients, subscribe, wait_until

ALICE, BOB, CHARLIE = Viewer(1, frozenset({"admin"})), Viewer(2, frozenset({"ops"})), Viewer(3)


@pytest.fixture(params=["generator", "socket"])
def kind(request) -> str:
    if request.param == "socket" and sys.platform != "linux":
        pytest.skip("there is no epoll on this system")
    return request.param


@pytest.fixture
def hub() -> Hub:
    return make_hub()


@pytest.fixture
def open(kind, hub):
    yield from serve_clients(kind, hub)


def test_event_reaches_its_audience_and_nobody_else(hub, open):
    alice, bob, charlie = (open(subscribe(hub, viewer)) for viewer in (ALICE, BOB, CHARLIE))
    hub.deliver(
        [
            make_message_event(1),
            make_message_event(2, make_role_audience(["ops"])),
            make_message_event(3, make_user_audience([3])),
            make_message_event(4),
        ]
    )
    wait_until(
        lambda: (
            alice.get_message_ids() == [1, 4]
            and bob.get_message_ids() == [1, 2, 4]
            and charlie.get_message_ids() == [1, 3, 4]
        )
    )


def test_every_tab_of_a_person_gets_every_event(hub, open):
    tabs = [open(subscribe(hub, BOB)) for _ in range(3)]
    hub.deliver([make_message_event(1, make_user_audience([2]))])
    wait_until(lambda: all(tab.get_message_ids() == [1] for tab in tabs))
    assert (hub.online_user_ids, len(hub)) == ({2}, 3)


def test_events_between_subscribing_and_opening_come_after_the_prelude_and_only_once(hub, open):
    hub.deliver([make_message_event(1), make_message_event(2)])
    connection = subscribe(hub, BOB)
    hub.deliver([make_message_event(3)])
    connection.preamble = iter([b"id: e-1\n\n", b"", b"id: e-2\n\n"])
    hub.deliver([make_message_event(4)])
    bob = open(connection)
    hub.deliver([make_message_event(5)])
    wait_until(lambda: bob.get_message_ids() == [1, 2, 3, 4, 5])


def test_events_that_the_client_already_has_are_not_sent_again(hub, open):
    bob = open(subscribe(hub, BOB, after=2))  # this worker's tail lags behind the one the client came from
    hub.deliver([make_message_event(1), make_message_event(2), make_message_event(3)])
    wait_until(lambda: bob.get_message_ids() == [3])


def test_many_events_at_once_arrive_whole_and_in_order(hub, open):
    bob = open(subscribe(hub, BOB))
    gevent.spawn(hub.deliver, [make_message_event(seq, text="x" * 300) for seq in range(1, 151)])
    wait_until(lambda: bob.get_message_ids() == list(range(1, 151)))
    assert bob.received.count(b"\n\n") == 150


def test_stream_that_opens_within_a_burst_gets_each_event_once(hub, open):
    burst = gevent.spawn(hub.deliver, [make_message_event(seq, text="x" * 600) for seq in range(1, 151)])
    late = {}
    while not burst.ready():
        through = hub.head.seq
        if through not in late:
            connection = subscribe(hub, Viewer(through))
            connection.preamble = iter([b"id: e-%d\n\n" % seq for seq in range(1, through + 1)])
            late[through] = open(connection)
        gevent.sleep(0)
    assert len(late) > 3
    wait_until(lambda: all(stream.get_message_ids()[-1:] == [150] for stream in late.values()))
    assert all(stream.get_message_ids() == list(range(1, 151)) for stream in late.values())


def test_slow_consumer_is_closed_not_waited_for(kind, open):
    hub = make_hub(backlog_bytes=20_000)
    [give] = [serve_clients(kind, hub)]
    open_here = next(give)
    slow, quick = open_here(subscribe(hub, BOB)), open_here(subscribe(hub, CHARLIE))
    slow.is_paused = True
    for seq in range(1, 201):
        hub.deliver([make_message_event(seq, text="x" * 1000)])
        gevent.sleep(0.001)
    wait_until(lambda: quick.get_message_ids() == list(range(1, 201)))
    assert hub.counters["closed: slow consumer"] == 1
    assert (hub.online_user_ids, len(hub)) == ({3}, 1)
    next(give, None)


def test_client_that_reads_as_fast_as_it_can_stays_open_through_a_burst_of_many_backlogs(kind, monkeypatch):
    monkeypatch.setattr(hub_module, "LAGGING_TIMEOUT_SECONDS", 5)  # the client is in this process, on a busy machine
    hub = make_hub(backlog_bytes=20_000)
    for open_here in serve_clients(kind, hub):
        bob = open_here(subscribe(hub, BOB))
        hub.deliver([make_message_event(seq, text="x" * 2000) for seq in range(1, 301)])
        wait_until(lambda bob=bob: len(bob.get_message_ids()) == 300)
        assert bob.get_message_ids() == list(range(1, 301))
        assert hub.counters["closed: slow consumer"] == 0


def test_client_that_was_behind_and_left_is_remembered_nowhere(hub, open):
    connection = subscribe(hub, BOB)
    hub.deliver([make_message_event(1)])
    hub.deliver([make_message_event(2)])
    assert connection.backlog
    hub.close(connection, "left")
    assert not hub._lagging


def test_one_message_larger_than_the_backlog_is_no_reason_to_close(kind):
    hub = make_hub(backlog_bytes=1024)
    give = serve_clients(kind, hub)
    bob = next(give)(subscribe(hub, BOB))
    hub.deliver([make_message_event(1, text="x" * 200_000)])
    wait_until(lambda: bob.get_message_ids() == [1] and len(bob.received) > 200_000)
    hub.deliver([make_message_event(2)])
    wait_until(lambda: bob.get_message_ids() == [1, 2])
    next(give, None)


def test_client_that_leaves_is_forgotten(hub, open):
    bob, charlie = open(subscribe(hub, BOB)), open(subscribe(hub, CHARLIE))
    bob.disconnect()
    wait_until(lambda: (hub.online_user_ids, len(hub)) == ({3}, 1))
    assert hub.counters["closed: left"] == 1
    hub.deliver([make_message_event(1)])
    wait_until(lambda: charlie.get_message_ids() == [1])


def test_closed_stream_gets_its_last_words_and_ends(hub, open):
    connection = subscribe(hub, BOB)
    bob = open(connection)
    hub.close(connection, "disconnected", b"event: BYE\n\n")
    wait_until(lambda: bob.has_ended)
    assert bob.received == b"event: BYE\n\n"
    hub.close(connection, "again")
    assert hub.counters["closed: disconnected"] == 1
    assert hub.counters["closed: again"] == 0


def test_ended_session_closes_its_streams_only(hub, open):
    here, elsewhere = open(subscribe(hub, BOB, session="session:7")), open(subscribe(hub, BOB, session="session:8"))
    hub.deliver(
        [
            Event(
                1,
                "e",
                EventType.SESSION_ENDED,
                None,
                make_user_audience([2]),
                encode_compact_json({"session": "session:7"}),
                NOW,
            ),
            make_message_event(2),
        ]
    )
    wait_until(lambda: here.has_ended and elsewhere.get_message_ids() == [2])
    assert b"SIGNED_OUT" in here.received
    assert b"SIGNED_OUT" not in elsewhere.received


def changed(seq: int, *names: str, disabled: bool = False) -> Event:
    payload = {"roles": list(names), "disabled": disabled}
    return Event(seq, "e", EventType.VIEWER_CHANGED, None, make_user_audience([2]), encode_compact_json(payload), NOW)


def test_role_taken_away_reaches_open_streams_before_the_next_event(hub, open):
    bob = open(subscribe(hub, BOB))
    hub.deliver(
        [
            make_message_event(1, make_role_audience(["ops"])),
            changed(2, "sales"),
            make_message_event(3, make_role_audience(["ops"])),
            make_message_event(4, make_role_audience(["sales"])),
        ]
    )
    wait_until(lambda: bob.get_message_ids() == [1, 2, 4])
    assert b"event: RESET" in bob.received


def test_disabled_person_loses_every_stream(hub, open):
    tabs = [open(subscribe(hub, BOB)) for _ in range(2)]
    hub.deliver([changed(1, "ops", disabled=True)])
    wait_until(lambda: all(tab.has_ended for tab in tabs))
    assert not hub.online_user_ids


def test_heartbeat_reaches_every_stream_once_a_period(hub, open):
    clients = [open(subscribe(hub, Viewer(n))) for n in range(20)]
    for _ in range(15):
        hub.send_heartbeats()
    wait_until(lambda: all(client.received.count(b"event: HEARTBEAT") == 1 for client in clients))


def test_old_stream_ends_cleanly_and_is_told_when_to_return(kind):
    hub = make_hub(max_age_seconds=1e-9)
    give = serve_clients(kind, hub)
    bob = next(give)(subscribe(hub, BOB))
    for _ in range(15):
        hub.send_heartbeats()
    wait_until(lambda: bob.has_ended)
    assert bob.received.startswith(b"retry: ")
    next(give, None)


def test_drain_tells_every_client_and_lets_nobody_in(hub, open):
    clients = [open(subscribe(hub, Viewer(n))) for n in range(30)]
    hub.drain(0.2)
    wait_until(lambda: all(client.has_ended for client in clients))
    assert all(b"event: SERVER_SHUTDOWN" in client.received for client in clients)
    assert len({client.received for client in clients}) > 10, "the times to return are spread"


def test_receipt_reaches_all_streams_of_one_person(hub, open):
    tabs, charlie = [open(subscribe(hub, BOB)) for _ in range(2)], open(subscribe(hub, CHARLIE))
    hub.send_to_user(2, b"event: READ_RECEIPT\ndata: {}\n\n")
    hub.deliver([make_message_event(1)])
    wait_until(lambda: charlie.get_message_ids() == [1] and all(tab.get_message_ids() == [1] for tab in tabs))
    assert all(b"READ_RECEIPT" in tab.received for tab in tabs)
    assert b"READ_RECEIPT" not in charlie.received
