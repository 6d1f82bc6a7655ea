"""Ownership of inbound events: only the owner of a source recalls and repeats, whatever names others use."""

from dataclasses import replace

import pytest
import sqlalchemy

from broadcast.actions import inbound_events
from broadcast.domain.actor import Actor
from broadcast.domain.inbound import InboundRecord
from broadcast.store.models import Broadcast
from broadcast.store.models.ingest import CollapsedInboundEvent
from broadcast.store.transactions import write_transaction
from tests.integration.actions.test_inbound_events import NOW, ingest, stored
from tests.support.inbound_records import SOURCE, build_cancel_event, build_cloud_event, build_structured_record

pytestmark = pytest.mark.usefixtures("cast")


@pytest.fixture
def outside(cast) -> Actor:
    return inbound_events.get_ingest_actor(now=NOW)


def of_topic(record: InboundRecord, topic: str = "other.topic") -> InboundRecord:
    return replace(record, position=replace(record.position, topic=topic))


def test_owner_alone_recalls_and_repeats_though_another_names_the_same_source_and_id(outside):
    ingest(outside, build_structured_record(build_cloud_event("1")))
    assert ingest(outside, of_topic(build_structured_record(build_cancel_event("1")))) == ["rejected"]
    assert ingest(outside, of_topic(build_structured_record(build_cloud_event("1")))) == ["published"]
    assert ingest(outside, of_topic(build_structured_record(build_cloud_event("1"), offset=43)),
    build_structured_record(build_cloud_event("1"), offset=44)) == [
        "repeated", "repeated",
    ]  # fmt: skip
    assert [(row.source_owner, row.status) for row in stored()] == [
        ("topic:ext.events", "ACTIVE"), ("topic:other.topic", "ACTIVE"),
    ]  # fmt: skip
    assert ingest(outside, of_topic(build_structured_record(build_cancel_event("1"), offset=50))) == ["cancelled"]
    assert [row.status for row in stored()] == ["ACTIVE", "CANCELLED"]
    assert ingest(outside, build_structured_record(build_cancel_event("1"), offset=51)) == ["cancelled"]


def test_two_owners_with_one_name_in_one_batch_are_two_events(outside):
    kinds = ingest(
        outside,
        build_structured_record(build_cloud_event("1")),
        of_topic(build_structured_record(build_cloud_event("1"))),
        build_structured_record(build_cancel_event("1")),
    )
    assert kinds == ["published", "published", "cancelled"]
    assert [row.status for row in stored()] == ["CANCELLED", "ACTIVE"]


def test_source_is_one_however_it_is_written(outside):
    written = SOURCE.replace("https://grid", "HTTPS://GRID").replace(".com/", ".com:443/x/../")
    assert ingest(outside, build_structured_record(build_cloud_event("1")),
    build_structured_record(build_cloud_event("1", source=written))) == [
        "published", "repeated",
    ]  # fmt: skip
    assert ingest(outside, build_structured_record(build_cancel_event("1", source=written))) == ["cancelled"]


def test_broadcasts_from_before_there_were_owners_are_recalled_and_repeated_by_whoever_sent_them(outside, cast):
    """As an older version left them: without an owner, and with the source as it was written."""
    ingest(
        outside,
        build_structured_record(build_cloud_event("1")),
        build_structured_record(build_cloud_event("2")),
        build_structured_record(build_cloud_event("3")),
    )
    older = {"source": SOURCE.replace("grid", "GRID"), "source_owner": None}
    with write_transaction() as session:
        session.execute(sqlalchemy.update(Broadcast).values(older))
        session.execute(
            sqlalchemy.update(Broadcast).where(Broadcast.source_id == "3").values(sender_id=cast["bob"].user_id)
        )
        session.execute(
            sqlalchemy.insert(CollapsedInboundEvent).values(
                source=older["source"], source_id="2b", broadcast_id=stored()[1].id
            )
        )
    written = {"source": older["source"]}
    assert (
        ingest(
            outside,
            build_structured_record(build_cloud_event("1", **written)),
            build_structured_record(build_cloud_event("2b", **written)),
        )
        == ["repeated"] * 2
    )
    assert (
        ingest(
            outside,
            build_structured_record(build_cancel_event("1", **written)),
            build_structured_record(build_cancel_event("2b", "c2", **written)),
        )
        == ["cancelled"] * 2
    )
    assert ingest(outside, build_structured_record(build_cancel_event("3", "c3", **written))) == ["rejected"]
