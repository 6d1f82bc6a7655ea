"""Inbound events that change an acknowledged live card: a correction, or a new broadcast, as their source says."""

import pytest

from broadcast.actions import receipts
from broadcast.domain.inbound import Rejection
from broadcast.ingest import contract
from broadcast.store import acknowledged_revisions, broadcast_stats
from broadcast.store.database import db
from broadcast.store.inbox import Inbox
from tests.integration.actions.test_flood_control import NOW, ingest, keyed, outside, stored  # noqa: F401 - a fixture
from tests.support.builders import build_message

pytestmark = pytest.mark.usefixtures("cast")


def asked(id: str, **changes):
    return keyed(id, data=build_message(requiresAck=True, content=f"Text {id}"), **changes)


def needs_ack(by) -> bool:
    db.session.rollback()
    return Inbox(by.viewer, NOW).find(stored()[0].id).needs_ack


def test_event_is_a_correction_unless_it_asks_again(cast, outside):  # noqa: F811
    ingest(outside, asked("1"))
    receipts.acknowledge([stored()[0].id], by=cast["bob"], now=NOW)
    assert ingest(outside, asked("2"), after=9) == ["collapsed"]
    assert not needs_ack(cast["bob"])
    assert ingest(outside, asked("3", acknowledgeAgain=True), after=10) == ["collapsed"]
    assert needs_ack(cast["bob"])
    [card] = stored()
    assert (card.revision, card.ack_revision) == (3, 3)
    [bob] = [row for row in broadcast_stats.list_recipient_progress(card, limit=9) if row.username == "bob"]
    assert [one.revision for one in bob.earlier] == [1]


def test_of_several_at_once_one_that_asks_again_is_enough(cast, outside):  # noqa: F811
    ingest(outside, asked("1"))
    receipts.acknowledge([stored()[0].id], by=cast["bob"], now=NOW)
    ingest(outside, asked("2", acknowledgeAgain=True), asked("3"), after=9)
    assert needs_ack(cast["bob"])
    receipts.acknowledge([stored()[0].id], by=cast["bob"], now=NOW)
    assert not needs_ack(cast["bob"])


def test_text_that_an_event_replaced_can_still_be_acknowledged_while_it_stands(cast, outside):  # noqa: F811
    ingest(outside, asked("1"))
    ingest(outside, asked("2"), asked("3"), after=9)
    [card] = stored()
    assert acknowledged_revisions.get_text(card.id, 1).content == "Text 1"
    assert acknowledged_revisions.get_text(card.id, 2) is None, "nobody has seen it"
    receipts.acknowledge([card.id], by=cast["bob"], now=NOW, seen_revisions={card.id: 1})
    assert not needs_ack(cast["bob"])


@pytest.mark.parametrize("wish", ["yes", 1, []])
def test_odd_wish_is_refused(wish):
    refused = contract.read_command(asked("1", acknowledgeAgain=wish), now=NOW)
    assert isinstance(refused, Rejection)
    assert "acknowledgeAgain" in refused.reason


def test_wish_needs_a_message_that_asks_for_acknowledgement():
    refused = contract.read_command(keyed("1", acknowledgeAgain=True), now=NOW)
    assert (type(refused), refused.reason) == (Rejection, "acknowledgeAgain needs requiresAck.")
