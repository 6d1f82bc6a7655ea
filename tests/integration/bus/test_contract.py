"""The contract of a bus: the same tests on the local bus and on a real Redis."""

import contextlib
import threading
import time
from collections.abc import Sequence
from types import SimpleNamespace

import pytest

from broadcast.base import untrusted_json
from broadcast.bus.protocol import Bus, Listener, LocalBus
from broadcast.bus.redis import RedisBus
from tests.support.system import wait_for as eventually

_GARBAGE = ("", "{", "[1]", '["a", 1]', "null", b"\xff", "[" * 50_000, "x" * 2_000_000, "[[[]], {}]", "0" * 64)


class Ear:
    """Counts what a listener hears. A thread here, as pytest is not patched and redis-py blocks; a greenlet in a worker."""

    def __init__(self, bus: Bus):
        self.rings, self.connects, self.signals, self._is_over = 0, 0, [], False
        self._bus = bus
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    def _listen(self) -> None:
        with contextlib.suppress(SystemExit):
            self._bus.listen(Listener(self._ring, self._signal, self._connected))

    def _ring(self) -> None:
        self._leave()
        self.rings += 1

    def _signal(self, name: str, body: dict) -> None:
        self.signals.append((name, body))

    def _connected(self) -> None:
        self._leave()
        self.connects += 1

    def _leave(self) -> None:
        if self._is_over:
            raise SystemExit

    def end(self) -> None:
        """End the thread: its next ring, or its next try to connect, is its last."""
        self._is_over = True
        if isinstance(self._bus, RedisBus):
            self._bus._listen_once = lambda listener: self._leave()
            self._bus.notify()
            self._thread.join(10)


def redis_bus(url: str, *, keys: Sequence[str] = ("k" * 40,)) -> RedisBus:
    return RedisBus(url, keys=keys)


@pytest.fixture(params=["local", "redis"])
def bus(request) -> Bus:
    return LocalBus() if request.param == "local" else redis_bus(request.getfixturevalue("own_redis").url)


@pytest.fixture
def ears():
    made = []

    def listen(bus: Bus) -> Ear:
        made.append(Ear(bus))
        eventually(lambda: made[-1].connects)
        return made[-1]

    yield listen
    for ear in made:
        ear.end()


def test_listener_is_told_once_it_can_hear_and_then_hears_rings_and_signals(bus, ears):
    ear = ears(bus)
    assert bus.is_healthy
    bus.notify()
    bus.send_signal("receipt", {"user": 7})
    eventually(lambda: ear.rings == 1 and ear.signals == [("receipt", {"user": 7})])


def test_ring_before_anybody_listens_is_no_error(bus):
    bus.notify()
    bus.send_signal("receipt", {})


@pytest.mark.service
def test_ring_reaches_every_worker(own_redis, ears):
    ours, theirs = redis_bus(own_redis.url), redis_bus(own_redis.url)
    first, second = ears(ours), ears(theirs)
    eventually(lambda: first.connects >= 1 and second.connects >= 1)
    ours.notify()
    eventually(lambda: first.rings == 1 and second.rings == 1)


@pytest.mark.service
def test_listener_says_it_was_deaf_after_the_server_came_back(own_redis, ears):
    bus = redis_bus(own_redis.url)
    ear = ears(bus)
    heard = ear.connects
    own_redis.stop()
    eventually(lambda: not bus.is_healthy)
    own_redis.start()
    eventually(lambda: ear.connects > heard and bus.is_healthy)
    bus.notify()
    eventually(lambda: ear.rings >= 1)


@pytest.mark.service
def test_frozen_server_is_noticed_and_holds_up_no_publisher(own_redis, ears):
    """F02. One of the rings waits for it a quarter of a second; this worker hears them all the same."""
    bus = redis_bus(own_redis.url)
    ear = ears(bus)
    bus.notify()
    eventually(lambda: ear.rings == 1)
    own_redis.freeze()
    started = time.monotonic()
    for _ in range(20):
        bus.notify()
    assert time.monotonic() - started < 5, "twenty rings with a frozen server took as long as its client's patience"
    assert ear.rings == 21
    eventually(lambda: not bus.is_healthy, seconds=15)
    own_redis.thaw()
    eventually(lambda: bus.is_healthy, seconds=15)


@pytest.mark.service
def test_systems_with_databases_of_their_own_on_one_server_do_not_hear_each_other(own_redis, ears):
    one, other = (redis_bus(own_redis.url.replace("/0", f"/{number}")) for number in (0, 1))
    at_one, at_other = ears(one), ears(other)
    one.send_signal("receipt", {"user": 1})
    one.notify()
    other.send_signal("due", {})
    other.notify()
    eventually(lambda: at_one.rings and at_other.rings)
    assert at_one.signals == [("receipt", {"user": 1})]
    assert at_other.signals == [("due", {})]


@pytest.mark.service
def test_garbage_on_the_channel_is_survived(own_redis, ears):
    from redis import Redis

    bus = redis_bus(own_redis.url)
    ear = ears(bus)
    with Redis.from_url(own_redis.url) as stranger:
        for garbage in _GARBAGE:
            stranger.publish("broadcast:signal", garbage)
        stranger.publish("broadcast:ring", b"\xff\xff")
    bus.send_signal("receipt", {})
    eventually(lambda: ear.signals == [("receipt", {})])
    assert bus.is_healthy, "the link was not given up for it"


@pytest.mark.service
def test_signals_of_others_are_not_heard_and_are_told_once(own_redis, ears, monkeypatch):
    """Whoever reaches Redis could otherwise tell a person's pages that they have read what they have not."""
    from redis import Redis

    told: list[str] = []
    monkeypatch.setattr(untrusted_json, "_logged_at", {})
    monkeypatch.setattr(untrusted_json, "_log", SimpleNamespace(warning=lambda event, **_: told.append(event)))
    forged = '["receipt", {"user": 2, "kind": "archived", "ids": [7], "version": 10}]'
    before = untrusted_json.rejection_counts["signal"]
    bus = redis_bus(own_redis.url)
    ear = ears(bus)
    with Redis.from_url(own_redis.url) as stranger:
        stranger.publish("broadcast:signal", forged)
        stranger.publish("broadcast:signal", "0" * 64 + forged)
        redis_bus(own_redis.url, keys=["another system"]).send_signal("receipt", {})
        bus.send_signal("due", {})
        eventually(lambda: ear.signals)
    assert ear.signals == [("due", {})]
    assert untrusted_json.rejection_counts["signal"] - before == 3
    assert told == ["redis.unreadable"]


@pytest.mark.service
def test_signals_are_heard_while_the_key_is_changed(own_redis, ears):
    before, after = redis_bus(own_redis.url, keys=["old"]), redis_bus(own_redis.url, keys=["new", "old"])
    ear = ears(after)
    before.send_signal("receipt", {"user": 1})
    after.send_signal("receipt", {"user": 2})
    eventually(lambda: ear.signals == [("receipt", {"user": 1}), ("receipt", {"user": 2})])


def test_server_that_is_not_there_is_unhealthy_and_rings_do_not_raise():
    bus = redis_bus("redis://127.0.0.1:1/0")
    bus.notify()
    bus.send_signal("receipt", {})
    assert not bus.is_healthy
