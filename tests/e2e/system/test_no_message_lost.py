"""Many publishers and many streams that reconnect: every stream gets the log in order, without duplicates or gaps."""

import os
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress

import pytest

from tests.support import measurements as figures
from tests.support.databases import DATABASE_URL
from tests.support.http_session import HttpSession
from tests.support.process_fixtures import StreamOpener, wait_for_workers
from tests.support.publish_load import list_log_ids
from tests.support.stream_client import StreamClient
from tests.support.system import System, is_running, wait_for

pytestmark = [pytest.mark.service, pytest.mark.timeout(300)]

_PUBLISHERS = 8
_BROADCASTS = 400 if DATABASE_URL else 1000  # in full once, on the embedded defaults
_STREAMS = 50


def test_broadcasts_by_eight_clients_reach_fifty_restless_streams_as_the_log_has_them(
    own_system, streams: StreamOpener
):
    seed = int(os.environ.get("TEST_SEED") or random.randrange(2**32))
    print(f"seed: TEST_SEED={seed}")
    system = own_system()
    readers = _readers(system, streams)
    began = time.monotonic()
    with _cutting_at_random(readers, random.Random(seed)) as cuts:
        sent = _publish(system, _BROADCASTS)
        published = time.monotonic() - began
        log = list_log_ids(system)
        _expect_all(readers, log)
    assert sorted(log) == sorted(sent)
    assert cuts() > 20, "the streams were hardly ever cut off"
    figures.measurements.append(
        f"{_BROADCASTS:,} broadcasts by {_PUBLISHERS} clients to {_STREAMS} streams cut off {cuts()} times: published in "
        f"{published:.1f} s, all there after {time.monotonic() - began:.1f} s (TEST_SEED={seed})"
    )


def test_worker_killed_while_publishing_costs_nobody_a_message(own_system, streams: StreamOpener):
    system = own_system()
    readers = _readers(system, streams)
    victim = wait_for_workers(system)[0]
    served = [reader for reader in readers if reader.worker == victim]
    assert served, "no stream was served by the worker to be killed"
    sent = _publish(system, 300, at_count={100: lambda: os.kill(victim, signal.SIGKILL)})
    log = list_log_ids(system)
    assert sorted(log) == sorted(sent)
    _expect_all(readers, log)
    assert all(len(reader.response_headers) > 1 for reader in served)


def test_hang_up_of_the_master_replaces_the_workers_within_seconds_and_loses_nothing(own_system, streams: StreamOpener):
    system = own_system()
    readers = _readers(system, streams)
    old = wait_for_workers(system)
    stopped_after: list[float] = []

    def hang_up() -> None:
        began = time.monotonic()
        os.kill(system.master_pid, signal.SIGHUP)
        wait_for(
            lambda: not set(old) & set(system.get_worker_pids()), seconds=15, description="the old workers to leave"
        )
        stopped_after.append(time.monotonic() - began)

    sent = _publish(system, 300, at_count={100: hang_up})
    log = list_log_ids(system)
    assert sorted(log) == sorted(sent)
    _expect_all(readers, log)
    for reader in readers:
        reader.wait_for("SERVER_SHUTDOWN")
        assert reader.worker not in old
    figures.measurements.append(f"HUP → old workers gone, 50 streams: {stopped_after[0]:.1f} s")


def test_stop_is_told_to_every_stream_and_after_the_next_start_nothing_is_missing(own_system, streams: StreamOpener):
    system = own_system()
    readers = _readers(system, streams)
    sent = _publish(system, 20)
    began = time.monotonic()
    old = system.get_worker_pids()
    os.kill(system.master_pid, signal.SIGTERM)
    wait_for(lambda: not any(map(is_running, old)), seconds=15, description="the workers to leave")
    took = time.monotonic() - began
    figures.measurements.append(f"TERM → workers gone, 50 streams: {took:.1f} s")
    system.process.wait(20)
    for reader in readers:
        reader.wait_for("SERVER_SHUTDOWN")
    system.start()
    sent += _publish(system, 20, named="after the start")
    log = list_log_ids(system)
    assert sorted(log) == sorted(sent)
    _expect_all(readers, log)


def _readers(system: System, streams: StreamOpener) -> list[StreamClient]:
    """Fifty streams, all of people who get everything, over both workers."""
    readers = [*streams.open_many(system, "bob", _STREAMS // 2), *streams.open_many(system, "charlie", _STREAMS // 2)]
    assert len({reader.worker for reader in readers}) == 2
    return readers


def _publish(
    system: System, count: int, *, named: str = "message", at_count: dict[int, Callable[[], None]] | None = None
) -> list[int]:
    """Publish `count` messages from parallel clients; after the n-th, do what `at_count` has for n, meanwhile going on."""
    token = system.get_token("alice", "admin")
    numbers, done, meanwhile = iter(range(count)), iter(range(1, count + 1)), []
    lock = threading.Lock()

    def client() -> list[int]:
        visitor, sent = HttpSession(system, token=token), []
        while (number := _next(numbers, lock)) is not None:
            sent.append(visitor.publish(f"{named} {number}"))
            if act := (at_count or {}).get(_next(done, lock)):
                meanwhile.append(pool.submit(act))
        visitor.close()
        return sent

    with ThreadPoolExecutor(_PUBLISHERS + 1) as pool:
        parts = [pool.submit(client) for _ in range(_PUBLISHERS)]
        sent = [broadcast_id for part in parts for broadcast_id in part.result()]
        for act in meanwhile:
            act.result()
    return sent


def _next(numbers: Iterator[int], lock: threading.Lock) -> int | None:
    with lock:
        return next(numbers, None)


@contextmanager
def _cutting_at_random(readers: list[StreamClient], choose: random.Random) -> Iterator[Callable[[], int]]:
    """Cut streams off, one every few milliseconds, each at a moment of its own; yields a count of the cuts."""
    over = threading.Event()
    cuts = 0

    def cut() -> None:
        nonlocal cuts
        while not over.wait(choose.uniform(0, 0.04)):
            choose.choice(readers).disconnect()
            cuts += 1

    cutter = threading.Thread(target=cut)
    cutter.start()
    try:
        yield lambda: cuts
    finally:
        over.set()
        cutter.join()


def _expect_all(readers: list[StreamClient], log: list[int]) -> None:
    def behind() -> list[int]:
        return [n for n, reader in enumerate(readers) if len(reader.frames_of("MESSAGE")) < len(log)]

    with suppress(AssertionError):  # the comparison below says what is missing
        wait_for(lambda: not behind(), seconds=30, description="all messages on all streams")
    for n, reader in enumerate(readers):
        if (got := reader.message_ids) != log:
            missing, repeated = sorted(set(log) - set(got)), sorted({i for i in got if got.count(i) > 1})
            pytest.fail(f"stream {n}: missing {missing}, twice {repeated}, or not in the order of the log")
