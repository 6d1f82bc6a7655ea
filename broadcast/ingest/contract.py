"""The contract with whoever announces events: CloudEvents 1.0, or bare JSON (docs/events.md).

`read` never raises: what cannot be understood is `Rejected` with a sentence. It is pure and quick, so a batch of records is
read before a transaction begins. The CloudEvents SDK is not used: it invents an id where one is missing, and an event
without an id can neither be told from its repeat nor be recalled.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, NoReturn
from urllib.parse import unquote

import structlog

from broadcast.base.errors import Invalid
from broadcast.domain import clock, event_source
from broadcast.domain.event_source import Owner
from broadcast.domain.inbound import VALUE_BYTES, Cancel, Publish, Reading, Record, Rejected
from broadcast.domain.message import is_one_line, read_draft
from broadcast.ingest.rules import NotCovered, Rule, Rules, TemplateFailed, rule_for

_log = structlog.get_logger(__name__)
PUBLISH = "broadcast.publish.v1"
CANCEL = "broadcast.cancel.v1"
NAME_CHARACTERS = 200  # of source, id and type
REASON_CHARACTERS = 500
_BARE = "kafka:"
_STRUCTURED = "application/cloudevents+json"
_REQUIRED = ("specversion", "id", "source", "type")


@dataclass(frozen=True, slots=True)
class Envelope:
    """One event: who says so, its name there, what kind it is, and its data as decoded JSON. `source` is canonical, `spelt` is
    how it was written.
    """

    source: str
    id: str
    type: str
    data: Any
    topic: str | None = None
    spelt: str = ""


def read(record: Record, *, now: datetime, rules: Rules = (), owner: Owner | None = None) -> Reading:
    """Make of a record what it asks for, under the rule of its source. Never raises.

    `owner` is who handed it in; by itself whoever may write to its topic.
    """
    try:
        return _read(record, now, rules, owner or owner_of(record))
    except Exception as problem:  # a mistake of ours: one event pays for it, not all that come after it
        _log.error("event.unreadable", place=str(record.place), exc_info=problem)
        return Rejected(
            "failed", f"This event could not be read ({type(problem).__name__}). The server's log says more."
        )


def owner_of(record: Record) -> Owner:
    """Whoever may write to the topic of a record; nobody for one of no topic."""
    return Owner.topic(record.place.topic) if record.place else Owner("", "")


def _read(record: Record, now: datetime, rules: Rules, owner: Owner) -> Reading:
    try:
        envelope = open_envelope(record)
    except _Poison as poison:
        return poison.rejected
    try:
        return _read_type(envelope, now, rules, owner)
    except RecursionError:
        return Rejected("not-json", "The data is nested too deeply.", envelope.source, envelope.id)
    except _Poison as poison:
        return poison.rejected.of(envelope.source, envelope.id)
    except Invalid as invalid:
        return Rejected("fields", str(invalid), envelope.source, envelope.id)


def envelope_of(record: Record) -> Envelope | None:
    """Source, id, type and data of a record; None for what cannot be understood that far. Never raises."""
    try:
        return open_envelope(record)
    except _Poison:
        return None


def open_envelope(record: Record) -> Envelope:
    """Find source, id, type and data of a record: structured, binary or bare, by its content type and headers."""
    if record.size > VALUE_BYTES:
        _refuse("size", f"The event has {record.size:,} bytes; at most {VALUE_BYTES:,} are read.")
    headers = _headers(record)
    content_type = headers.get("content-type", "").partition(";")[0].strip().lower()
    if content_type.startswith("application/cloudevents"):
        if content_type != _STRUCTURED:
            _refuse("envelope", f"The type {_shown(content_type)} is not read; send one event as {_STRUCTURED}.")
        return _structured(_json(record.value), record)
    attributes = {name[3:]: value for name, value in headers.items() if name[:3] in ("ce_", "ce-")}
    if attributes:
        return _from_attributes(attributes, _json(record.value, content_type), record)
    body = _json(record.value, content_type)
    if isinstance(body, Mapping) and "specversion" in body:  # structured, by a producer that sets no headers
        return _structured(body, record)
    return _bare(body, record)


class _Poison(Exception):
    def __init__(self, rejected: Rejected):
        self.rejected = rejected


def _refuse(code: str, reason: str) -> NoReturn:
    raise _Poison(Rejected(code, reason))


def _headers(record: Record) -> dict[str, str]:
    """Headers of interest as text; percent-encoding is of the HTTP binding alone."""
    found: dict[str, str] = {}
    for name, value in record.headers:
        name = name.lower()
        if name != "content-type" and name[:3] not in ("ce_", "ce-"):
            continue
        try:
            text = value.decode()
        except UnicodeDecodeError:
            _refuse("envelope", f"The header {_shown(name)} is not UTF-8.")
        found[name] = unquote(text) if name.startswith("ce-") else text
    return found


def _json(value: bytes | None, content_type: str = "") -> Any:
    if value is None or not value.strip():
        _refuse("empty", f"The event has no value. To recall a broadcast, send {CANCEL}.")
    if content_type and content_type != "application/json" and not content_type.endswith("+json"):
        _refuse("content-type", f"The data is {_shown(content_type)}; only JSON is read.")
    try:
        return _decode(value.decode("utf-8-sig"))  # some producers on Windows begin with a byte order mark
    except UnicodeDecodeError:
        _refuse("not-json", "The value is not UTF-8.")
    except RecursionError:
        _refuse("not-json", "The value is JSON nested too deeply.")
    except ValueError as problem:
        _refuse("not-json", f"The value is not JSON: {_shown(str(problem))}.")


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number in JSON")


def _unambiguous(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object; a key that stands twice would mean one thing here and another to whoever wrote or checked it."""
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise ValueError(f"the key {_shown(name, 40)} stands twice in one object")
        found[name] = value
    return found


_decode = json.JSONDecoder(parse_constant=_no_number, object_pairs_hook=_unambiguous).decode


def _structured(body: Any, record: Record) -> Envelope:
    if not isinstance(body, Mapping):
        _refuse("envelope", "A structured CloudEvent is one JSON object.")
    if "data_base64" in body:
        _refuse("envelope", "Send data as JSON in the field data, not in data_base64.")
    attributes = {name: value for name, value in body.items() if name != "data"}
    return _from_attributes(attributes, body.get("data"), record)


def _from_attributes(attributes: Mapping[str, Any], data: Any, record: Record) -> Envelope:
    for name in _REQUIRED:
        if name not in attributes:
            _refuse("envelope", f"The CloudEvent has no {name}.")
    if attributes["specversion"] != "1.0":
        _refuse("envelope", f"The CloudEvent's specversion is {_shown(attributes['specversion'])}; 1.0 is read.")
    time = attributes.get("time")
    if time is not None and not _is_past_time(time):
        _refuse("envelope", f"The CloudEvent's time is {_shown(time)}, no time with its zone.")
    names = {name: _name(name, attributes[name]) for name in ("id", "source", "type")}
    topic = record.place and record.place.topic
    names["source"] = event_source.canonical(spelt := names["source"])
    if len(names["source"]) > NAME_CHARACTERS:
        _refuse(
            "envelope",
            f"The event's source has more than {NAME_CHARACTERS} characters once its host is written as in DNS.",
        )
    if names["source"].startswith(_BARE) and names["source"] != f"{_BARE}{topic}":
        _refuse(
            "not-allowed", f"A source that begins with {_BARE} is what bare JSON on that topic is called; use another."
        )
    return Envelope(**names, data=data, topic=topic, spelt=spelt)


def _bare(body: Any, record: Record) -> Envelope:
    """JSON without an envelope: the key is its id, else its place. It is from its topic, since it names no source."""
    place = record.place
    if place is None:
        _refuse("envelope", "The event has no CloudEvents envelope: specversion, id, source and type.")
    if not record.key:
        return _of_topic(place.topic, str(place), body)
    try:
        key = _name("key", record.key.decode())
    except UnicodeDecodeError:
        _refuse("envelope", "The record's key is not UTF-8, so it cannot be the id.")
    return _of_topic(place.topic, key, body)


def _of_topic(topic: str, id: str, body: Any) -> Envelope:
    return Envelope(f"{_BARE}{topic}", id, PUBLISH, body, topic, spelt=f"{_BARE}{topic}")


def _name(name: str, value: Any) -> str:
    is_fit = isinstance(value, str) and 0 < len(value) <= NAME_CHARACTERS and value.strip() and is_one_line(value)
    if not is_fit:
        _refuse("envelope", f"The event's {name} must be text of 1 to {NAME_CHARACTERS} characters, in one line.")
    return value


def _is_time(value: Any) -> bool:
    try:
        clock.from_wire(value)
    except (TypeError, ValueError, OverflowError):
        return False
    return True


def _is_past_time(value: Any) -> bool:
    """When an event happened: with its zone, and no farther ahead than any time here. A device without a clock says 1970."""
    try:
        moment = datetime.fromisoformat(value)
        return moment.tzinfo is not None and moment.year < clock.LAST_YEAR
    except (TypeError, ValueError):
        return False


def _read_type(envelope: Envelope, now: datetime, rules: Rules, owner: Owner) -> Reading:
    if envelope.type == CANCEL:
        return _cancel(envelope, owner)  # needs no rule: nobody recalls but what they have sent
    try:
        rule = rule_for(rules, source=envelope.source, topic=envelope.topic, type=envelope.type, owner=owner)
    except NotCovered as refusal:
        _refuse("no-rule", str(refusal))
    if envelope.type != PUBLISH and not rule.is_translator:
        _refuse("type", f"The type {_shown(envelope.type)} is not known; use {PUBLISH} or {CANCEL}.")
    return _publish(envelope, rule, now, owner)


def _publish(envelope: Envelope, rule: Rule, now: datetime, owner: Owner) -> Publish:
    try:
        data, key = _with_key(envelope, rule)
        data, asks_again = _with_wish(data, rule)
        draft = read_draft(_not_late(rule.shape(data), now), now=now)
    except TemplateFailed as problem:
        _refuse("template", f"{_shown(str(problem), 300)}.")
    if draft.close_sessions:
        _refuse("not-allowed", "An event from outside signs nobody out; a person who manages people may.")
    if (refusal := rule.refusal(draft)) is not None:
        _refuse("not-allowed", refusal)
    if rule.draft:
        draft = replace(draft, keep_as_draft=True)
    if asks_again and not draft.requires_ack:
        _refuse("fields", "acknowledgeAgain needs requiresAck.")
    return Publish(
        envelope.source,
        envelope.id,
        draft,
        sender_name=rule.sender or event_source.shown(envelope.source),
        owner=owner.key,
        spelt=envelope.spelt,
        collapse_key=key,
        cap=rule.cap,
        acknowledge_again=asks_again,
    )


def _with_key(envelope: Envelope, rule: Rule) -> tuple[Any, str | None]:
    """The data without its collapse key, and that key; without one, the one of its rule. Raises TemplateFailed."""
    data = envelope.data
    own = data.get("collapseKey") if isinstance(data, Mapping) and not rule.is_translator else None
    if own is not None and (not isinstance(own, str) or not own.strip()):
        _refuse("fields", f"collapseKey is text of 1 to {NAME_CHARACTERS} characters, in one line.")
    key = own.strip() if own else rule.collapse_key(data, envelope.type)
    if key is not None and not (len(key) <= NAME_CHARACTERS and is_one_line(key)):
        _refuse("fields", f"A collapse key is text of 1 to {NAME_CHARACTERS} characters, in one line.")
    if isinstance(data, Mapping) and not rule.is_translator:
        data = {name: value for name, value in data.items() if name != "collapseKey"}
    return data, key


def _with_wish(data: Any, rule: Rule) -> tuple[Any, bool]:
    """The data without `acknowledgeAgain`, and what it says."""
    if not isinstance(data, Mapping) or rule.is_translator or "acknowledgeAgain" not in data:
        return data, False
    wish = data["acknowledgeAgain"]
    if wish is not None and not isinstance(wish, bool):
        _refuse("fields", "acknowledgeAgain must be true or false.")
    return {name: value for name, value in data.items() if name != "acknowledgeAgain"}, bool(wish)


def _not_late(data: Any, now: datetime) -> Any:
    """An event may wait in Kafka beyond its start, which a person's form cannot: then it is sent at once."""
    start = data.get("scheduledAt") if isinstance(data, Mapping) else None
    if not _is_time(start) or clock.from_wire(start) > now:
        return data
    return {name: value for name, value in data.items() if name != "scheduledAt"}


def _cancel(envelope: Envelope, owner: Owner) -> Cancel:
    data = envelope.data
    if not isinstance(data, Mapping) or not data.keys() <= {"id", "source", "reason"} or "id" not in data:
        _refuse("fields", "The data of a cancel is {id, reason}: the id under which the broadcast was announced.")
    if (named := data.get("source")) is not None and (
        not isinstance(named, str) or event_source.canonical(named) != envelope.source
    ):
        _refuse("not-allowed", "A source recalls its own broadcasts only.")
    cancels = _name("id", data["id"])
    reason = data.get("reason", "Recalled by its source")
    reason = " ".join(reason.split()) if isinstance(reason, str) else ""
    if not 0 < len(reason) <= REASON_CHARACTERS or not is_one_line(reason):
        _refuse("fields", f"The reason is text of 1 to {REASON_CHARACTERS} characters.")
    return Cancel(envelope.source, envelope.id, cancels, reason, owner=owner.key, spelt=envelope.spelt)


def _shown(value: Any, most: int = 80) -> str:
    """Foreign text as it may stand in a sentence: short, and in one line."""
    text = value if isinstance(value, str) else repr(value)
    return "".join(character if is_one_line(character) else "�" for character in text[:most])
