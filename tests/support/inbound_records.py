"""Records as producers send them: structured, binary and bare, valid and poison."""

import json
from typing import Any

from broadcast.domain.inbound import InboundRecord, RecordPosition
from tests.support.builders import build_message, build_user_message

SOURCE = "https://grid.example.com/alerts"
STRUCTURED_HEADERS = (("content-type", b"application/cloudevents+json; charset=UTF-8"),)
RECORD_POSITION = RecordPosition("ext.events", 1, 42, 1_790_000_000_000)


def build_cloud_event(id: str = "1", *, data: Any = None, **changes: Any) -> dict[str, Any]:
    """Return a structured CloudEvent that publishes a message to everyone; None removes an attribute."""
    event = {"specversion": "1.0", "id": id, "source": SOURCE, "type": "broadcast.publish.v1"}
    event |= {"data": build_message() if data is None else data} | changes
    return {name: value for name, value in event.items() if value is not None}


def build_cancel_event(target_id: str, id: str = "c1", **changes: Any) -> dict[str, Any]:
    return build_cloud_event(id, type="broadcast.cancel.v1", data={"id": target_id, "reason": "All clear"}, **changes)


def build_structured_record(event: Any, *, offset: int = 42, **options: Any) -> InboundRecord:
    value = event if isinstance(event, bytes) else json.dumps(event).encode()
    return InboundRecord(
        value,
        headers=STRUCTURED_HEADERS,
        position=RecordPosition("ext.events", 1, offset, RECORD_POSITION.timestamp_ms),
        **options,
    )


def build_binary_record(
    event: dict[str, Any], *, prefix: str = "ce_", position: RecordPosition | None = RECORD_POSITION
) -> InboundRecord:
    attributes = {name: value for name, value in event.items() if name != "data"}
    headers = [(prefix + name, str(value).encode()) for name, value in attributes.items()]
    value = json.dumps(event["data"]).encode() if "data" in event else None
    return InboundRecord(value, headers=(*headers, ("content-type", b"application/json")), position=position)


def build_bare_record(body: Any, *, key: bytes | None = None, offset: int = 42) -> InboundRecord:
    value = body if isinstance(body, bytes | None) else json.dumps(body).encode()
    return InboundRecord(value, key=key, position=RecordPosition("ext.events", 1, offset))


# F08 and other invalid records: description, record, reason code.
POISON_RECORDS: list[tuple[str, InboundRecord, str]] = [
    ("not JSON", build_structured_record(b"{nope"), "not-json"),
    ("an array", build_structured_record([1, 2]), "envelope"),
    ("a bare array", build_bare_record([1, 2], key=b"k"), "fields"),
    ("a number", build_bare_record(b"17"), "fields"),
    ("null as text", build_bare_record(b"null"), "fields"),
    ("a tombstone", InboundRecord(None, key=b"k", position=RECORD_POSITION), "empty"),
    ("nothing but spaces", build_bare_record(b"   "), "empty"),
    ("5 MiB", build_structured_record(b" " * (5 * 2**20)), "size"),
    ("one byte too long", build_structured_record(b'"' + b"x" * (64 * 1024 - 1) + b'"'), "size"),
    ("10,000 levels deep", build_structured_record(b"[" * 10_000), "not-json"),
    ("400 levels deep", build_bare_record(b"[" * 400 + b"]" * 400), "fields"),
    ("NaN", build_bare_record(b'{"title": NaN}'), "not-json"),
    ("bad UTF-8", build_structured_record(b'{"id": "\xff\xfe"}'), "not-json"),
    ("a lone surrogate", build_bare_record(b'{"title": "\\ud800", "content": "x", "targetType": "ALL"}'), "fields"),
    ("a surrogate as id", build_structured_record(build_cloud_event("\ud800")), "envelope"),
    ("a NUL as id", build_structured_record(build_cloud_event("a\0b")), "envelope"),
    ("no id", build_structured_record(build_cloud_event(id=None)), "envelope"),
    ("an empty id", build_structured_record(build_cloud_event("")), "envelope"),
    ("a number as id", build_structured_record(build_cloud_event(id=7)), "envelope"),
    ("an id of 201 characters", build_structured_record(build_cloud_event("x" * 201)), "envelope"),
    ("no source", build_structured_record(build_cloud_event(source=None)), "envelope"),
    ("another specversion", build_structured_record(build_cloud_event(specversion="0.3")), "envelope"),
    ("an unknown type", build_structured_record(build_cloud_event(type="com.example.other.v1")), "type"),
    ("a later version of the type", build_structured_record(build_cloud_event(type="broadcast.publish.v2")), "type"),
    ("a time without a zone", build_structured_record(build_cloud_event(time="2026-11-04T10:00:00")), "envelope"),
    ("the year 9999", build_structured_record(build_cloud_event(time="9999-12-31T23:59:59Z")), "envelope"),
    (
        "an expiry in the year 9999",
        build_structured_record(build_cloud_event(data=build_message(expiresAt="9999-12-31T00:00:00Z"))),
        "fields",
    ),
    (
        "wrong types",
        build_structured_record(build_cloud_event(data={"title": 1, "content": [], "targetType": {}})),
        "fields",
    ),
    ("no data", build_structured_record(build_cloud_event(data={})), "fields"),
    ("an unknown field", build_structured_record(build_cloud_event(data=build_message(bold="yes"))), "fields"),
    ("data in base64", build_structured_record(build_cloud_event(data_base64="e30=")), "envelope"),
    (
        "several at once",
        InboundRecord(b"[]", headers=(("content-type", b"application/cloudevents-batch+json"),)),
        "envelope",
    ),
    (
        "a type that is no JSON",
        InboundRecord(b"<a/>", headers=(("content-type", b"text/xml"),), position=RECORD_POSITION),
        "content-type",
    ),
    (
        "headers that are no UTF-8",
        InboundRecord(b"{}", headers=(("ce_id", b"\xff"),), position=RECORD_POSITION),
        "envelope",
    ),
    ("a key that is no UTF-8", build_bare_record(build_message(), key=b"\xff\xfe"), "envelope"),
    (
        "a recall of nothing named",
        build_structured_record(build_cloud_event(type="broadcast.cancel.v1", data={"reason": "x"})),
        "fields",
    ),
    (
        "a recall for another source",
        build_structured_record(build_cancel_event("1") | {"data": {"id": "1", "source": "x"}}),
        "not-allowed",
    ),
    (
        "a wish to sign people out",
        build_structured_record(build_cloud_event(data=build_user_message("bob", closeSessions=True))),
        "not-allowed",
    ),
]
