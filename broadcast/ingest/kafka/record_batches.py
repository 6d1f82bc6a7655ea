"""Kafka's record batches, read so that what is broken in one costs that record, or at most the rest of its batch.

kafka-python gives up a whole consumer at the first byte it cannot read, and decompresses whatever it is sent. Here every
batch has a limit in memory, and every record ends where it says, so the next one begins there even when this one is
unreadable. The format: https://kafka.apache.org/documentation/#recordbatch; before Kafka 0.11 every batch was one message,
which may hold others, compressed.
"""

import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from kafka.record.util import calc_crc32c

from broadcast.domain.inbound import VALUE_BYTES, Place, Record, Rejected
from broadcast.ingest.kafka import decompression
from broadcast.ingest.kafka.decompression import Undecodable

BATCH_BYTES = 32 * 1024 * 1024  # of one batch, decompressed
HEADERS = 1_000  # of one record
HEADER_BYTES = 64 * 1024  # of all headers of one record
KEY_BYTES = 2 * 1024  # more of a key is neither kept nor read
_START = struct.Struct(">qi")  # offset, and length of what follows: the same in every version
_MAGIC_AT = 16
_V2 = struct.Struct(">qiibIhiqqqhii")
_V2_CRC_FROM = 21
_V1 = struct.Struct(">qiIbbq")
_V0 = struct.Struct(">qiIbb")
_V1_CRC_FROM = 16
_CODECS: dict[int, Callable[..., bytes]] = {
    1: decompression.gunzip,
    2: decompression.unsnappy,
    3: decompression.unlz4,
    4: decompression.unzstd,
}
_VARINT_BYTES = 10
_FARTHEST_MS = 2**63  # what a database and Kafka's own tools can hold


@dataclass(frozen=True, slots=True)
class Decoded:
    """One record, or a whole batch of which nothing can be read; `rejected` says why it is none. `next_offset` follows it."""

    record: Record
    next_offset: int
    rejected: Rejected | None = None

    @property
    def offset(self) -> int:
        return self.record.place.offset


@dataclass(frozen=True, slots=True)
class RawBatch:
    """The bytes of one batch. `limit` is the offset at which the next one begins, None when it is not there."""

    data: bytes
    limit: int | None
    is_cut_off: bool = False

    @property
    def first_offset(self) -> int | None:
        return _START.unpack_from(self.data)[0] if len(self.data) >= _START.size else None

    @property
    def claimed_last_offset(self) -> int | None:
        """The last offset by its header, which may be as broken as the rest."""
        if len(self.data) >= _V2.size and self.data[_MAGIC_AT] == 2:
            fields = _V2.unpack_from(self.data)
            return fields[0] + fields[6]
        is_old = len(self.data) > _MAGIC_AT and self.data[_MAGIC_AT] < 2
        return self.first_offset if is_old else None  # before Kafka 0.11 a batch was numbered as its last message

    def span(self, position: int, end: int | None) -> tuple[int, int]:
        """The first and last offset that it takes up from `position` on, where `end` is the partition's, if that is known.

        However broken it is, that is at least one offset: what its header claims is believed only where it can be true.
        """
        limits = [limit for limit in (self.limit, end) if limit is not None and limit > position]
        first, last = self.first_offset, self.claimed_last_offset
        if first is None or first < position or any(first >= limit for limit in limits):
            first = position
        if last is None or last < first or any(last >= limit for limit in limits):
            last = self.limit - 1 if self.limit in limits else first
        return first, last


def split(data: bytes) -> Iterator[RawBatch]:
    """The batches of one answer of a broker. The last is usually cut off, and comes again: only one that is first is told."""
    at = 0
    while at < len(data):
        end = _end_of(data, at)
        if end is None:
            if at == 0:
                yield RawBatch(bytes(data), None, is_cut_off=True)
            return
        following = _START.unpack_from(data, end)[0] if len(data) - end >= _START.size else None
        yield RawBatch(bytes(data[at:end]), following)
        at = end


def _end_of(data: bytes, at: int) -> int | None:
    if len(data) - at < _START.size:
        return None
    length = _START.unpack_from(data, at)[1]
    end = at + _START.size + length
    return end if length >= 0 and end <= len(data) else None


class Batch:
    """A batch whose header and checksum are right. Raises Undecodable when it is made of one that is not."""

    def __init__(self, raw: RawBatch, topic: str, partition: int, pause: Callable[[], None]):
        self._data, self._topic, self._partition, self._pause = raw.data, topic, partition, pause
        if raw.is_cut_off:
            raise Undecodable("it is cut off")
        if len(self._data) <= _MAGIC_AT:
            raise Undecodable("it is shorter than a header")
        self.magic = self._data[_MAGIC_AT]
        if self.magic > 2:
            raise Undecodable(f"its format is {self.magic}, which is not known")
        self.producer_id = -1
        try:
            if self.magic == 2:
                self._read_header()
            else:
                self._read_old_header()
        except struct.error:
            raise Undecodable("it is shorter than its header") from None

    def _read_header(self) -> None:
        fields = _V2.unpack_from(self._data)
        (self._first, _, self.leader_epoch, _, crc, self._attributes, delta, self._first_ms, self._newest_ms) = fields[
            :9
        ]
        self.producer_id, self._count, self.last_offset = fields[9], fields[12], self._first + delta
        if calc_crc32c(memoryview(self._data)[_V2_CRC_FROM:]) != crc:
            raise Undecodable("its checksum is wrong")
        if delta < 0 or self._count < 0:
            raise Undecodable("its header contradicts itself")

    def _read_old_header(self) -> None:
        if self.magic == 1:
            self.last_offset, _, crc, _, self._attributes, self._newest_ms = _V1.unpack_from(self._data)
        else:
            self.last_offset, _, crc, _, self._attributes = _V0.unpack_from(self._data)
            self._newest_ms = None
        self.leader_epoch = -1
        if zlib.crc32(memoryview(self._data)[_V1_CRC_FROM:]) != crc:
            raise Undecodable("its checksum is wrong")

    @property
    def is_transactional(self) -> bool:
        return self.magic == 2 and bool(self._attributes & 0x10)

    @property
    def is_control_batch(self) -> bool:
        """Whether it marks the end of a transaction, and holds nothing to be read."""
        return self.magic == 2 and bool(self._attributes & 0x20)

    def has_producer_id(self) -> bool:
        return self.producer_id > -1

    def is_abort_marker(self) -> bool:
        """Whether this control batch takes its transaction back. Raises Undecodable."""
        for decoded in self.records():
            key = decoded.record.key
            if decoded.rejected is None and key is not None and len(key) >= 4:
                return struct.unpack_from(">h", key, 2)[0] == 0
        raise Undecodable("it does not say what becomes of its transaction")

    def records(self, *, since: int = 0) -> Iterator[Decoded]:
        """The records from the offset `since` on. Raises Undecodable and TooLarge, perhaps after some."""
        return self._records(since) if self.magic == 2 else self._old_records(since)

    def _decompressed(self, data: bytes) -> bytes:
        codec = self._attributes & 0x07
        if not codec:
            return data
        if codec not in _CODECS:
            raise Undecodable(f"it is compressed with codec {codec}, which is not known")
        return _CODECS[codec](data, limit=BATCH_BYTES, pause=self._pause)

    def _records(self, since: int) -> Iterator[Decoded]:
        data = self._decompressed(self._data[_V2.size :])
        at, previous = 0, self._first - 1
        for _ in range(self._count):
            length, at = _varint(data, at, len(data))
            end = at + length
            if length < 0 or end > len(data):
                raise Undecodable("one of its records ends beyond it")
            decoded = self._record(data, at, end, at_least=previous + 1)
            if not previous < decoded.offset <= self.last_offset:
                raise Undecodable("the offsets of its records are in disorder")
            at, previous = end, decoded.offset
            if decoded.offset >= since:
                yield decoded
            self._pause()
        if at != len(data):
            raise Undecodable("it holds more than it says")

    def _record(self, data: bytes, at: int, end: int, *, at_least: int) -> Decoded:
        """One record; where it cannot be read, what is left of it, with the reason."""
        offset, key, value, size = at_least, None, data[at : min(end, at + VALUE_BYTES)], end - at
        timestamp = None
        try:
            delta_ms, at = _varint(data, at + 1, end)
            timestamp = self._newest_ms if self._attributes & 0x08 else self._first_ms + delta_ms
            delta, at = _varint(data, at, end)
            offset = self._first + delta
            key, _, at = _bytes(data, at, end, KEY_BYTES)
            value, size, at = _bytes(data, at, end, VALUE_BYTES)
            headers, problem = _headers(data, at, end)
        except Undecodable as broken:
            headers, problem, offset = (), str(broken), at_least
        if timestamp is not None and not -_FARTHEST_MS <= timestamp < _FARTHEST_MS:
            timestamp = None
        place = Place(self._topic, self._partition, offset, timestamp)
        record = Record(value, key, headers, place, size)
        reason = problem and Rejected("undecodable", f"The record cannot be read: {problem}.")
        return Decoded(record, offset + 1, reason or None)

    def _old_records(self, since: int) -> Iterator[Decoded]:
        key, value = self._old_body(self._data, self.magic)
        if not self._attributes & 0x07:
            yield self._old_record(self.last_offset, self._newest_ms, key, value)
            return
        inner = self._decompressed(value or b"")
        base = self.last_offset - self._newest_offset(inner) if self.magic == 1 else 0
        for message in split(inner):
            self._pause()
            held = Batch(message, self._topic, self._partition, self._pause)
            if held.magic > 1 or held._attributes & 0x07:
                raise Undecodable("it holds batches, not messages")
            if base + held.last_offset < since:
                continue
            timestamp = self._newest_ms if self._attributes & 0x08 else held._newest_ms
            yield self._old_record(base + held.last_offset, timestamp, *self._old_body(message.data, held.magic))

    def _newest_offset(self, messages: bytes) -> int:
        newest = at = 0
        while (end := _end_of(messages, at)) is not None:
            newest, at = _START.unpack_from(messages, at)[0], end
            self._pause()
        return newest

    def _old_record(self, offset: int, timestamp: int | None, key: bytes | None, value: bytes | None) -> Decoded:
        place = Place(self._topic, self._partition, offset, timestamp)
        kept = value and value[:VALUE_BYTES]
        return Decoded(Record(kept, key and key[:KEY_BYTES], (), place, len(value or b"")), offset + 1)

    def _old_body(self, data: bytes, magic: int) -> tuple[bytes | None, bytes | None]:
        parts, at = [], (_V1 if magic == 1 else _V0).size
        for _ in ("key", "value"):
            try:
                (size,) = struct.unpack_from(">i", data, at)
            except struct.error:
                raise Undecodable("it is cut off") from None
            at += 4
            if size > len(data) - at:
                raise Undecodable("it is cut off")
            parts.append(data[at : at + size] if size >= 0 else None)
            at += max(0, size)
        return parts[0], parts[1]


def _headers(data: bytes, at: int, end: int) -> tuple[tuple[tuple[str, bytes], ...], str | None]:
    """Headers, and what is wrong with them. A name that is no text is kept with marks in it."""
    count, at = _varint(data, at, end)
    if not 0 <= count <= HEADERS:
        return (), f"it says that it has {count:,} headers, and at most {HEADERS:,} are read"
    headers, problem, left = [], None, HEADER_BYTES
    for _ in range(count):
        name, name_bytes, at = _bytes(data, at, end, HEADER_BYTES)
        value, value_bytes, at = _bytes(data, at, end, HEADER_BYTES)
        left -= name_bytes + value_bytes
        if left < 0:
            return (), f"its headers are larger than {HEADER_BYTES:,} bytes"
        try:
            text = (name or b"").decode()
        except UnicodeDecodeError:
            text, problem = (name or b"").decode(errors="replace"), "the name of one of its headers is not UTF-8"
        headers.append((text, value or b""))
    if at != end:
        problem = problem or "it is longer than what it holds"
    return tuple(headers), problem


def _bytes(data: bytes, at: int, end: int, most: int) -> tuple[bytes | None, int, int]:
    """At most `most` bytes of a field, how many it has, and where the next one begins. Raises Undecodable."""
    size, at = _varint(data, at, end)
    if size < 0:
        return None, 0, at
    if at + size > end:
        raise Undecodable("one of its fields ends beyond it")
    return data[at : at + min(size, most)], size, at + size


def _varint(data: bytes, at: int, end: int) -> tuple[int, int]:
    """A zigzag number, and where the next field begins. Raises Undecodable."""
    if at < end and data[at] < 0x80:  # most are one byte
        return (data[at] >> 1) ^ -(data[at] & 1), at + 1
    raw = shift = 0
    for byte in data[at : min(end, at + _VARINT_BYTES)]:
        at += 1
        raw |= (byte & 0x7F) << shift
        if byte < 0x80:
            return (raw >> 1) ^ -(raw & 1), at
        shift += 7
    raise Undecodable("one of its numbers has no end")
