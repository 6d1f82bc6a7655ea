"""The contract of inbound events: how they are parsed, and that parsing never raises."""

import json
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broadcast.domain.inbound import (
    MAX_VALUE_BYTES,
    CancelCommand,
    InboundRecord,
    PublishCommand,
    RecordPosition,
    Rejection,
)
from broadcast.domain.message import Priority
from broadcast.ingest import contract
from tests.support.builders import build_message, build_role_message
from tests.support.inbound_records import (
    POISON_RECORDS,
    RECORD_POSITION,
    SOURCE,
    build_bare_record,
    build_binary_record,
    build_cancel_event,
    build_cloud_event,
    build_structured_record,
)

NOW = datetime(2026, 11, 4, 10, 0, tzinfo=UTC)


def read(record: InboundRecord):
    return contract.read_command(record, now=NOW)


def test_structured_event_is_a_draft_of_its_source():
    read_one = read(
        build_structured_record(
            build_cloud_event("77", data=build_role_message("ops", priority="HIGH"), time="2026-11-04T09:59:00Z")
        )
    )
    assert isinstance(read_one, PublishCommand)
    assert (read_one.source, read_one.source_id, read_one.draft.priority) == (SOURCE, "77", Priority.HIGH)


@pytest.mark.parametrize("prefix", ["ce_", "ce-"])
def test_binary_event_reads_as_the_structured_one(prefix):
    assert read(build_binary_record(build_cloud_event("77"), prefix=prefix)) == read(
        build_structured_record(build_cloud_event("77"))
    )


def test_content_type_decides_when_a_structured_event_carries_copies_of_its_attributes():
    record = build_structured_record(build_cloud_event("77"))
    assert read(replace(record, headers=(*record.headers, ("ce_id", b"other")))).source_id == "77"


def test_structured_event_without_headers_is_known_by_its_specversion():
    assert read(replace(build_structured_record(build_cloud_event("77")), headers=())).source_id == "77"


def test_headers_of_the_web_are_percent_decoded_and_those_of_kafka_are_not():
    event = build_cloud_event("a%20b")
    assert read(build_binary_record(event, prefix="ce-", position=None)).source_id == "a b"
    assert read(build_binary_record(event)).source_id == "a%20b"


def test_bare_message_has_its_key_as_id_and_is_from_its_topic():
    read_one = read(build_bare_record(build_message(), key=b"incident-9"))
    assert (read_one.source, read_one.source_id) == ("kafka:ext.events", "incident-9")


def test_bare_message_without_a_key_has_its_place_as_id():
    assert read(build_bare_record(build_message())).source_id == "ext.events:1:42"


def test_bare_message_at_the_webhook_is_refused_because_nothing_names_it():
    assert read(InboundRecord(json.dumps(build_message()).encode())).code == "envelope"


def test_recall_names_what_the_same_source_announced():
    assert read(build_structured_record(build_cancel_event("77", "78"))) == CancelCommand(
        SOURCE, "78", "77", "All clear", owner="topic:ext.events", source_as_written=SOURCE
    )


def test_start_that_passed_while_the_event_waited_is_now():
    """An event can wait in Kafka for hours; a schedule in the past is no mistake of its source."""
    read_one = read(build_structured_record(build_cloud_event(data=build_message(scheduledAt="2026-11-04T03:00:00Z"))))
    assert read_one.draft.scheduled_at is None
    later = read(build_structured_record(build_cloud_event(data=build_message(scheduledAt="2026-11-05T03:00:00Z"))))
    assert later.draft.scheduled_at is not None


def test_value_of_exactly_the_limit_is_read():
    event = build_cloud_event()
    event["data"]["content"] = "x"
    padding = MAX_VALUE_BYTES - len(json.dumps(event).encode())
    assert isinstance(read(build_structured_record(json.dumps(event).encode() + b" " * padding)), PublishCommand)


@pytest.mark.parametrize(
    ("record", "code"), [row[1:] for row in POISON_RECORDS], ids=[row[0] for row in POISON_RECORDS]
)
def test_poison_is_rejected_with_a_sentence(record, code):
    """F08."""
    rejected = read(record)
    assert isinstance(rejected, Rejection)
    assert rejected.code == code
    assert rejected.reason[0].isupper(), rejected.reason
    assert rejected.reason.endswith("."), rejected.reason
    assert len(rejected.reason) < 1000


def test_rejected_event_tells_its_name_if_it_has_one():
    rejected = read(build_structured_record(build_cloud_event("77", type="com.example.other.v1")))
    assert (rejected.source, rejected.source_id) == (SOURCE, "77")


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=10,
)
_headers = st.lists(
    st.tuples(
        st.sampled_from(["content-type", "ce_id", "ce_source", "ce_type", "ce_specversion", "ce_time", "CE_ID", "x"])
        | st.text(max_size=12),
        st.binary(max_size=40)
        | st.sampled_from([b"1.0", b"application/json", b"application/cloudevents+json", b"broadcast.publish.v1"]),
    ),
    max_size=8,
).map(tuple)
_places = (
    st.none() | st.just(RECORD_POSITION) | st.builds(RecordPosition, st.text(max_size=8), st.integers(), st.integers())
)


@given(
    value=st.none() | st.binary(max_size=200), key=st.none() | st.binary(max_size=20), headers=_headers, place=_places
)
def test_no_bytes_make_it_raise(value, key, headers, place):
    assert isinstance(read(InboundRecord(value, key, headers, place)), PublishCommand | CancelCommand | Rejection)


@given(
    body=st.fixed_dictionaries(
        {},
        optional={name: _json | st.just(build_cloud_event()[name]) for name in build_cloud_event()}
        | {"time": _json, "x": _json},
    ),
    headers=_headers,
)
def test_no_json_makes_it_raise(body, headers):
    reading = read(InboundRecord(json.dumps(body).encode(), b"key", headers, RECORD_POSITION))
    assert isinstance(reading, PublishCommand | CancelCommand | Rejection)


@given(
    data=_json | st.dictionaries(st.sampled_from([*build_message(), "targetIds", "id", "reason", "scheduledAt"]), _json)
)
@pytest.mark.parametrize("kind", ["broadcast.publish.v1", "broadcast.cancel.v1"])
def test_no_data_makes_it_raise_and_its_name_stays(kind, data):
    event = build_cloud_event(type=kind)
    reading = read(build_structured_record(event | {"data": data}))
    assert isinstance(reading, PublishCommand | CancelCommand | Rejection)
    if reading.source is not None:
        assert (reading.source, reading.source_id) == (SOURCE, "1")
