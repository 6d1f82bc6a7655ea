"""What a loop failed on is told until the loop is well again, and not for a moment longer than that."""

from collections.abc import Callable
from typing import Any

import gevent
import pytest

from broadcast.actions import retention
from broadcast.worker import gauges, runtime
from tests.hub.wires import eventually

_WORK: dict[str, Callable[[runtime.Runtime], tuple[Any, str]]] = {
    "tail": lambda worker: (worker.tail, "catch_up"),
    "bus": lambda worker: (worker.bus, "listen"),
    "clock": lambda worker: (runtime, "tick"),
    "heartbeat": lambda worker: (worker.hub, "beat"),
    "notes": lambda worker: (worker.deliveries, "flush"),
    "receipts": lambda worker: (worker.follow, "look"),
    "presence": lambda worker: (worker.presence, "renew"),
    "gauges": lambda worker: (gauges, "measure"),
    "retention": lambda worker: (retention, "run"),
}


@pytest.fixture
def worker(make_app, monkeypatch) -> runtime.Runtime:
    worker = make_app(heartbeat_seconds=0.5).extensions["runtime"]
    monkeypatch.setattr(runtime, "_FLUSH_SECONDS", 0.05)
    return worker


def test_every_loop_is_looked_at(worker, monkeypatch):
    named: list[str] = []
    monkeypatch.setattr(worker, "_supervise", lambda name, loop: named.append(name))
    worker.start(sockets=False)
    eventually(lambda: len(named) == len(_WORK))
    assert sorted(named) == sorted(_WORK)


@pytest.mark.parametrize("name", _WORK)
def test_problem_of_a_loop_is_over_when_it_has_done_its_work_again(worker, monkeypatch, name: str):
    place, attribute = _WORK[name](worker)
    real, failed = getattr(place, attribute), []

    def work(*values: Any, **named: Any) -> Any:
        if failed:
            return real(*values, **named)
        monkeypatch.setattr(runtime, "_FORGET_SECONDS", 3600)
        failed.append(name)
        raise RuntimeError("once")

    monkeypatch.setattr(place, attribute, work)
    monkeypatch.setattr(runtime, "_FORGET_SECONDS", 0.05)
    ready = worker.app.test_client()
    worker.start(sockets=False)
    try:
        eventually(lambda: name in worker.problems)
        assert name in ready.get("/readyz").json["degraded"]
        eventually(lambda: name not in worker.problems, seconds=10)
        assert name not in ready.get("/readyz").json["degraded"]
    finally:
        gevent.killall(worker._greenlets)
