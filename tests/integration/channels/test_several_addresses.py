"""A channel besides e-mail, by which a user has several addresses."""

from collections.abc import Mapping
from datetime import timedelta
from types import MappingProxyType

import pytest
from sqlalchemy import true

from broadcast.channels import escalation
from broadcast.channels.outbox import Outbox
from broadcast.channels.protocol import Accepted, Gone, Message, Outcome, Refused, Retry
from broadcast.channels.registry import CHANNELS
from broadcast.domain import clock
from broadcast.store import deliveries
from broadcast.worker import gauges
from tests.integration.channels.test_escalation import publish_urgent, read_outcomes
from tests.support.escalation import by_channel, set_policy


class _Pigeons:
    """Everybody has a loft and a window. `answers` has what becomes of a message, by address."""

    name, label = "pigeon", "Pigeon"

    def __init__(self):
        self.answers: dict[str, Outcome] = {}
        self.sent: list[tuple[str, str]] = []
        self.disabled: list[str] = []

    def has_address(self):
        return true()

    def load_addresses(self, user_ids) -> Mapping[int, list[str]]:
        return {id_: [a for a in (f"loft {id_}", f"window {id_}") if a not in self.disabled] for id_ in user_ids}

    def is_wanted(self, preferences, *, priority, category, mandatory) -> bool:
        return True

    def disable_address(self, session, user_id, address, reason, *, at) -> None:
        self.disabled.append(address)

    def send(self, message: Message[str]) -> Outcome:
        self.sent.append((message.id, message.address))
        return self.answers.get(message.address.split()[0], Accepted())


@pytest.fixture
def pigeons(in_app, people) -> _Pigeons:
    pigeons = _Pigeons()
    CHANNELS.attach(in_app, MappingProxyType({pigeons.name: pigeons}))
    set_policy("URGENT", by_channel(1, pigeons.name))
    return pigeons


@pytest.fixture
def fly(pigeons, monkeypatch):
    """Plan and send, so many seconds from now."""
    outbox, start = Outbox(pigeons), clock.now()

    def run(seconds: float) -> None:
        later = start + timedelta(seconds=seconds)
        monkeypatch.setattr(clock, "now", lambda: later)
        escalation.run_once(now=later)
        outbox.run_once()

    return run


def publish_to_bob(people) -> int:
    broadcast_id = publish_urgent(people, targetType="ROLE", targetIds=["ops"])
    escalation.run_once(now=clock.now())
    return broadcast_id


def test_each_address_gets_it_once_and_in_one_delivery(people, pigeons, fly):
    publish_to_bob(people)
    fly(61)
    fly(600)
    bob = people["bob"].user_id
    assert [address for _, address in pigeons.sent] == [f"loft {bob}", f"window {bob}"]
    assert len({message_id for message_id, _ in pigeons.sent}) == 1
    assert read_outcomes() == [("SENT", None)]


@pytest.mark.parametrize("failure", [Gone("Left."), Refused("Too heavy."), Retry("Rain.")])
def test_one_address_that_takes_it_is_enough(people, pigeons, fly, failure):
    pigeons.answers["loft"] = failure
    publish_to_bob(people)
    fly(61)
    fly(600)
    assert len(pigeons.sent) == 2
    assert read_outcomes() == [("SENT", None)]
    assert pigeons.disabled == ([f"loft {people['bob'].user_id}"] if isinstance(failure, Gone) else [])


def test_it_is_tried_again_while_one_address_may_take_it_and_not_at_one_that_is_gone(people, pigeons, fly):
    pigeons.answers = {"loft": Gone("Left."), "window": Retry("Rain.")}
    publish_to_bob(people)
    fly(61)
    assert read_outcomes() == [("WAITING", "Rain.")]
    pigeons.answers.clear()
    pigeons.sent.clear()
    fly(600)
    assert [address for _, address in pigeons.sent] == [f"window {people['bob'].user_id}"]
    assert read_outcomes() == [("SENT", None)]


def test_it_fails_once_no_address_takes_it(people, pigeons, fly):
    pigeons.answers = {"loft": Gone("Left."), "window": Gone("Closed.")}
    publish_to_bob(people)
    fly(61)
    assert read_outcomes() == [("FAILED", "Left.")]
    publish_to_bob(people)
    fly(200)
    assert len(pigeons.disabled) == 2


def test_channel_has_its_gauges_and_its_part_of_the_page(people, pigeons, in_app, client):
    publish_to_bob(people)
    escalation.run_once(now=clock.now() + timedelta(seconds=61))
    assert deliveries.measure_queue("pigeon", now=clock.now() + timedelta(seconds=61)).due == 1
    gauges._update_queues()
    assert gauges.metrics.deliveries_waiting.labels("pigeon")._value.get() == 1
    browser = client("alice")
    assert "Pigeon" in browser.get("/console/channels").text
    assert "Pigeon is paused." in browser.post("/console/channels/pigeon/pause", follow_redirects=True).text
    assert browser.post("/console/channels/drums/pause").status_code == 404
