"""Webhooks: who gets which event, in which order, what answers mean, and how secrets change."""

from datetime import timedelta

import pytest
import sqlalchemy

from broadcast.actions import broadcasts
from broadcast.actions import webhooks as actions
from broadcast.base.errors import Conflict, Forbidden, Invalid, NotFound
from broadcast.channels import outgoing_http
from broadcast.channels.webhooks import run_planning
from broadcast.config.settings import Settings
from broadcast.domain import clock
from broadcast.domain.webhook_events import WebhookType
from broadcast.store import audit, webhooks
from broadcast.store.database import db
from broadcast.store.models import AuditEntry, WebhookAttempt, WebhookDelivery
from broadcast.store.transactions import write_transaction
from tests.support.builders import publish_message

ALL_TYPES = list(WebhookType)


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"webhook_private_addresses": True})


def read_states() -> list[str]:
    db.session.rollback()
    return list(db.session.scalars(sqlalchemy.select(WebhookDelivery.state).order_by(WebhookDelivery.id)))


def test_failure_is_tried_again_under_its_id_and_holds_up_only_its_broadcast(cast, add, send, receiver):
    endpoint_id = add()
    first, second = publish_message(cast["alice"]), publish_message(cast["alice"])
    broadcasts.cancel(first, reason="Wrong", by=cast["alice"], now=clock.now())
    receiver.answer("500")
    send()
    assert [event["data"]["id"] for event in receiver.events] == [first, second]
    assert read_states() == ["WAITING", "SENT", "WAITING"]
    send(25)
    assert [event["type"] for event in receiver.events[2:]] == ["broadcast.published", "broadcast.recalled"]
    assert receiver.ids[0] == receiver.ids[2] != receiver.ids[3]
    assert webhooks.get_endpoint(endpoint_id).failing_since is None
    statuses = [attempt.status for attempt in db.session.scalars(sqlalchemy.select(WebhookAttempt))]
    assert sorted(statuses) == [200, 200, 200, 500]


def test_endpoint_that_fails_is_marked_with_the_reason(cast, add, send, receiver):
    endpoint_id = add()
    publish_message(cast["alice"])
    receiver.answer("503")
    send()
    endpoint = webhooks.get_endpoint(endpoint_id)
    assert (endpoint.problem, endpoint.failing_since is None) == ("The endpoint answered 503.", False)


def test_what_fails_for_three_days_is_given_up(cast, add, send, receiver):
    add()
    publish_message(cast["alice"])
    receiver.answer("500", "500")
    send()
    send(3 * 86400 + 60)
    [delivery] = db.session.scalars(sqlalchemy.select(WebhookDelivery))
    assert (delivery.state, delivery.reason) == ("FAILED", "Given up after 2 attempts. The endpoint answered 500.")


def test_redirect_is_a_failure_that_says_so(cast, add, send, receiver):
    endpoint_id = add()
    publish_message(cast["alice"])
    receiver.answer("302 http://169.254.169.254/latest")
    send()
    assert len(receiver.requests) == 1
    problem = webhooks.get_endpoint(endpoint_id).problem
    assert "answered 302 and redirects to http://169.254.169.254/latest" in problem
    assert "not followed" in problem


def test_410_ends_an_endpoint_until_it_is_enabled_which_begins_from_then(cast, add, send, receiver):
    endpoint_id, by = add(), cast["alice"]
    publish_message(by)
    publish_message(by)
    receiver.answer("410")
    send()
    assert read_states() == ["FAILED", "CANCELLED"]
    publish_message(by)
    send(60)
    assert len(receiver.requests) == 1
    [delivery, _] = db.session.scalars(sqlalchemy.select(WebhookDelivery).order_by(WebhookDelivery.id))
    with pytest.raises(Conflict, match="Enable it"):
        actions.replay_delivery(endpoint_id, delivery.id, by=by, now=clock.now())
    actions.enable_endpoint(endpoint_id, by=by, now=clock.now())
    newest = publish_message(by)
    send(120)
    assert [event["data"]["id"] for event in receiver.events[1:]] == [newest]


@pytest.mark.parametrize("answer", ["hang", "drip"])
def test_receiver_that_hangs_or_answers_slowly_is_left(cast, add, send, receiver, answer, monkeypatch):
    monkeypatch.setattr(
        outgoing_http.post, "__kwdefaults__", outgoing_http.post.__kwdefaults__ | {"timeout_seconds": 0.3}
    )
    add()
    publish_message(cast["alice"])
    receiver.answer(answer)
    send()
    [attempt] = db.session.scalars(sqlalchemy.select(WebhookAttempt))
    assert (attempt.status, attempt.answer) == (None, "127.0.0.1 did not answer within 0.3 seconds.")
    assert read_states() == ["WAITING"]
    send(25)
    assert read_states() == ["SENT"]
    assert len(set(receiver.ids)) == 1


def test_private_address_is_refused_unless_the_setting_allows_it(cast, add, send, receiver, in_app, monkeypatch):
    add()
    publish_message(cast["alice"])
    changed = in_app.extensions["settings"].model_copy(update={"webhook_private_addresses": False})
    monkeypatch.setitem(in_app.extensions, "settings", changed)
    send()
    assert receiver.requests == []
    assert read_states() == ["FAILED"]
    with pytest.raises(Invalid, match="https://"):
        add()


def test_paused_endpoint_keeps_everything_until_it_is_resumed(cast, add, send, receiver):
    endpoint_id, by = add(), cast["alice"]
    actions.update_endpoint(endpoint_id, is_paused=True, by=by, now=clock.now())
    publish_message(by)
    send()
    assert (receiver.requests, read_states()) == ([], ["WAITING"])
    assert webhooks.measure_queue(now=clock.now()).due == 0
    actions.update_endpoint(endpoint_id, is_paused=False, by=by, now=clock.now())
    assert webhooks.measure_queue(now=clock.now() + timedelta(seconds=1)).due == 1
    send(1)
    assert read_states() == ["SENT"]


def test_old_secret_signs_beside_the_new_one_for_a_day(cast, add, send, receiver):
    endpoint_id, by = add(), cast["alice"]  # the receiver trusts the old one
    actions.rotate_secret(endpoint_id, by=by, now=clock.now())
    publish_message(by)
    send(1)
    new_secret = actions.rotate_secret(endpoint_id, by=by, now=clock.now() - timedelta(hours=23, minutes=59))
    publish_message(by)
    receiver.trust(new_secret)
    send(2)
    assert len(receiver.events) == 2
    assert receiver.requests[1]["headers"]["webhook-signature"].count("v1,") == 2
    publish_message(by)
    send(70)
    assert receiver.requests[2]["headers"]["webhook-signature"].count("v1,") == 1


def test_replay_sends_the_same_once_more(cast, add, send, receiver):
    endpoint_id, by = add(), cast["alice"]
    publish_message(by)
    send()
    [delivery] = db.session.scalars(sqlalchemy.select(WebhookDelivery))
    actions.replay_delivery(endpoint_id, delivery.id, by=by, now=clock.now())
    with pytest.raises(Conflict, match="still waits"):
        actions.replay_delivery(endpoint_id, delivery.id, by=by, now=clock.now())
    with pytest.raises(NotFound):
        actions.replay_delivery(endpoint_id, 999, by=by, now=clock.now())
    send(1)
    assert receiver.ids == [delivery.message_id] * 2
    assert receiver.events[0] == receiver.events[1]
    assert len(webhooks.list_attempts(delivery.id, limit=10)) == 2


def test_worker_that_lost_its_lease_records_no_outcome(cast, add, send, receiver):
    endpoint_id = add()
    publish_message(cast["alice"])
    now = clock.now()
    run_planning(now=now)
    with write_transaction() as session:
        lost = webhooks.claim_next(session, endpoint_id, now=now, until=now + timedelta(seconds=60))
    with write_transaction() as session:
        assert webhooks.claim_next(session, endpoint_id, now=now, until=now + timedelta(seconds=60)) is None
    send(61)
    with write_transaction() as session:
        webhooks.finish(session, lost, "FAILED", at=now, reason="late")
    assert read_states() == ["SENT"]


def test_deleted_endpoint_takes_its_deliveries_and_a_late_answer_is_dropped(cast, add, receiver):
    endpoint_id, by = add(), cast["alice"]
    publish_message(by)
    run_planning(now=clock.now())
    with write_transaction() as session:
        claimed = webhooks.claim_next(session, endpoint_id, now=clock.now(), until=clock.now())
    actions.delete_endpoint(endpoint_id, by=by, now=clock.now())
    assert (webhooks.list_endpoints(), read_states()) == ([], [])
    with write_transaction() as session:
        assert not webhooks.add_attempt(session, claimed.id, webhooks.AttemptResult(200, 1, ""), at=clock.now())


@pytest.mark.parametrize(
    ("url", "types", "reason"),
    [
        ("ftp://x.example", ["broadcast.ended"], "https://"),
        ("https://x.example", [], "at least one"),
        ("https://x.example", ["broadcast.opened"], "broadcast.opened is not an event type"),
        ("https://a:b@x.example", ["broadcast.ended"], "password"),
    ],
)
def test_wrong_endpoint_is_refused_with_a_sentence(cast, in_app, url, types, reason):
    with pytest.raises(Invalid, match=reason):
        actions.create_endpoint(url, types, by=cast["alice"], now=clock.now())


def test_only_administrators_may_and_the_audit_names_each_change_and_no_secret(cast, add):
    endpoint_id, by, now = add(path="/token-in-the-path"), cast["alice"], clock.now()
    secret = actions.rotate_secret(endpoint_id, by=by, now=now)
    actions.update_endpoint(endpoint_id, event_types=["broadcast.ended"], is_paused=True, by=by, now=now)
    actions.update_endpoint(endpoint_id, is_paused=False, by=by, now=now)
    actions.delete_endpoint(endpoint_id, by=by, now=now)
    entries = db.session.scalars(
        sqlalchemy.select(AuditEntry).where(AuditEntry.object_type == "webhook").order_by(AuditEntry.id)
    ).all()
    verbs = [entry.action.removeprefix("webhook.") for entry in entries]
    assert verbs == ["created", "secret_rotated", "changed", "paused", "resumed", "deleted"]
    written = str([entry.detail for entry in entries])
    assert secret not in written
    assert "token-in-the-path" not in written
    assert audit.verify_chain().broken_id is None
    for attempt in (
        lambda bob: actions.create_endpoint("https://x.example", ALL_TYPES, by=bob, now=now),
        lambda bob: actions.rotate_secret(1, by=bob, now=now),
        lambda bob: actions.update_endpoint(1, by=bob, now=now),
        lambda bob: actions.enable_endpoint(1, by=bob, now=now),
        lambda bob: actions.replay_delivery(1, 1, by=bob, now=now),
        lambda bob: actions.delete_endpoint(1, by=bob, now=now),
    ):
        with pytest.raises(Forbidden):
            attempt(cast["bob"])
