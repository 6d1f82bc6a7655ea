"""Decodes Kafka's record batches. A broken record costs itself, or at most the rest of its batch.

kafka-python abandons the consumer at the first unreadable byte, and decompresses without a limit. Here every batch has
a memory limit, and records have a length, so the next one is found even when this one is unreadable. The format:
https://kafka.apache.org/documentation/#recordbatch. Before Kafka 0.11 every batch was one message, which may contain
others, compressed.
"""

import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from kafka.record.util import calc_crc32c, decode_varint

from broadcast.domain.inbound import MAX_VALUE_BYTES, InboundRecord, RecordPosition, Rejection
from broadcast.ingest.kafka.decompression import Undecodable, decompress

MAX_BATCH_BYTES = 32 * 1024 * 1024  # of one batch, decompressed
MAX_HEADERS = 1_000  # of one record
MAX_HEADER_BYTES = 64 * 1024  # of all headers of one record
MAX_KEY_BYTES = 2 * 1024  # a longer key is cut
_LOG_OVERHEAD = struct.Struct(">qi")  # offset and length of the rest: the same in every version
_MAGIC_POSITION = 16
_V2_HEADER = struct.Struct(">qiibIhiqqqhii")
_V2_CRC_START = 21
_V1_HEADER = struct.Struct(">qiIbbq")
_V0_HEADER = struct.Struct(">qiIbb")
_V1_CRC_START = 16
_CODECS = {1: "gzip", 2: "snappy", 3: "lz4", 4: "zstd"}
_MAX_TIMESTAMP_MS = 2**63  # fits into databases and Kafka's own tools


@dataclass(frozen=True, slots=True)
class DecodedRecord:
    """One record, or an unreadable batch; `rejection` says why it is invalid. `next_offset` is the offset after it."""

    record: InboundRecord
    next_offset: int
    rejection: Rejection | None = None

    @property
    def offset(self) -> int:
        return self.record.position.offset


@dataclass(frozen=True, slots=True)
class RawBatch:
    """The bytes of one batch. `next_batch_offset` is where the next one begins, None when it is missing."""

    data: bytes
    next_batch_offset: int | None
    is_cut_off: bool = False

    @property
    def first_offset(self) -> int | None:
        return _LOG_OVERHEAD.unpack_from(self.data)[0] if len(self.data) >= _LOG_OVERHEAD.size else None

    @property
    def claimed_last_offset(self) -> int | None:
        """The last offset by the header, which may be broken too."""
        if len(self.data) >= _V2_HEADER.size and self.data[_MAGIC_POSITION] == 2:
            fields = _V2_HEADER.unpack_from(self.data)
            return fields[0] + fields[6]
        is_old = len(self.data) > _MAGIC_POSITION and self.data[_MAGIC_POSITION] < 2
        return self.first_offset if is_old else None  # before Kafka 0.11 a batch has the offset of its last message

    def estimate_offset_range(self, position: int, partition_end: int | None) -> tuple[int, int]:
        """The first and last offset of the batch from `position` on; `partition_end` is the partition's end, if known.

        A broken batch still covers at least one offset: its header is trusted only where it can be true.
        """
        limits = [limit for limit in (self.next_batch_offset, partition_end) if limit is not None and limit > position]
        first_offset, last_offset = self.first_offset, self.claimed_last_offset
        if first_offset is None or first_offset < position or any(first_offset >= limit for limit in limits):
            first_offset = position
        if last_offset is None or last_offset < first_offset or any(last_offset >= limit for limit in limits):
            last_offset = self.next_batch_offset - 1 if self.next_batch_offset in limits else first_offset
        return first_offset, last_offset


def split_batches(data: bytes) -> Iterator[RawBatch]:
    """Split a fetch response into batches. A truncated last batch is fetched again, and reported only if first."""
    position = 0
    while position < len(data):
        end = _find_batch_end(data, position)
        if end is None:
            if position == 0:
                yield RawBatch(bytes(data), None, is_cut_off=True)
            return
        next_batch_offset = _LOG_OVERHEAD.unpack_from(data, end)[0] if len(data) - end >= _LOG_OVERHEAD.size else None
        yield RawBatch(bytes(data[position:end]), next_batch_offset)
        position = end


def _find_batch_end(data: bytes, position: int) -> int | None:
    if len(data) - position < _LOG_OVERHEAD.size:
        return None
    length = _LOG_OVERHEAD.unpack_from(data, position)[1]
    end = position + _LOG_OVERHEAD.size + length
    return end if length >= 0 and end <= len(data) else None


class RecordBatch:
    """A batch with a valid header and checksum. The constructor raises Undecodable otherwise."""

    def __init__(self, raw: RawBatch, topic: str, partition: int, pause: Callable[[], None]):
        self._data, self._topic, self._partition, self._pause = raw.data, topic, partition, pause
        if raw.is_cut_off:
            raise Undecodable("it is cut off")
        if len(self._data) <= _MAGIC_POSITION:
            raise Undecodable("it is shorter than a header")
        self.magic = self._data[_MAGIC_POSITION]
        if self.magic > 2:
            raise Undecodable(f"its format is {self.magic}, which is not known")
        self.producer_id = -1
        try:
            if self.magic == 2:
                self._read_header()
            else:
                self._read_legacy_header()
        except struct.error:
            raise Undecodable("it is shorter than its header") from None

    def _read_header(self) -> None:
        fields = _V2_HEADER.unpack_from(self._data)
        self._base_offset, _, self.leader_epoch, _, crc, self._attributes, delta = fields[:7]
        self._base_timestamp_ms, self._max_timestamp_ms, self.producer_id = fields[7:10]
        self._record_count, self.last_offset = fields[12], self._base_offset + delta
        if calc_crc32c(memoryview(self._data)[_V2_CRC_START:]) != crc:
            raise Undecodable("its checksum is wrong")
        if delta < 0 or self._record_count < 0:
            raise Undecodable("its header contradicts itself")

    def _read_legacy_header(self) -> None:
        fields = (_V1_HEADER if self.magic == 1 else _V0_HEADER).unpack_from(self._data)
        self.last_offset, _, crc, _, self._attributes = fields[:5]
        self._max_timestamp_ms = fields[5] if self.magic == 1 else None
        self.leader_epoch = -1
        if zlib.crc32(memoryview(self._data)[_V1_CRC_START:]) != crc:
            raise Undecodable("its checksum is wrong")

    @property
    def is_transactional(self) -> bool:
        return self.magic == 2 and bool(self._attributes & 0x10)

    @property
    def is_control_batch(self) -> bool:
        """Whether it marks the end of a transaction and has no records."""
        return self.magic == 2 and bool(self._attributes & 0x20)

    def is_abort_marker(self) -> bool:
        """Whether this control batch aborts its transaction. Raises Undecodable."""
        for decoded in self.records():
            key = decoded.record.key
            if decoded.rejection is None and key is not None and len(key) >= 4:
                return struct.unpack_from(">h", key, 2)[0] == 0
        raise Undecodable("it does not say what becomes of its transaction")

    def records(self, *, start_offset: int = 0) -> Iterator[DecodedRecord]:
        """The records from `start_offset` on. Raises Undecodable and TooLarge, possibly after some records."""
        return self._decode_records(start_offset) if self.magic == 2 else self._decode_legacy_records(start_offset)

    def _decompress(self, data: bytes) -> bytes:
        codec = self._attributes & 0x07
        if not codec:
            return data
        if codec not in _CODECS:
            raise Undecodable(f"it is compressed with codec {codec}, which is not known")
        return decompress(data, _CODECS[codec], limit=MAX_BATCH_BYTES, pause=self._pause)

    def _decode_records(self, start_offset: int) -> Iterator[DecodedRecord]:
        data = self._decompress(self._data[_V2_HEADER.size :])
        position, previous_offset = 0, self._base_offset - 1
        for _ in range(self._record_count):
            length, position = _decode_varint(data, position, len(data))
            end = position + length
            if length < 0 or end > len(data):
                raise Undecodable("one of its records ends beyond it")
            decoded = self._decode_record(data, position, end, min_offset=previous_offset + 1)
            if not previous_offset < decoded.offset <= self.last_offset:
                raise Undecodable("the offsets of its records are in disorder")
            position, previous_offset = end, decoded.offset
            if decoded.offset >= start_offset:
                yield decoded
            self._pause()
        if position != len(data):
            raise Undecodable("it holds more than it says")

    def _decode_record(self, data: bytes, position: int, end: int, *, min_offset: int) -> DecodedRecord:
        """One record; if it is unreadable, the readable part, with the reason."""
        offset, key, timestamp = min_offset, None, None
        value, size = data[position : min(end, position + MAX_VALUE_BYTES)], end - position
        try:
            delta_ms, position = _decode_varint(data, position + 1, end)
            timestamp = self._max_timestamp_ms if self._attributes & 0x08 else self._base_timestamp_ms + delta_ms
            delta, position = _decode_varint(data, position, end)
            offset = self._base_offset + delta
            key, _, position = _decode_bytes(data, position, end, MAX_KEY_BYTES)
            value, size, position = _decode_bytes(data, position, end, MAX_VALUE_BYTES)
            headers, problem = _decode_headers(data, position, end)
        except Undecodable as error:
            headers, problem, offset = (), str(error), min_offset
        if timestamp is not None and not -_MAX_TIMESTAMP_MS <= timestamp < _MAX_TIMESTAMP_MS:
            timestamp = None
        record_position = RecordPosition(self._topic, self._partition, offset, timestamp)
        record = InboundRecord(value, key, headers, record_position, size)
        reason = problem and Rejection("undecodable", f"The record cannot be read: {problem}.")
        return DecodedRecord(record, offset + 1, reason or None)

    def _decode_legacy_records(self, start_offset: int) -> Iterator[DecodedRecord]:
        key, value = self._decode_legacy_body()
        if not self._attributes & 0x07:
            yield self._build_legacy_record(self.last_offset, self._max_timestamp_ms, key, value)
            return
        decompressed = self._decompress(value or b"")
        base_offset = self.last_offset - self._find_last_offset(decompressed) if self.magic == 1 else 0
        for message in split_batches(decompressed):
            self._pause()
            message_batch = RecordBatch(message, self._topic, self._partition, self._pause)
            if message_batch.magic > 1 or message_batch._attributes & 0x07:
                raise Undecodable("it holds batches, not messages")
            if base_offset + message_batch.last_offset < start_offset:
                continue
            timestamp = self._max_timestamp_ms if self._attributes & 0x08 else message_batch._max_timestamp_ms
            offset = base_offset + message_batch.last_offset
            yield self._build_legacy_record(offset, timestamp, *message_batch._decode_legacy_body())

    def _find_last_offset(self, messages: bytes) -> int:
        last_offset = position = 0
        while (end := _find_batch_end(messages, position)) is not None:
            last_offset, position = _LOG_OVERHEAD.unpack_from(messages, position)[0], end
            self._pause()
        return last_offset

    def _build_legacy_record(
        self, offset: int, timestamp: int | None, key: bytes | None, value: bytes | None
    ) -> DecodedRecord:
        record_position = RecordPosition(self._topic, self._partition, offset, timestamp)
        truncated_value, truncated_key = value and value[:MAX_VALUE_BYTES], key and key[:MAX_KEY_BYTES]
        record = InboundRecord(truncated_value, truncated_key, (), record_position, len(value or b""))
        return DecodedRecord(record, offset + 1)

    def _decode_legacy_body(self) -> tuple[bytes | None, bytes | None]:
        """Key and value."""
        data, parts, position = self._data, [], (_V1_HEADER if self.magic == 1 else _V0_HEADER).size
        for _ in ("key", "value"):
            try:
                (size,) = struct.unpack_from(">i", data, position)
            except struct.error:
                raise Undecodable("it is cut off") from None
            position += 4
            if size > len(data) - position:
                raise Undecodable("it is cut off")
            parts.append(data[position : position + size] if size >= 0 else None)
            position += max(0, size)
        return parts[0], parts[1]


def _decode_headers(data: bytes, position: int, end: int) -> tuple[tuple[tuple[str, bytes], ...], str | None]:
    """The headers, and what is wrong with them. Undecodable names have replacement characters."""
    count, position = _decode_varint(data, position, end)
    if not 0 <= count <= MAX_HEADERS:
        return (), f"it says that it has {count:,} headers, and at most {MAX_HEADERS:,} are read"
    headers, problem, remaining_bytes = [], None, MAX_HEADER_BYTES
    for _ in range(count):
        name, name_bytes, position = _decode_bytes(data, position, end, MAX_HEADER_BYTES)
        value, value_bytes, position = _decode_bytes(data, position, end, MAX_HEADER_BYTES)
        remaining_bytes -= name_bytes + value_bytes
        if remaining_bytes < 0:
            return (), f"its headers are larger than {MAX_HEADER_BYTES:,} bytes"
        try:
            text = (name or b"").decode()
        except UnicodeDecodeError:
            text, problem = (name or b"").decode(errors="replace"), "the name of one of its headers is not UTF-8"
        headers.append((text, value or b""))
    if position != end:
        problem = problem or "it is longer than what it holds"
    return tuple(headers), problem


def _decode_bytes(data: bytes, position: int, end: int, max_bytes: int) -> tuple[bytes | None, int, int]:
    """At most `max_bytes` of a field, its length, and the position after it. Raises Undecodable."""
    size, position = _decode_varint(data, position, end)
    if size < 0:
        return None, 0, position
    if position + size > end:
        raise Undecodable("one of its fields ends beyond it")
    return data[position : position + min(size, max_bytes)], size, position + size


def _decode_varint(data: bytes, position: int, end: int) -> tuple[int, int]:
    """A zigzag number, and the position after it. Raises Undecodable."""
    try:
        number, position = decode_varint(data, position)
    except (IndexError, ValueError):
        raise Undecodable("one of its numbers has no end") from None
    if position > end:
        raise Undecodable("one of its numbers has no end")
    return number, position
