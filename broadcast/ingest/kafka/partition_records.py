"""Makes kafka-python decode fetch responses with `record_batches`, so that no record can make its poll fail.

Imported late, like kafka-python itself (see `client`).
"""

from collections.abc import Callable, Iterator
from typing import Any

import structlog
from kafka import KafkaConsumer, TopicPartition
from kafka.consumer.fetcher import Fetcher, IsolationLevel

from broadcast.base.cooperative import Yielder
from broadcast.domain.inbound import MAX_VALUE_BYTES, InboundRecord, RecordPosition, Rejection, format_offsets
from broadcast.ingest.kafka.decompression import TooLarge, Undecodable
from broadcast.ingest.kafka.record_batches import MAX_BATCH_BYTES, DecodedRecord, RawBatch, RecordBatch, split_batches

_log = structlog.get_logger(__name__)


def install_lenient_decoder(consumer: KafkaConsumer) -> None:
    """Make `consumer.poll` return `DecodedRecord` records, some broken, instead of failing at the first broken one."""

    class Records(PartitionRecords):
        get_high_watermark = staticmethod(consumer.highwater)

    consumer._fetcher.PartitionRecords = Records


class PartitionRecords(Fetcher.PartitionRecords):
    """The records of one partition in a fetch response. Replaces only kafka-python's decoding."""

    get_high_watermark: Callable[[TopicPartition], int | None]  # the offset after the newest record of a partition

    def __init__(self, fetch_offset: int, tp: TopicPartition, records: Any, *args: Any, **options: Any):
        # kafka-python would stop at a response without a whole batch
        if records.size_in_bytes() and not records.has_next():
            records._next_slice = memoryview(records._buffer)
        super().__init__(fetch_offset, tp, records, *args, **options)

    def _unpack_records(self, tp: TopicPartition, records: Any, *_deserializers: Any) -> Iterator[DecodedRecord]:
        yielder = Yielder()
        for raw in split_batches(records._buffer):
            start_offset = self.next_fetch_offset
            try:
                batch = RecordBatch(raw, tp.topic, tp.partition, yielder.maybe_yield)
                end_offset = self.get_high_watermark(tp)
                # no checksum covers a batch's offset
                if end_offset is not None and batch.last_offset >= end_offset:
                    raise Undecodable("it says that it lies beyond the end of its partition")
                self.leader_epoch = batch.leader_epoch
                if not self._is_skipped(batch):
                    for decoded in batch.records(start_offset=start_offset):
                        self._count_record(decoded)
                        yield decoded
                self.next_fetch_offset = max(start_offset, self.next_fetch_offset, batch.last_offset + 1)
            except Exception as problem:
                if start_offset < self.next_fetch_offset > (raw.claimed_last_offset or 0):
                    continue  # all its records were read
                broken_record = self._build_broken_record(tp, raw, problem)
                self._count_record(broken_record)
                yield broken_record
        self.drain()

    def _is_skipped(self, batch: RecordBatch) -> bool:
        """Whether the batch was aborted or is empty. Raises Undecodable."""
        if self.isolation_level == IsolationLevel.READ_COMMITTED and batch.producer_id > -1:
            self._consume_aborted_transactions_up_to(batch.last_offset)
            if batch.is_control_batch:
                if batch.is_abort_marker():
                    self.aborted_producer_ids.discard(batch.producer_id)
            elif self._is_batch_aborted(batch):
                return True
        return batch.is_control_batch

    def _count_record(self, decoded: DecodedRecord) -> None:
        self.records_read += 1
        self.bytes_read += decoded.record.size
        self.next_fetch_offset = max(self.next_fetch_offset, decoded.next_offset)

    def _build_broken_record(self, tp: TopicPartition, raw: RawBatch, problem: Exception) -> DecodedRecord:
        """The part of a batch from its first unreadable record on."""
        first_offset, last_offset = raw.estimate_offset_range(self.next_fetch_offset, self.get_high_watermark(tp))
        if not isinstance(problem, Undecodable | TooLarge):
            where = {"topic": tp.topic, "partition": tp.partition, "offset": first_offset}
            _log.error("kafka.undecodable", **where, exc_info=problem)
        position = RecordPosition(tp.topic, tp.partition, first_offset, last_offset=last_offset)
        record = InboundRecord(raw.data[:MAX_VALUE_BYTES], position=position, full_size_bytes=len(raw.data))
        offset_range = format_offsets(first_offset, last_offset)
        batch_text = f"The batch of the record{'s' * ('-' in offset_range)} {offset_range}"
        if isinstance(problem, TooLarge):
            limit = f"{MAX_BATCH_BYTES // 2**20} MiB once it is decompressed; no more is read"
            rejection = Rejection("size", f"{batch_text} is larger than {limit}.")
        else:
            cause = str(problem) if isinstance(problem, Undecodable) else f"{type(problem).__name__}, see the log"
            rejection = Rejection("undecodable", f"{batch_text} cannot be read: {cause}.")
        return DecodedRecord(record, last_offset + 1, rejection)
