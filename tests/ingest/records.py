"""Records as producers make them: structured, binary and bare, good ones and poison."""

import json
from typing import Any

from broadcast.domain.inbound import Place, Record
from tests.acts import a_message, to_people

SOURCE = "https://grid.example.com/alerts"
STRUCTURED = (("content-type", b"application/cloudevents+json; charset=UTF-8"),)
PLACE = Place("ext.events", 1, 42, 1_790_000_000_000)


def an_event(id: str = "1", *, data: Any = None, **changes: Any) -> dict[str, Any]:
    """A structured CloudEvent that publishes a message to everyone; None takes an attribute away."""
    whole = {"specversion": "1.0", "id": id, "source": SOURCE, "type": "broadcast.publish.v1"}
    whole |= {"data": a_message() if data is None else data} | changes
    return {name: value for name, value in whole.items() if value is not None}


def a_cancel(of: str, id: str = "c1", **changes: Any) -> dict[str, Any]:
    return an_event(id, type="broadcast.cancel.v1", data={"id": of, "reason": "All clear"}, **changes)


def structured(event: Any, *, offset: int = 42, **options: Any) -> Record:
    value = event if isinstance(event, bytes) else json.dumps(event).encode()
    return Record(value, headers=STRUCTURED, place=Place("ext.events", 1, offset, PLACE.timestamp_ms), **options)


def binary(event: dict[str, Any], *, prefix: str = "ce_", place: Place | None = PLACE) -> Record:
    attributes = {name: value for name, value in event.items() if name != "data"}
    headers = [(prefix + name, str(value).encode()) for name, value in attributes.items()]
    value = json.dumps(event["data"]).encode() if "data" in event else None
    return Record(value, headers=(*headers, ("content-type", b"application/json")), place=place)


def bare(body: Any, *, key: bytes | None = None, offset: int = 42) -> Record:
    value = body if isinstance(body, bytes | None) else json.dumps(body).encode()
    return Record(value, key=key, place=Place("ext.events", 1, offset))


# F08, and what else nobody should send: what it is, the record, the code of the reason.
POISON: list[tuple[str, Record, str]] = [
    ("not JSON", structured(b"{nope"), "not-json"),
    ("an array", structured([1, 2]), "envelope"),
    ("a bare array", bare([1, 2], key=b"k"), "fields"),
    ("a number", bare(b"17"), "fields"),
    ("null as text", bare(b"null"), "fields"),
    ("a tombstone", Record(None, key=b"k", place=PLACE), "empty"),
    ("nothing but spaces", bare(b"   "), "empty"),
    ("5 MiB", structured(b" " * (5 * 2**20)), "size"),
    ("one byte too long", structured(b'"' + b"x" * (64 * 1024 - 1) + b'"'), "size"),
    ("10,000 levels deep", structured(b"[" * 10_000), "not-json"),
    ("400 levels deep", bare(b"[" * 400 + b"]" * 400), "fields"),
    ("NaN", bare(b'{"title": NaN}'), "not-json"),
    ("bad UTF-8", structured(b'{"id": "\xff\xfe"}'), "not-json"),
    ("a lone surrogate", bare(b'{"title": "\\ud800", "content": "x", "targetType": "ALL"}'), "fields"),
    ("a surrogate as id", structured(an_event("\ud800")), "envelope"),
    ("a NUL as id", structured(an_event("a\0b")), "envelope"),
    ("no id", structured(an_event(id=None)), "envelope"),
    ("an empty id", structured(an_event("")), "envelope"),
    ("a number as id", structured(an_event(id=7)), "envelope"),
    ("an id of 201 characters", structured(an_event("x" * 201)), "envelope"),
    ("no source", structured(an_event(source=None)), "envelope"),
    ("another specversion", structured(an_event(specversion="0.3")), "envelope"),
    ("an unknown type", structured(an_event(type="com.example.other.v1")), "type"),
    ("a later version of the type", structured(an_event(type="broadcast.publish.v2")), "type"),
    ("a time without a zone", structured(an_event(time="2026-11-04T10:00:00")), "envelope"),
    ("the year 9999", structured(an_event(time="9999-12-31T23:59:59Z")), "envelope"),
    ("an expiry in the year 9999", structured(an_event(data=a_message(expiresAt="9999-12-31T00:00:00Z"))), "fields"),
    ("wrong types", structured(an_event(data={"title": 1, "content": [], "targetType": {}})), "fields"),
    ("no data", structured(an_event(data={})), "fields"),
    ("an unknown field", structured(an_event(data=a_message(bold="yes"))), "fields"),
    ("data in base64", structured(an_event(data_base64="e30=")), "envelope"),
    ("several at once", Record(b"[]", headers=(("content-type", b"application/cloudevents-batch+json"),)), "envelope"),
    ("a type that is no JSON", Record(b"<a/>", headers=(("content-type", b"text/xml"),), place=PLACE), "content-type"),
    ("headers that are no UTF-8", Record(b"{}", headers=(("ce_id", b"\xff"),), place=PLACE), "envelope"),
    ("a key that is no UTF-8", bare(a_message(), key=b"\xff\xfe"), "envelope"),
    ("a recall of nothing named", structured(an_event(type="broadcast.cancel.v1", data={"reason": "x"})), "fields"),
    ("a recall for another source", structured(a_cancel("1") | {"data": {"id": "1", "source": "x"}}), "not-allowed"),
    ("a wish to sign people out", structured(an_event(data=to_people("bob", closeSessions=True))), "not-allowed"),
]
