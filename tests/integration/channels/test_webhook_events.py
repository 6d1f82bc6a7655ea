"""What webhooks tell: which events, once and in order, and payloads as docs/webhooks.md shows them."""

import json
import random
import re
from datetime import timedelta

import pytest
import sqlalchemy

from broadcast.actions import broadcasts, edits, reminders, retention
from broadcast.actions import receipts as receipt_actions
from broadcast.actions.retention import RetentionPolicy
from broadcast.base.errors import Invalid
from broadcast.channels import escalation
from broadcast.channels.webhooks import run_planning
from broadcast.config.settings import Settings
from broadcast.domain import clock
from broadcast.domain.webhook_events import WebhookType
from broadcast.store import webhook_planning
from broadcast.store.database import db
from broadcast.store.models import Broadcast, WebhookAttempt, WebhookDelivery, WebhookEvent
from broadcast.store.transactions import write_transaction
from tests.integration.channels.conftest import set_addresses
from tests.support.builders import build_message, expire_broadcast, publish_message
from tests.support.escalation import by_channel, set_policy
from tests.support.seeded_databases import PROJECT_ROOT

ALL_TYPES = list(WebhookType)


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"webhook_private_addresses": True})


def test_life_of_a_broadcast_is_told_in_order(cast, add, send, receiver):
    add()
    by, now = cast["alice"], clock.now()
    first = publish_message(by, build_message(title="Lifts", requiresAck=True))
    second = publish_message(by)
    edits.edit(first, {"content": "They run."}, version=None, by=by, now=now)
    broadcasts.cancel(first, reason="A mistake", by=by, now=now)
    expire_broadcast(second, now=now)
    send()
    told = [(event["type"], event["data"]["id"]) for event in receiver.events]
    assert told == [
        ("broadcast.published", first),
        ("broadcast.published", second),
        ("broadcast.updated", first),
        ("broadcast.recalled", first),
        ("broadcast.ended", second),
    ]
    updated, recalled = receiver.events[2], receiver.events[3]
    assert (updated["data"]["title"], updated["data"]["content"]) == ("Lifts", "They run.")
    assert recalled["data"]["reason"] == "A mistake"
    assert set(recalled) == {"type", "timestamp", "data"}
    send()
    assert len(receiver.requests) == 5


def test_reminder_is_no_update(cast, add, send, receiver):
    add("broadcast.updated")
    broadcast_id = publish_message(cast["alice"])
    reminders.remind(broadcast_id, by=cast["alice"], now=clock.now())
    send()
    assert receiver.requests == []


def test_endpoint_gets_only_its_types_and_only_what_happens_from_now_on(cast, add, send, receiver):
    publish_message(cast["alice"])
    add("broadcast.recalled")
    broadcasts.cancel(publish_message(cast["alice"]), reason="Wrong", by=cast["alice"], now=clock.now())
    send()
    assert [event["type"] for event in receiver.events] == ["broadcast.recalled"]


def test_acknowledgements_come_in_batches_and_name_who(cast, add, send, receiver):
    add("broadcast.acknowledged")
    broadcast_id = publish_message(cast["alice"], build_message(requiresAck=True, title="Rules"))
    for name in ("bob", "charlie"):
        receipt_actions.acknowledge([broadcast_id], by=cast[name], now=clock.now())
    send(5)
    assert receiver.requests == []
    send(20)
    [event] = receiver.events
    who = [(item["userId"], item["username"], item["revision"]) for item in event["data"]["acknowledgements"]]
    assert who == [(cast[name].user_id, name, 1) for name in ("bob", "charlie")]
    assert (event["data"]["id"], event["data"]["title"]) == (broadcast_id, "Rules")
    assert db.session.scalar(sqlalchemy.select(sqlalchemy.func.count()).select_from(WebhookEvent)) == 0


def test_acknowledgements_are_not_collected_when_nobody_wants_them(cast, add, send, receiver):
    add("broadcast.published")
    broadcast_id = publish_message(cast["alice"], build_message(requiresAck=True))
    receipt_actions.acknowledge([broadcast_id], by=cast["bob"], now=clock.now())
    assert db.session.scalar(sqlalchemy.select(sqlalchemy.func.count()).select_from(WebhookEvent)) == 0


def test_acknowledgements_stay_undisclosed_without_statistics_per_recipient(cast, add, in_app, monkeypatch):
    add("broadcast.acknowledged")
    changed = in_app.extensions["settings"].model_copy(update={"stats_per_recipient": False})
    monkeypatch.setitem(in_app.extensions, "settings", changed)
    broadcast_id = publish_message(cast["alice"], build_message(requiresAck=True))
    receipt_actions.acknowledge([broadcast_id], by=cast["bob"], now=clock.now())
    assert db.session.scalar(sqlalchemy.select(sqlalchemy.func.count()).select_from(WebhookEvent)) == 0
    with pytest.raises(Invalid, match="STATS_PER_RECIPIENT"):
        add("broadcast.acknowledged")


def test_escalation_is_told_once_with_how_many_it_reaches(cast, add, send, receiver):
    add("broadcast.escalated")
    set_addresses(cast)
    set_policy("URGENT", by_channel(1))
    broadcast_id = publish_message(cast["alice"], build_message(priority="URGENT"))
    for _ in range(2):
        escalation.run_once(now=clock.now() + timedelta(minutes=2))
    send(140)
    [event] = receiver.events
    assert event["data"] == {"id": broadcast_id, "title": "Lifts", "channel": "email", "revision": 1, "people": 3}


@pytest.mark.parametrize("seed", range(5))
def test_each_endpoint_gets_each_event_once_in_order_of_the_log_whatever_is_killed(cast, add, seed, monkeypatch):
    """Planning in small batches that fail at random, with events in between."""
    chance, by = random.Random(seed), cast["alice"]
    monkeypatch.setattr(webhook_planning, "EVENTS_PER_BATCH", 3)
    endpoints = {add("broadcast.published", "broadcast.recalled", path=f"/{n}"): [] for n in range(3)}
    expected, live = [], []
    for _ in range(20):
        if live and chance.random() < 0.4:
            broadcast_id = live.pop(chance.randrange(len(live)))
            broadcasts.cancel(broadcast_id, reason="Wrong", by=by, now=clock.now())
            expected.append(("broadcast.recalled", broadcast_id))
        else:
            live.append(publish_message(by))
            expected.append(("broadcast.published", live[-1]))
        if chance.random() < 0.6:
            _plan_or_fail(chance)
    run_planning(now=clock.now())
    query = sqlalchemy.select(WebhookDelivery).order_by(WebhookDelivery.id)
    for delivery in db.session.scalars(query):
        endpoints[delivery.endpoint_id].append((delivery.type, delivery.broadcast_id))
    assert list(endpoints.values()) == [expected] * 3


def _plan_or_fail(chance: random.Random) -> None:
    for endpoint_id in webhook_planning.list_behind():
        try:
            with write_transaction() as session:
                webhook_planning.plan_log(session, endpoint_id, now=clock.now())
                if chance.random() < 0.5:
                    raise RuntimeError("killed before the commit")
        except RuntimeError:
            pass


def test_deleted_broadcast_takes_its_deliveries_and_stops_no_plan(cast, add, send, receiver):
    add()
    gone, kept = publish_message(cast["alice"]), publish_message(cast["alice"])
    with write_transaction() as session:
        session.execute(sqlalchemy.delete(Broadcast).where(Broadcast.id == gone))
    send()
    assert [event["data"]["id"] for event in receiver.events] == [kept]


def test_deliveries_are_kept_as_long_as_the_log_and_those_that_wait_stay(cast, add, send, receiver):
    add()
    publish_message(cast["alice"])
    send()
    publish_message(cast["alice"])
    run_planning(now=clock.now())
    policy = RetentionPolicy(log_days=30, ended_days=0, receipts_days=0)
    for days, kept in ((29, ["SENT", "WAITING"]), (31, ["WAITING"])):
        retention.delete_expired(policy, now=clock.now() + timedelta(days=days))
        db.session.rollback()
        assert list(db.session.scalars(sqlalchemy.select(WebhookDelivery.state).order_by(WebhookDelivery.id))) == kept
    assert db.session.scalar(sqlalchemy.select(sqlalchemy.func.count()).select_from(WebhookAttempt)) == 0


def test_deliveries_go_with_the_receipts_of_their_broadcast(cast, add, send, receiver):
    """They may name who has acknowledged."""
    add()
    broadcast_id = publish_message(cast["alice"])
    broadcasts.cancel(broadcast_id, reason="Old", by=cast["alice"], now=clock.now())
    send()
    policy = RetentionPolicy(log_days=0, ended_days=0, receipts_days=30)
    retention.delete_expired(policy, now=clock.now() + timedelta(days=31))
    assert db.session.scalar(sqlalchemy.select(sqlalchemy.func.count()).select_from(WebhookDelivery)) == 0


def test_payloads_have_the_fields_that_the_documentation_shows(cast, add, send, receiver):
    add()
    set_addresses(cast)
    set_policy("URGENT", by_channel(1))
    by, now, links = cast["alice"], clock.now(), [{"label": "Plan", "url": "https://example.com/"}]
    raw = build_message(priority="URGENT", requiresAck=True, actions=links)
    broadcast_id = publish_message(by, raw)
    escalation.run_once(now=clock.now() + timedelta(minutes=2))
    edits.edit(broadcast_id, {"content": "They run."}, version=None, by=by, now=now, notify_again=True)
    receipt_actions.acknowledge([broadcast_id], by=cast["bob"], now=now)
    broadcasts.cancel(broadcast_id, reason="Wrong", by=by, now=now)
    send(20)
    blocks = re.findall(r"```json\n(.*?)```", (PROJECT_ROOT / "docs/webhooks.md").read_text(), re.S)
    shown = {sample["type"]: sample for sample in map(json.loads, blocks)}
    sent = {event["type"]: event for event in receiver.events}
    assert shown.keys() == sent.keys() == set(ALL_TYPES) - {"broadcast.ended"}
    for type_, sample in shown.items():
        assert list_fields(sample) == list_fields(sent[type_]), type_


def list_fields(value: object, path: str = "") -> set[str]:
    """The paths of all fields: `.data.id`, `.data.acknowledgements.at`."""
    if isinstance(value, dict):
        return {path} | {found for name, item in value.items() for found in list_fields(item, f"{path}.{name}")}
    if isinstance(value, list):
        return {path} | {found for item in value for found in list_fields(item, path)}
    return {path}
