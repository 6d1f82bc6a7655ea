"""Record batches as producers write them, valid and corrupt in every way."""

import gzip
import struct
import zlib
from collections.abc import Callable, Sequence

from kafka.record.util import calc_crc32c

_CRC_OFFSET, _ATTRIBUTES_OFFSET = 17, 21
GZIP_CODEC = 1


def encode_varint(value: int) -> bytes:
    zigzag, encoded = (value << 1) ^ (value >> 63), bytearray()
    while zigzag > 0x7F:
        encoded.append(0x80 | zigzag & 0x7F)
        zigzag >>= 7
    return bytes([*encoded, zigzag])


def encode_field(value: bytes | None) -> bytes:
    return encode_varint(-1) if value is None else encode_varint(len(value)) + value


class RawRecord(bytes):
    """An encoded record of a batch, without its length."""


def build_record(
    value: bytes | None,
    *,
    offset_delta: int = 0,
    key: bytes | None = None,
    headers: Sequence[tuple[bytes, bytes | None]] = (),
) -> RawRecord:
    """Return one record of a batch; header names are bytes, so that they may be invalid."""
    body = (
        b"\0"
        + encode_varint(0)
        + encode_varint(offset_delta)
        + encode_field(key)
        + encode_field(value)
        + encode_varint(len(headers))
    )
    return RawRecord(body + b"".join(encode_field(name) + encode_field(value) for name, value in headers))


def build_batch(
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
    """Return a batch of values or of `build_record` results, with a correct checksum."""
    bodies = [
        record if isinstance(record, RawRecord) else build_record(record, offset_delta=index)
        for index, record in enumerate(records)
    ]
    encoded = b"".join(encode_varint(len(body)) + body for body in bodies)
    return add_batch_header(compress(encoded) if codec else encoded, len(bodies), **{
        "first": first, "last": first + len(bodies) - 1 if last is None else last, "attributes": attributes | codec,
        "producer_id": producer_id, "magic": magic, "timestamp": timestamp,
    })  # fmt: skip


def add_batch_header(
    body: bytes, count: int, *, first: int = 0, last: int = 0, attributes: int = 0, producer_id: int = -1, magic: int = 2,
    timestamp: int = 0,
) -> bytes:  # fmt: skip
    """Put a batch header of version 2 before any body."""
    checksummed = struct.pack(
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
    checksummed += body
    header = struct.pack(">ibI", 0, magic, calc_crc32c(checksummed))
    return struct.pack(">qi", first, len(header) + len(checksummed)) + header + checksummed


def fix_checksum(batch: bytes) -> bytes:
    """Return the batch with its checksum corrected."""
    return batch[:_CRC_OFFSET] + struct.pack(">I", calc_crc32c(batch[_ATTRIBUTES_OFFSET:])) + batch[_ATTRIBUTES_OFFSET:]


def build_legacy_message(
    value: bytes | None, *, offset: int = 0, key: bytes | None = None, magic: int = 1, codec: int = 0
) -> bytes:
    """Return a message in the format before Kafka 0.11."""

    def encode_legacy_field(part: bytes | None) -> bytes:
        return struct.pack(">i", -1) if part is None else struct.pack(">i", len(part)) + part

    checksummed = (
        struct.pack(">bb", magic, codec)
        + (struct.pack(">q", 5) if magic else b"")
        + encode_legacy_field(key)
        + encode_legacy_field(value)
    )
    return struct.pack(">qiI", offset, len(checksummed) + 4, zlib.crc32(checksummed)) + checksummed


def build_gzip_bomb(megabytes: int = 300) -> bytes:
    """Return the gzip of that many megabytes of zeros, compressed in pieces."""
    compressor, zeros = zlib.compressobj(9, wbits=zlib.MAX_WBITS | 16), bytes(2**20)
    return b"".join(compressor.compress(zeros) for _ in range(megabytes)) + compressor.flush()
