"""Run in a system's environment with a count: publishes that many messages to everyone, in batches like ingestion."""

import sys

from broadcast.actions import inbound_events
from broadcast.domain import clock
from broadcast.domain.inbound import InboundEvent
from broadcast.factory import create_app
from broadcast.ingest import contract
from tests.support.builders import build_message
from tests.support.inbound_records import build_cloud_event, build_structured_record

_BATCH_SIZE = 500


def ingest_messages(count: int) -> None:
    account, now = inbound_events.get_ingest_actor(now=clock.now()), clock.now()
    for start in range(0, count, _BATCH_SIZE):
        records = [
            build_structured_record(build_cloud_event(f"fill {n}", data=build_message(title=f"Message {n}")), offset=n)
            for n in range(start, min(start + _BATCH_SIZE, count))
        ]
        inbound_events.ingest(
            [InboundEvent(record, contract.read_command(record, now=now)) for record in records], by=account, now=now
        )


if __name__ == "__main__":
    with create_app().app_context():
        ingest_messages(int(sys.argv[1]))
