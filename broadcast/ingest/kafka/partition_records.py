"""Where kafka-python hands what a broker answered to `record_batches`: its poll never fails because of what is in a record.

Imported late, like kafka-python itself (see `client`).
"""

from collections.abc import Callable, Iterator
from typing import Any

import structlog
from kafka import KafkaConsumer, TopicPartition
from kafka.consumer.fetcher import Fetcher, IsolationLevel

from broadcast.base.cooperative import Breath
from broadcast.domain.inbound import VALUE_BYTES, Place, Record, Rejected, offsets
from broadcast.ingest.kafka.decompression import TooLarge, Undecodable
from broadcast.ingest.kafka.record_batches import BATCH_BYTES, Batch, Decoded, RawBatch, split

_log = structlog.get_logger(__name__)


def read_leniently(consumer: KafkaConsumer) -> None:
    """Let `consumer.poll` return `Decoded` records, some of which are broken, instead of ending at the first broken one."""

    class Records(PartitionRecords):
        end_of = staticmethod(consumer.highwater)

    consumer._fetcher.PartitionRecords = Records


class PartitionRecords(Fetcher.PartitionRecords):
    """The records of one answer about one partition. Of kafka-python's own, how it decodes is replaced, and nothing else."""

    end_of: Callable[[TopicPartition], int | None]  # the offset after the newest record of a partition

    def __init__(self, fetch_offset: int, tp: TopicPartition, records: Any, *args: Any, **options: Any):
        if (
            records.size_in_bytes() and not records.has_next()
        ):  # kafka-python would stop at an answer without a whole batch
            records._next_slice = memoryview(records._buffer)
        super().__init__(fetch_offset, tp, records, *args, **options)

    def _unpack_records(self, tp: TopicPartition, records: Any, *_deserializers: Any) -> Iterator[Decoded]:
        breath = Breath()
        for raw in split(records._buffer):
            began = self.next_fetch_offset
            try:
                batch = Batch(raw, tp.topic, tp.partition, breath.take)
                end = self.end_of(tp)
                if end is not None and batch.last_offset >= end:  # no checksum protects where a batch begins
                    raise Undecodable("it says that it lies beyond the end of its partition")
                self.leader_epoch = batch.leader_epoch
                if not self._is_passed_over(batch):
                    for decoded in batch.records(since=began):
                        self._note(decoded)
                        yield decoded
                self.next_fetch_offset = max(began, self.next_fetch_offset, batch.last_offset + 1)
            except Exception as problem:
                if began < self.next_fetch_offset > (raw.claimed_last_offset or 0):
                    continue  # every record that it has was read
                broken = self._broken(tp, raw, problem)
                self._note(broken)
                yield broken
        self.drain()

    def _is_passed_over(self, batch: Batch) -> bool:
        """Whether its records were taken back by who wrote them, or it has none. Raises Undecodable."""
        if self.isolation_level == IsolationLevel.READ_COMMITTED and batch.has_producer_id():
            self._consume_aborted_transactions_up_to(batch.last_offset)
            if batch.is_control_batch:
                if batch.is_abort_marker():
                    self.aborted_producer_ids.discard(batch.producer_id)
            elif self._is_batch_aborted(batch):
                return True
        return batch.is_control_batch

    def _note(self, decoded: Decoded) -> None:
        self.records_read += 1
        self.bytes_read += decoded.record.size
        self.next_fetch_offset = max(self.next_fetch_offset, decoded.next_offset)

    def _broken(self, tp: TopicPartition, raw: RawBatch, problem: Exception) -> Decoded:
        """What is left of a batch from its first record on that could not be read."""
        first, last = raw.span(self.next_fetch_offset, self.end_of(tp))
        if not isinstance(problem, Undecodable | TooLarge):
            _log.error("kafka.undecodable", topic=tp.topic, partition=tp.partition, offset=first, exc_info=problem)
        place = Place(tp.topic, tp.partition, first, last_offset=last)
        record = Record(raw.data[:VALUE_BYTES], place=place, whole_bytes=len(raw.data))
        return Decoded(record, last + 1, _reason(place, problem))


def _reason(place: Place, problem: Exception) -> Rejected:
    number = offsets(place.offset, place.last_offset)
    records = f"The batch of the records {number}" if "-" in number else f"The batch of the record {number}"
    if isinstance(problem, TooLarge):
        megabytes = BATCH_BYTES // 2**20
        return Rejected("size", f"{records} is larger than {megabytes} MiB once it is decompressed; no more is read.")
    why = str(problem) if isinstance(problem, Undecodable) else f"{type(problem).__name__}, see the log"
    return Rejected("undecodable", f"{records} cannot be read: {why}.")
