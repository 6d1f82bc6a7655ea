"""The webhook: one external event, under the same contract as Kafka. The caller is told what was wrong."""

from flask import Blueprint, Response, jsonify, request, url_for

from broadcast.actions import inbound_events
from broadcast.actions.flood_control import OVER_CAP
from broadcast.base.errors import BroadcastError, Flooded, Invalid
from broadcast.domain import clock
from broadcast.domain.event_source import Owner
from broadcast.domain.inbound import VALUE_BYTES, Arrival, Record, Rejected
from broadcast.ingest import contract
from broadcast.ingest.kafka.decompression import TooLarge, Undecodable, gunzip, inflate
from broadcast.ingest.rules import RULES
from broadcast.observability import metrics
from broadcast.web.core.identity import allow, me

_CODINGS = {"identity": None, "gzip": gunzip, "x-gzip": gunzip, "deflate": inflate}
blueprint = Blueprint("events", __name__, url_prefix="/api")


@blueprint.post("/events")
@allow("events")
def receive():
    """202 and the broadcast's address, 200 for an event that is known, 422 with the reason, 429 for too many."""
    now = clock.now()
    record = Record(
        value=_body(),
        headers=tuple((name.lower(), value.encode("latin-1")) for name, value in request.headers),
    )
    identity = me()
    owner = Owner.account(identity.actor.user_id, identity.username)
    reading = contract.read(record, now=now, rules=RULES.current, owner=owner)
    if isinstance(reading, Rejected):
        metrics.events.labels("web", "rejected").inc()
        raise _refused(reading)
    [outcome] = inbound_events.ingest([Arrival(record, reading)], by=identity.actor, now=now)
    metrics.events.labels("web", outcome.kind).inc()
    if outcome.rejected is not None:
        raise _refused(outcome.rejected)
    return _told(outcome)


def _body() -> bytes:
    """The body, decompressed where it says that it is compressed. Raises Invalid."""
    body = request.stream.read(VALUE_BYTES + 1)
    coding = request.headers.get("Content-Encoding", "identity").strip().lower()
    if coding not in _CODINGS:
        raise Invalid({"content-encoding": "The Content-Encoding must be gzip, deflate, or identity."})
    if (decompress := _CODINGS[coding]) is None or len(body) > VALUE_BYTES:
        return body
    try:
        return decompress(body, limit=VALUE_BYTES)
    except TooLarge:
        sentence = f"The event has more than {VALUE_BYTES:,} bytes once it is decompressed; at most as many are read."
        raise Invalid({"size": sentence}) from None
    except Undecodable as problem:
        raise Invalid({"content-encoding": f"The body cannot be decompressed: {problem}."}) from None


def _told(outcome: inbound_events.Outcome) -> Response:
    response = jsonify(id=outcome.broadcast_id, outcome=outcome.kind)
    response.status_code = 200 if outcome.kind == "repeated" else 202
    response.headers["Location"] = url_for("api.one", broadcast_id=outcome.broadcast_id)
    return response


def _refused(rejected: Rejected) -> BroadcastError:
    if rejected.code == OVER_CAP:
        return Flooded(rejected.reason)
    return Invalid({rejected.code: rejected.reason})
