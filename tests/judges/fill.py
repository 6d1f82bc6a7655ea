"""Run in the environment of a system: makes so many messages to everyone, in batches, as events from outside arrive."""

import sys

from broadcast.actions import inbound_events
from broadcast.domain import clock
from broadcast.domain.inbound import Arrival
from broadcast.factory import create_app
from broadcast.ingest import contract
from tests.acts import a_message
from tests.ingest.records import an_event, structured

_BATCH = 500


def fill(count: int) -> None:
    by, now = inbound_events.account(now=clock.now()), clock.now()
    for start in range(0, count, _BATCH):
        records = [
            structured(an_event(f"fill {n}", data=a_message(title=f"Message {n}")), offset=n)
            for n in range(start, min(start + _BATCH, count))
        ]
        inbound_events.ingest([Arrival(record, contract.read(record, now=now)) for record in records], by=by, now=now)


if __name__ == "__main__":
    with create_app().app_context():
        fill(int(sys.argv[1]))
