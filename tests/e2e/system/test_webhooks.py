"""Webhooks from real workers: who dies at the worst moment, and a receiver that hangs."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy

from broadcast.domain import clock
from broadcast.store.database import db
from broadcast.store.models import WebhookDelivery
from broadcast.store.transactions import write_transaction
from tests.e2e.system.test_mail import FAILPOINTS, in_application
from tests.support.builders import build_message
from tests.support.system import System, run_system, wait_for
from tests.support.webhook_receiver import WebhookReceiver

pytestmark = pytest.mark.service
PRIVATE = {"WEBHOOK_PRIVATE_ADDRESSES": "1"}


@pytest.fixture
def receiver(tmp_path: Path) -> Iterator[WebhookReceiver]:
    receiver = WebhookReceiver(tmp_path / "receiver")
    yield receiver
    receiver.stop()


def add_endpoint(system: System, receiver: WebhookReceiver) -> None:
    body = {"url": receiver.url, "eventTypes": ["broadcast.published", "broadcast.recalled"]}
    status, added = system.call("POST", "/api/admin/webhooks", token=system.get_token("alice", "admin"), body=body)
    assert status == 201
    receiver.trust(added["secret"])


def publish(system: System) -> int:
    token = system.get_token("alice", "admin")
    status, published = system.call("POST", "/api/admin/broadcasts", token=token, body=build_message())
    assert status == 201
    return published["id"]


def end_leases() -> None:
    with write_transaction() as session:
        waiting = sqlalchemy.update(WebhookDelivery).where(WebhookDelivery.state == "WAITING")
        session.execute(waiting.values(due_at=clock.now()).execution_options(synchronize_session=False))


def read_states() -> list[str]:
    return list(db.session.scalars(sqlalchemy.select(WebhookDelivery.state)))


def test_worker_killed_after_the_server_took_a_request_sends_it_again_under_its_id(tmp_path: Path, receiver):
    armed = tmp_path / "armed"
    armed.mkdir()
    crash = {"FAILPOINTS": str(armed), "PYTHONPATH": str(FAILPOINTS), "WEB_CONCURRENCY": "1"}
    with run_system(tmp_path, **crash, **PRIVATE) as system:
        add_endpoint(system, receiver)
        (armed / "webhook").touch()
        publish(system)
        wait_for(lambda: not (armed / "webhook").exists(), description="the worker to die")
        in_application(system, end_leases)
        wait_for(lambda: in_application(system, read_states) == ["SENT"], description="the delivery")
    assert len(receiver.events) == 2  # verified, both
    assert len(set(receiver.ids)) == 1


def test_two_workers_send_each_event_once_and_a_broadcast_in_order(tmp_path: Path, receiver):
    with run_system(tmp_path, **PRIVATE) as system:
        add_endpoint(system, receiver)
        ids = [publish(system) for _ in range(10)]
        for broadcast_id in ids:
            path = f"/api/admin/broadcasts/{broadcast_id}/cancel"
            body = {"reason": "Wrong"}
            assert system.call("POST", path, token=system.get_token("alice", "admin"), body=body)[0] == 200
        wait_for(lambda: len(receiver.requests) >= 20, description="every event")
        wait_for(lambda: in_application(system, read_states) == ["SENT"] * 20, description="every record")
    told = [(event["data"]["id"], event["type"]) for event in receiver.events]
    assert len(set(receiver.ids)) == len(told) == 20
    for broadcast_id in ids:
        types = [type_ for told_id, type_ in told if told_id == broadcast_id]
        assert types == ["broadcast.published", "broadcast.recalled"]


def test_receiver_that_hangs_holds_up_neither_pages_nor_another_endpoint(tmp_path: Path, receiver):
    other = WebhookReceiver(tmp_path / "other")
    try:
        with run_system(tmp_path, WEB_CONCURRENCY="1", **PRIVATE) as system:
            add_endpoint(system, receiver)
            add_endpoint(system, other)
            receiver.answer("hang")
            publish(system)
            wait_for(lambda: receiver.requests, description="the request that hangs")
            publish(system)
            wait_for(lambda: len(other.requests) == 2, description="the other endpoint")
            assert system.call("GET", "/api/user/messages", token=system.get_token("bob"))[0] == 200
            assert len(receiver.requests) == 1
    finally:
        other.stop()
