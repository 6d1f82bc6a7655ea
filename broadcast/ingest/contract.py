"""The contract for inbound events: CloudEvents 1.0, or bare JSON (docs/events.md).

`read_command` never raises: a record it cannot read becomes a `Rejection` with a sentence. It is pure and fast, so a
batch is read before its transaction begins. The CloudEvents SDK is not used: it generates missing ids, and without its
own id an event can neither be deduplicated nor recalled.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, NoReturn
from urllib.parse import unquote

import structlog

from broadcast.base.errors import Invalid
from broadcast.domain import clock
from broadcast.domain.event_source import EventOwner, canonicalize_source, to_sender_name
from broadcast.domain.inbound import MAX_VALUE_BYTES, CancelCommand, Command, InboundRecord, PublishCommand, Rejection
from broadcast.domain.message import is_single_line, parse_draft
from broadcast.ingest.rules import NoMatchingRule, Rule, Rules, TemplateRenderError, find_rule

_log = structlog.get_logger(__name__)
PUBLISH_TYPE = "broadcast.publish.v1"
CANCEL_TYPE = "broadcast.cancel.v1"
MAX_NAME_CHARACTERS = 200  # of source, id and type
MAX_REASON_CHARACTERS = 500
_BARE_SOURCE_PREFIX = "kafka:"
_STRUCTURED_CONTENT_TYPE = "application/cloudevents+json"
_REQUIRED_ATTRIBUTES = ("specversion", "id", "source", "type")


@dataclass(frozen=True, slots=True)
class Envelope:
    """One event: source, id, type and decoded JSON data. `source` is canonical, `source_as_written` is as received."""

    source: str
    id: str
    type: str
    data: Any
    topic: str | None = None
    source_as_written: str = ""


def read_command(
    record: InboundRecord, *, now: datetime, rules: Rules = (), owner: EventOwner | None = None
) -> Command:
    """Read a record's command under the rule of its source. `owner` None: the writers of its topic. Never raises."""
    if owner is None:
        owner = EventOwner.for_topic(record.position.topic) if record.position else EventOwner("", "")
    try:
        return _read_record(record, now, rules, owner)
    except Exception as problem:  # a bug of ours costs this event, not all that follow
        _log.error("event.unreadable", place=str(record.position), exc_info=problem)
        return Rejection(
            "failed", f"This event could not be read ({type(problem).__name__}). The server's log has the details."
        )


def _read_record(record: InboundRecord, now: datetime, rules: Rules, owner: EventOwner) -> Command:
    try:
        envelope = open_envelope(record)
    except _RejectionError as error:
        return error.rejection
    try:
        return _read_by_type(envelope, now, rules, owner)
    except RecursionError:
        return Rejection("not-json", "The data is nested too deeply.", envelope.source, envelope.id)
    except _RejectionError as error:
        return error.rejection.with_source(envelope.source, envelope.id)
    except Invalid as invalid:
        return Rejection("fields", str(invalid), envelope.source, envelope.id)


def try_open_envelope(record: InboundRecord) -> Envelope | None:
    """Source, id, type and data of a record; None if they cannot be read. Never raises."""
    try:
        return open_envelope(record)
    except _RejectionError:
        return None


def open_envelope(record: InboundRecord) -> Envelope:
    """Source, id, type and data of a record: structured, binary or bare, by its content type and headers."""
    if record.size > MAX_VALUE_BYTES:
        _reject(f"The event has {record.size:,} bytes; at most {MAX_VALUE_BYTES:,} are read.", "size")
    headers = _decode_headers(record)
    content_type = headers.get("content-type", "").partition(";")[0].strip().lower()
    if content_type.startswith("application/cloudevents"):
        if content_type != _STRUCTURED_CONTENT_TYPE:
            _reject(
                f"The type {_abbreviate(content_type)} is not supported; send one event as {_STRUCTURED_CONTENT_TYPE}."
            )
        return _from_structured(_decode_json(record.value), record)
    attributes = {name[3:]: value for name, value in headers.items() if name[:3] in ("ce_", "ce-")}
    if attributes:
        return _from_attributes(attributes, _decode_json(record.value, content_type), record)
    body = _decode_json(record.value, content_type)
    if isinstance(body, Mapping) and "specversion" in body:  # structured, from a producer that sets no headers
        return _from_structured(body, record)
    return _from_bare_json(body, record)


class _RejectionError(Exception):
    def __init__(self, rejection: Rejection):
        self.rejection = rejection


def _reject(reason: str, code: str = "envelope") -> NoReturn:
    raise _RejectionError(Rejection(code, reason))


def _decode_headers(record: InboundRecord) -> dict[str, str]:
    """The relevant headers as text. Only the HTTP binding percent-encodes them."""
    decoded: dict[str, str] = {}
    for name, value in record.headers:
        name = name.lower()
        if name != "content-type" and name[:3] not in ("ce_", "ce-"):
            continue
        try:
            text = value.decode()
        except UnicodeDecodeError:
            _reject(f"The header {_abbreviate(name)} is not UTF-8.")
        decoded[name] = unquote(text) if name.startswith("ce-") else text
    return decoded


def _decode_json(value: bytes | None, content_type: str = "") -> Any:
    if value is None or not value.strip():
        _reject(f"The event has no value. To recall a broadcast, send {CANCEL_TYPE}.", "empty")
    if content_type and content_type != "application/json" and not content_type.endswith("+json"):
        _reject(f"The data is {_abbreviate(content_type)}; only JSON is supported.", "content-type")
    try:
        return _decode_strict_json(value.decode("utf-8-sig"))  # some producers on Windows write a byte order mark
    except UnicodeDecodeError:
        _reject("The value is not UTF-8.", "not-json")
    except RecursionError:
        _reject("The value is JSON nested too deeply.", "not-json")
    except ValueError as problem:
        _reject(f"The value is not JSON: {_abbreviate(str(problem))}.", "not-json")


def _reject_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a number in JSON")


def _build_unique_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object without duplicate keys, which parsers interpret differently."""
    unique: dict[str, Any] = {}
    for name, value in pairs:
        if name in unique:
            raise ValueError(f"the key {_abbreviate(name, 40)} appears twice in one object")
        unique[name] = value
    return unique


_decode_strict_json = json.JSONDecoder(parse_constant=_reject_constant, object_pairs_hook=_build_unique_object).decode


def _from_structured(body: Any, record: InboundRecord) -> Envelope:
    if not isinstance(body, Mapping):
        _reject("A structured CloudEvent must be one JSON object.")
    if "data_base64" in body:
        _reject("Send data as JSON in the field data, not in data_base64.")
    attributes = {name: value for name, value in body.items() if name != "data"}
    return _from_attributes(attributes, body.get("data"), record)


def _from_attributes(attributes: Mapping[str, Any], data: Any, record: InboundRecord) -> Envelope:
    for name in _REQUIRED_ATTRIBUTES:
        if name not in attributes:
            _reject(f"The CloudEvent has no {name}.")
    if attributes["specversion"] != "1.0":
        _reject(f"The CloudEvent's specversion is {_abbreviate(attributes['specversion'])}; only 1.0 is supported.")
    event_time = attributes.get("time")
    if event_time is not None and not _is_event_time(event_time):
        _reject(f"The CloudEvent's time is {_abbreviate(event_time)}, which is not a time with a time zone.")
    names = {name: _read_name(name, attributes[name]) for name in ("id", "source", "type")}
    topic = record.position and record.position.topic
    names["source"] = canonicalize_source(source_as_written := names["source"])
    if len(names["source"]) > MAX_NAME_CHARACTERS:
        _reject(
            f"The event's source has more than {MAX_NAME_CHARACTERS} characters once its host is written as in DNS."
        )
    if names["source"].startswith(_BARE_SOURCE_PREFIX) and names["source"] != f"{_BARE_SOURCE_PREFIX}{topic}":
        _reject(
            f"A source that begins with {_BARE_SOURCE_PREFIX} is reserved for bare JSON on a topic; use another.",
            "not-allowed",
        )
    return Envelope(**names, data=data, topic=topic, source_as_written=source_as_written)


def _from_bare_json(body: Any, record: InboundRecord) -> Envelope:
    """JSON without an envelope. The key is its id, else its position; the source is its topic."""
    position = record.position
    if position is None:
        _reject("The event has no CloudEvents envelope: specversion, id, source and type.")
    try:
        id = _read_name("key", record.key.decode()) if record.key else str(position)
    except UnicodeDecodeError:
        _reject("The record's key is not UTF-8, so it cannot be the id.")
    source = f"{_BARE_SOURCE_PREFIX}{position.topic}"
    return Envelope(source, id, PUBLISH_TYPE, body, position.topic, source_as_written=source)


def _read_name(name: str, value: Any) -> str:
    is_valid = (
        isinstance(value, str) and 0 < len(value) <= MAX_NAME_CHARACTERS and value.strip() and is_single_line(value)
    )
    if not is_valid:
        _reject(f"The event's {name} must be text of 1 to {MAX_NAME_CHARACTERS} characters, in one line.")
    return value


def _is_event_time(value: Any) -> bool:
    """A time with its zone, no farther in the future than any time here. A device without a clock says 1970."""
    try:
        moment = datetime.fromisoformat(value)
        return moment.tzinfo is not None and moment.year < clock.YEAR_LIMIT
    except (TypeError, ValueError):
        return False


def _read_by_type(envelope: Envelope, now: datetime, rules: Rules, owner: EventOwner) -> Command:
    if envelope.type == CANCEL_TYPE:
        return _read_cancel(envelope, owner)  # needs no rule: senders can recall only their own
    try:
        rule = find_rule(rules, source=envelope.source, topic=envelope.topic, type=envelope.type, owner=owner)
    except NoMatchingRule as no_rule:
        _reject(str(no_rule), "no-rule")
    if envelope.type != PUBLISH_TYPE and not rule.has_message_templates:
        _reject(f"The type {_abbreviate(envelope.type)} is not known; use {PUBLISH_TYPE} or {CANCEL_TYPE}.", "type")
    return _read_publish(envelope, rule, now, owner)


def _read_publish(envelope: Envelope, rule: Rule, now: datetime, owner: EventOwner) -> PublishCommand:
    try:
        data, collapse_key, acknowledge_again = _split_flood_fields(envelope, rule)
        fields = _rename_channels(_drop_past_start(rule.build_message_fields(data), now))
        draft = parse_draft(fields, now=now)
    except TemplateRenderError as problem:
        _reject(f"{_abbreviate(str(problem), 300)}.", "template")
    if draft.close_sessions:
        _reject("Inbound events cannot sign users out. Only a person who manages users can.", "not-allowed")
    if (refusal := rule.find_refusal(draft)) is not None:
        _reject(refusal, "not-allowed")
    if rule.is_draft_only:
        draft = replace(draft, keep_as_draft=True)
    if acknowledge_again and not draft.requires_ack:
        _reject("acknowledgeAgain needs requiresAck.", "fields")
    return PublishCommand(
        envelope.source,
        envelope.id,
        draft,
        sender_name=rule.sender_name or to_sender_name(envelope.source),
        owner=owner.key,
        source_as_written=envelope.source_as_written,
        collapse_key=collapse_key,
        rate_cap=rule.rate_cap,
        acknowledge_again=acknowledge_again,
    )


def _split_flood_fields(envelope: Envelope, rule: Rule) -> tuple[Any, str | None, bool]:
    """The data without `collapseKey` and `acknowledgeAgain`; the collapse key, or else its rule's; whether to
    acknowledge again. Data that a template renders has neither field. Raises TemplateRenderError.
    """
    data, own_key, acknowledge_again = envelope.data, None, None
    if isinstance(data, Mapping) and not rule.has_message_templates:
        own_key, acknowledge_again = data.get("collapseKey"), data.get("acknowledgeAgain")
        data = {name: value for name, value in data.items() if name not in ("collapseKey", "acknowledgeAgain")}
    if own_key is not None and (not isinstance(own_key, str) or not own_key.strip()):
        _reject(f"collapseKey must be text of 1 to {MAX_NAME_CHARACTERS} characters, in one line.", "fields")
    collapse_key = own_key.strip() if own_key else rule.render_collapse_key(envelope.data, envelope.type)
    if collapse_key is not None and not (len(collapse_key) <= MAX_NAME_CHARACTERS and is_single_line(collapse_key)):
        _reject(f"A collapse key must be text of 1 to {MAX_NAME_CHARACTERS} characters, in one line.", "fields")
    if acknowledge_again is not None and not isinstance(acknowledge_again, bool):
        _reject("acknowledgeAgain must be true or false.", "fields")
    return data, collapse_key, bool(acknowledge_again)


def _drop_past_start(data: Any, now: datetime) -> Any:
    """Drop a start that has passed, so that the event is sent at once. Unlike a form, an event may wait in Kafka."""
    scheduled_at = data.get("scheduledAt") if isinstance(data, Mapping) else None
    try:
        if clock.parse_rfc3339(scheduled_at) > now:
            return data
    except (TypeError, ValueError, OverflowError):
        return data  # what is no time is rejected with the other fields
    return {name: value for name, value in data.items() if name != "scheduledAt"}


def _rename_channels(data: Any) -> Any:
    """The fields of a message: what an event calls `channels` is its `escalation`."""
    if not isinstance(data, Mapping):
        return data
    if "escalation" in data:
        _reject("There is no field escalation in an event; name the policy in channels.", "fields")
    return {"escalation" if name == "channels" else name: value for name, value in data.items()}


def _read_cancel(envelope: Envelope, owner: EventOwner) -> CancelCommand:
    data = envelope.data
    if not isinstance(data, Mapping) or not {"id"} <= data.keys() <= {"id", "source", "reason"}:
        _reject(
            "The data of a cancel must be {id, reason}, with the id under which the broadcast was published.", "fields"
        )
    if (named_source := data.get("source")) is not None and (
        not isinstance(named_source, str) or canonicalize_source(named_source) != envelope.source
    ):
        _reject("A source can recall only its own broadcasts.", "not-allowed")
    cancelled_id = _read_name("id", data["id"])
    reason = data.get("reason", "Recalled by its source")
    reason = " ".join(reason.split()) if isinstance(reason, str) else ""
    if not 0 < len(reason) <= MAX_REASON_CHARACTERS or not is_single_line(reason):
        _reject(f"The reason must be text of 1 to {MAX_REASON_CHARACTERS} characters.", "fields")
    return CancelCommand(
        envelope.source,
        envelope.id,
        cancelled_id,
        reason,
        owner=owner.key,
        source_as_written=envelope.source_as_written,
    )


def _abbreviate(value: Any, max_characters: int = 80) -> str:
    """Foreign text for an error message: short, and in one line."""
    text = value if isinstance(value, str) else repr(value)
    return "".join(character if is_single_line(character) else "�" for character in text[:max_characters])
