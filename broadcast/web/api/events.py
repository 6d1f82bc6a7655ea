"""The webhook: one inbound event, under the same contract as Kafka. The response says what was wrong."""

from flask import Blueprint, jsonify, request, url_for

from broadcast.actions import inbound_events
from broadcast.base.errors import BroadcastError, Invalid, TooManyEvents
from broadcast.domain import clock
from broadcast.domain.event_source import EventOwner
from broadcast.domain.flood_control import OVER_CAP
from broadcast.domain.inbound import MAX_VALUE_BYTES, InboundEvent, InboundRecord, Rejection
from broadcast.ingest import contract
from broadcast.ingest.kafka.decompression import TooLarge, Undecodable, decompress
from broadcast.ingest.rules import RULES
from broadcast.observability import metrics
from broadcast.web.core.identity import allow, current_identity

_CODECS = {"identity": None, "gzip": "gzip", "x-gzip": "gzip", "deflate": "deflate"}
blueprint = Blueprint("events", __name__, url_prefix="/api")


@blueprint.post("/events")
@allow("events")
def receive():
    """202 and the broadcast's address, 200 for an event that is known, 422 with the reason, 429 for too many."""
    now = clock.now()
    headers = tuple((name.lower(), value.encode("latin-1")) for name, value in request.headers)
    record = InboundRecord(value=_read_body_bytes(), headers=headers)
    identity = current_identity()
    owner = EventOwner.for_account(identity.actor.user_id, identity.username)
    command = contract.read_command(record, now=now, rules=RULES.current, owner=owner)
    if isinstance(command, Rejection):
        metrics.inbound_events.labels("web", "rejected").inc()
        raise _to_error(command)
    [outcome] = inbound_events.ingest([InboundEvent(record, command)], by=identity.actor, now=now)
    metrics.inbound_events.labels("web", outcome.kind).inc()
    if outcome.rejection is not None:
        raise _to_error(outcome.rejection)
    response = jsonify(id=outcome.broadcast_id, outcome=outcome.kind)
    response.status_code = 200 if outcome.kind == "repeated" else 202
    response.headers["Location"] = url_for("api.detail", broadcast_id=outcome.broadcast_id)
    return response


def _read_body_bytes() -> bytes:
    """The body, decompressed if Content-Encoding says so. Raises Invalid."""
    body = request.stream.read(MAX_VALUE_BYTES + 1)
    encoding = request.headers.get("Content-Encoding", "identity").strip().lower()
    if encoding not in _CODECS:
        raise Invalid({"content-encoding": "The Content-Encoding must be gzip, deflate, or identity."})
    if (codec := _CODECS[encoding]) is None or len(body) > MAX_VALUE_BYTES:
        return body
    try:
        return decompress(body, codec, limit=MAX_VALUE_BYTES)
    except TooLarge:
        detail = f"The event has more than {MAX_VALUE_BYTES:,} bytes once it is decompressed, which is the limit."
        raise Invalid({"size": detail}) from None
    except Undecodable as problem:
        raise Invalid({"content-encoding": f"The body cannot be decompressed: {problem}."}) from None


def _to_error(rejected: Rejection) -> BroadcastError:
    if rejected.code == OVER_CAP:
        return TooManyEvents(rejected.reason)
    return Invalid({rejected.code: rejected.reason})
