"""Run in the environment of a system: hands events in as the bridge from Kafka does, only without a broker.

Reads a JSON list of batches of CloudEvents, one batch for each tenth of a second, and hands in as many of them as this machine
manages while they would take; prints what became of each event, as [kind, broadcast id, reason], and when the last batch was
committed (`time.monotonic()`, one clock for all processes on Linux).
"""

import json
import sys
import time
from datetime import datetime
from typing import Any

from broadcast.actions import inbound_events
from broadcast.base.errors import Busy
from broadcast.domain import clock
from broadcast.domain.actor import Actor
from broadcast.domain.inbound import Arrival, Place, Record
from broadcast.factory import create_app
from broadcast.ingest import contract

_EVERY_SECONDS = 0.1
_HEADERS = (("content-type", b"application/cloudevents+json"),)


def hand_in(batches: list[list[dict[str, Any]]]) -> dict[str, Any]:
    by, told, due = inbound_events.account(now=clock.now()), [], time.monotonic()
    ends = due + _EVERY_SECONDS * len(batches)
    for n, batch in enumerate(batches):
        if told and time.monotonic() > ends:
            break
        time.sleep(max(0.0, due - time.monotonic()))
        due += _EVERY_SECONDS
        now, arrivals = clock.now(), []
        for m, event in enumerate(batch):
            record = Record(json.dumps(event).encode(), headers=_HEADERS, place=Place("tests", n, m, 1_790_000_000_000))
            arrivals.append(Arrival(record, contract.read(record, now=now)))
        for outcome in _ingest(arrivals, by, now):
            told.append((outcome.kind, outcome.broadcast_id, outcome.rejected and outcome.rejected.reason))
    return {"outcomes": told, "committed_at": time.monotonic()}


def _ingest(arrivals: list[Arrival], by: Actor, now: datetime) -> list[inbound_events.Outcome]:
    while True:
        try:
            return inbound_events.ingest(arrivals, by=by, now=now)
        except Busy:
            time.sleep(_EVERY_SECONDS)


if __name__ == "__main__":
    with create_app().app_context():
        print(json.dumps(hand_in(json.load(sys.stdin))))
