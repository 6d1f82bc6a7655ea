"""A loop's failure is reported until the loop works again, and no longer."""

from collections.abc import Callable
from typing import Any

import gevent
import pytest

from broadcast.actions import retention
from broadcast.channels import corrections, escalation
from broadcast.worker import gauges, runtime
from broadcast.worker.runtime import RUNTIME
from tests.support.hub_clients import wait_until

_WORK: dict[str, Callable[[runtime.Runtime], tuple[Any, str]]] = {
    "tail": lambda worker: (worker.tailer, "catch_up"),
    "bus": lambda worker: (worker.bus, "listen"),
    "clock": lambda worker: (runtime, "tick"),
    "heartbeat": lambda worker: (worker.hub, "send_heartbeats"),
    "notes": lambda worker: (worker.receipt_buffer, "flush"),
    "receipts": lambda worker: (worker.receipt_sync, "send_missed"),
    "presence": lambda worker: (worker.presence, "renew_lease"),
    "gauges": lambda worker: (gauges, "update_all"),
    "escalation": lambda worker: (escalation, "run_once"),
    "outbox push": lambda worker: (worker.outboxes[0], "run_once"),
    "outbox email": lambda worker: (worker.outboxes[1], "run_once"),
    "corrections": lambda worker: (corrections, "plan_all"),
    "outbox push correction": lambda worker: (worker.outboxes[2], "run_once"),
    "outbox correction": lambda worker: (worker.outboxes[3], "run_once"),
    "digests": lambda worker: (worker.digest_sender, "run_once"),
    "webhooks": lambda worker: (worker.webhooks, "run_once"),
    "retention": lambda worker: (retention, "delete_expired"),
}


@pytest.fixture
def worker(make_app, monkeypatch) -> runtime.Runtime:
    worker = RUNTIME.of(make_app(heartbeat_seconds=0.5))
    monkeypatch.setattr(runtime, "_FLUSH_INTERVAL_SECONDS", 0.05)
    return worker


def test_every_loop_is_looked_at(worker, monkeypatch):
    named: list[str] = []
    monkeypatch.setattr(worker, "_supervise", lambda name, loop: named.append(name))
    worker.start(should_adopt_sockets=False)
    wait_until(lambda: len(named) == len(_WORK))
    assert sorted(named) == sorted(_WORK)


@pytest.mark.parametrize("name", _WORK)
def test_problem_of_a_loop_is_over_when_it_has_done_its_work_again(worker, monkeypatch, name: str):
    place, attribute = _WORK[name](worker)
    real, failed = getattr(place, attribute), []

    def work(*values: Any, **named: Any) -> Any:
        if failed:
            return real(*values, **named)
        monkeypatch.setattr(runtime, "_RETENTION_INTERVAL_SECONDS", 3600)
        failed.append(name)
        raise RuntimeError("once")

    monkeypatch.setattr(place, attribute, work)
    monkeypatch.setattr(runtime, "_RETENTION_INTERVAL_SECONDS", 0.05)
    ready = worker.app.test_client()
    worker.start(should_adopt_sockets=False)
    try:
        wait_until(lambda: name in worker.problems)
        assert name in ready.get("/readyz").json["degraded"]
        wait_until(lambda: name not in worker.problems, seconds=10)
        assert name not in ready.get("/readyz").json["degraded"]
    finally:
        gevent.killall(worker._greenlets)
