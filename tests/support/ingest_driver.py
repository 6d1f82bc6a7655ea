"""Run in a system's environment: ingests events as the Kafka bridge does, without a broker.

Reads a JSON list of batches of CloudEvents, one batch per tenth of a second, and ingests as many of them as this
machine can in the time they span. Prints the outcome of each event as [kind, broadcast id, reason], and when the last
batch was committed (`time.monotonic()`, one clock for all processes on Linux).
"""

import json
import sys
import time
from datetime import datetime
from typing import Any

from broadcast.actions import inbound_events
from broadcast.actions.inbound_batch import Outcome
from broadcast.base.errors import TemporarilyUnavailable
from broadcast.domain import clock
from broadcast.domain.actor import Actor
from broadcast.domain.inbound import InboundEvent, InboundRecord, RecordPosition
from broadcast.factory import create_app
from broadcast.ingest import contract

_BATCH_INTERVAL_SECONDS = 0.1
_CLOUDEVENTS_HEADERS = (("content-type", b"application/cloudevents+json"),)


def ingest_batches(batches: list[list[dict[str, Any]]]) -> dict[str, Any]:
    account, outcomes, next_batch_at = inbound_events.get_ingest_actor(now=clock.now()), [], time.monotonic()
    deadline = next_batch_at + _BATCH_INTERVAL_SECONDS * len(batches)
    for batch_number, batch in enumerate(batches):
        if outcomes and time.monotonic() > deadline:
            break
        time.sleep(max(0.0, next_batch_at - time.monotonic()))
        next_batch_at += _BATCH_INTERVAL_SECONDS
        now, arrived = clock.now(), []
        for event_number, event in enumerate(batch):
            record = InboundRecord(
                json.dumps(event).encode(),
                headers=_CLOUDEVENTS_HEADERS,
                position=RecordPosition("tests", batch_number, event_number, 1_790_000_000_000),
            )
            arrived.append(InboundEvent(record, contract.read_command(record, now=now)))
        for outcome in _ingest_with_retry(arrived, account, now):
            outcomes.append((outcome.kind, outcome.broadcast_id, outcome.rejection and outcome.rejection.reason))
    return {"outcomes": outcomes, "committed_at": time.monotonic()}


def _ingest_with_retry(arrived: list[InboundEvent], account: Actor, now: datetime) -> list[Outcome]:
    while True:
        try:
            return inbound_events.ingest(arrived, by=account, now=now)
        except TemporarilyUnavailable:
            time.sleep(_BATCH_INTERVAL_SECONDS)


if __name__ == "__main__":
    with create_app().app_context():
        print(json.dumps(ingest_batches(json.load(sys.stdin))))
