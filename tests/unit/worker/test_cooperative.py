"""Yielding in a fan-out: everything that is ready runs, without a sleep."""

import os

import gevent

from broadcast.base.cooperative import yield_to_loop


def test_what_is_ready_has_run_when_the_turn_is_over():
    reading, writing = os.pipe()
    seen: list[bytes] = []
    watcher = gevent.get_hub().loop.io(reading, 1)
    watcher.start(lambda: seen.append(os.read(reading, 1)))
    try:
        for n in range(20):
            os.write(writing, bytes([n]))
            yield_to_loop()
            assert seen[-1] == bytes([n])
    finally:
        watcher.close()
        os.close(reading)
        os.close(writing)


def test_timers_that_are_due_run_during_turns_and_none_is_starved():
    ran = []
    gevent.spawn_later(0.005, ran.append, "timer")
    gevent.spawn(ran.append, "greenlet")
    for _ in range(1_000_000):
        if "timer" in ran:
            break
        yield_to_loop()
    assert ran == ["greenlet", "timer"]


def test_turns_leave_no_watchers_behind():
    loop = gevent.get_hub().loop
    yield_to_loop()
    before = loop.activecnt
    for _ in range(100):
        yield_to_loop()
    assert loop.activecnt == before


def test_a_killed_greenlet_leaves_its_turn():
    def turning() -> None:
        while True:
            yield_to_loop()

    greenlet = gevent.spawn(turning)
    gevent.sleep(0.001)
    greenlet.kill(timeout=5)
    assert greenlet.dead
