"""Record batches as producers write them, whole and broken in every way."""

import gzip
import struct
import zlib
from collections.abc import Callable, Sequence

from kafka.record.util import calc_crc32c

_CRC_AT, _ATTRIBUTES_AT = 17, 21
GZIP = 1


def varint(value: int) -> bytes:
    raw, out = (value << 1) ^ (value >> 63), bytearray()
    while raw > 0x7F:
        out.append(0x80 | raw & 0x7F)
        raw >>= 7
    return bytes([*out, raw])


def field(value: bytes | None) -> bytes:
    return varint(-1) if value is None else varint(len(value)) + value


class RawRecord(bytes):
    """A record as it stands in a batch, without its length."""


def a_record(
    value: bytes | None, *, at: int = 0, key: bytes | None = None, headers: Sequence[tuple[bytes, bytes | None]] = ()
) -> RawRecord:
    """One record of a batch; header names are bytes, so that they can be anything."""
    body = b"\0" + varint(0) + varint(at) + field(key) + field(value) + varint(len(headers))
    return RawRecord(body + b"".join(field(name) + field(value) for name, value in headers))


def a_batch(
    records: Sequence[bytes],
    *,
    first: int = 0,
    last: int | None = None,
    codec: int = 0,
    compress: Callable[[bytes], bytes] = gzip.compress,
    attributes: int = 0,
    producer_id: int = -1,
    magic: int = 2,
    timestamp: int = 1_790_000_000_000,
) -> bytes:
    """A batch of values, or of what `a_record` made, with a right checksum."""
    bodies = [one if isinstance(one, RawRecord) else a_record(one, at=n) for n, one in enumerate(records)]
    whole = b"".join(varint(len(body)) + body for body in bodies)
    return seal(compress(whole) if codec else whole, len(bodies), **{
        "first": first, "last": first + len(bodies) - 1 if last is None else last, "attributes": attributes | codec,
        "producer_id": producer_id, "magic": magic, "timestamp": timestamp,
    })  # fmt: skip


def seal(
    body: bytes, count: int, *, first: int = 0, last: int = 0, attributes: int = 0, producer_id: int = -1, magic: int = 2,
    timestamp: int = 0,
) -> bytes:  # fmt: skip
    """A header of version 2 in front of anything."""
    checked = struct.pack(
        ">hiqqqhii",
        attributes,
        last - first,
        timestamp,
        timestamp,
        producer_id,
        0 if producer_id >= 0 else -1,
        0,
        count,
    )
    checked += body
    head = struct.pack(">ibI", 0, magic, calc_crc32c(checked))
    return struct.pack(">qi", first, len(head) + len(checked)) + head + checked


def reseal(batch: bytes) -> bytes:
    """The batch with a checksum that is right again."""
    return batch[:_CRC_AT] + struct.pack(">I", calc_crc32c(batch[_ATTRIBUTES_AT:])) + batch[_ATTRIBUTES_AT:]


def an_old_message(
    value: bytes | None, *, offset: int = 0, key: bytes | None = None, magic: int = 1, codec: int = 0
) -> bytes:
    """A message as of Kafka before 0.11."""

    def old(part: bytes | None) -> bytes:
        return struct.pack(">i", -1) if part is None else struct.pack(">i", len(part)) + part

    checked = struct.pack(">bb", magic, codec) + (struct.pack(">q", 5) if magic else b"") + old(key) + old(value)
    return struct.pack(">qiI", offset, len(checked) + 4, zlib.crc32(checked)) + checked


def a_bomb(megabytes: int = 300) -> bytes:
    """The gzip of very much nothing, made without ever having it whole."""
    packing, piece = zlib.compressobj(9, wbits=zlib.MAX_WBITS | 16), bytes(2**20)
    return b"".join(packing.compress(piece) for _ in range(megabytes)) + packing.flush()
