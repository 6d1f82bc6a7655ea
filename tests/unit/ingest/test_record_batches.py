"""Any stored batch is read: corruption costs one record or the rest of its batch, and its position is reported."""

import resource
import struct
from collections.abc import Callable

import cramjam
import lz4.frame
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st
from kafka import TopicPartition
from kafka.consumer.fetcher import IsolationLevel
from kafka.protocol.consumer import FetchResponse
from kafka.record import MemoryRecords

from broadcast.ingest.kafka import record_batches
from broadcast.ingest.kafka.partition_records import PartitionRecords
from broadcast.ingest.kafka.record_batches import DecodedRecord
from tests.support.kafka_batches import (
    GZIP_CODEC,
    RawRecord,
    add_batch_header,
    build_batch,
    build_gzip_bomb,
    build_legacy_message,
    build_record,
    fix_checksum,
)

PARTITION = TopicPartition("ext.events", 1)


def read(
    data: bytes, *, since: int = 0, end: int | None = 1_000_000, aborted=(), most: int = 100
) -> list[DecodedRecord]:
    """As the consumer reads one answer of a broker; it must come to an end."""

    class Records(PartitionRecords):
        get_high_watermark = staticmethod(lambda _partition: end)

    answer = MemoryRecords(data)
    records = Records(
        since, PARTITION, answer, isolation_level=IsolationLevel.READ_COMMITTED, aborted_transactions=aborted
    )
    assert not data or answer.has_next(), "kafka-python would give up this answer"
    found: list[DecodedRecord] = []
    while records:  # as `poll` does, which never returns if this does not end
        part = records.take(most)
        assert part or not records
        found += part
    read.position = records.next_fetch_offset
    return found


def told(found: list[DecodedRecord]) -> list[tuple]:
    """First and last offset of each, and the value, or the code of why there is none."""
    return [
        (one.offset, one.next_offset - 1, one.rejection.code if one.rejection else one.record.value) for one in found
    ]


def test_good_records_are_read_with_key_headers_and_time():
    record = build_record(b"v", key=b"k", headers=[(b"ce_id", b"1"), (b"x", None)])
    [found] = read(build_batch([record], first=7))
    assert found.record.position == record_batches.RecordPosition("ext.events", 1, 7, 1_790_000_000_000)
    assert (found.record.value, found.record.key, found.record.headers) == (b"v", b"k", (("ce_id", b"1"), ("x", b"")))


def test_header_name_that_is_not_utf8_costs_its_record_alone_and_keeps_what_it_held():
    bad = build_record(b"bad", offset_delta=1, key=b"k", headers=[(b"\xff\xfe", b"x"), (b"good", b"y")])
    found = read(build_batch([b"a", bad, b"c"]))
    assert told(found) == [(0, 0, b"a"), (1, 1, "undecodable"), (2, 2, b"c")]
    assert (found[1].record.value, found[1].record.key) == (b"bad", b"k")
    assert found[1].record.headers[1] == ("good", b"y")
    assert found[1].rejection.reason == "The record cannot be read: the name of one of its headers is not UTF-8."


@pytest.mark.parametrize(
    "body",
    [
        b"", b"\0", b"\xff" * 12, build_record(b"x", offset_delta=1)[:-1] + b"\x09", build_record(b"x",
        offset_delta=1) + b"more",
        build_record(b"x", offset_delta=1)[:-2], build_record(b"x", offset_delta=1, headers=[(b"n", b"v")] * 1001),
        build_record(b"x", offset_delta=1, headers=[(b"n", b"v" * 70_000)]),
    ],
    ids=["empty", "one byte", "numbers without end", "more headers than there are", "longer than it says", "cut off",
         "1,001 headers", "a header of 70,000 bytes"],
)  # fmt: skip
def test_record_of_nonsense_costs_itself_alone(body):
    assert told(read(build_batch([b"a", RawRecord(body), b"c"]))) == [(0, 0, b"a"), (1, 1, "undecodable"), (2, 2, b"c")]


def corrupt(batch: bytes) -> bytes:
    return batch[:-1] + bytes([batch[-1] ^ 1])


BROKEN: dict[str, Callable[[], bytes]] = {
    "a wrong checksum": lambda: corrupt(build_batch([b"x", b"y"], first=2)),
    "a format of the future": lambda: build_batch([b"x", b"y"], first=2, magic=3),
    "a negative format": lambda: build_batch([b"x", b"y"], first=2, magic=-1),
    "an unknown codec": lambda: build_batch([b"x", b"y"], first=2, codec=6),
    "no gzip": lambda: build_batch([b"x", b"y"], first=2, codec=GZIP_CODEC, compress=lambda data: data),
    "gzip cut off": lambda: build_batch(
        [b"x", b"y"], first=2, codec=GZIP_CODEC, compress=lambda _: build_gzip_bomb(1)[:-9]
    ),
    "no snappy": lambda: build_batch([b"x", b"y"], first=2, codec=2, compress=lambda data: data),
    "no lz4": lambda: build_batch([b"x", b"y"], first=2, codec=3, compress=lambda data: data),
    "no zstd": lambda: build_batch([b"x", b"y"], first=2, codec=4, compress=lambda data: data),
    "fewer records than it says": lambda: add_batch_header(b"", 2, first=2, last=3),
    "a negative number of records": lambda: add_batch_header(b"", -1, first=2, last=3),
    "a record beyond its end": lambda: add_batch_header(b"\xfe\x01x", 2, first=2, last=3),
    "a number without end": lambda: add_batch_header(b"\xff" * 20, 2, first=2, last=3),
    "offsets in disorder": lambda: build_batch([build_record(b"x", offset_delta=9), b"y"], first=2),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_batch_is_one_letter_with_its_offsets_and_the_rest_goes_on(name):
    before, after = build_batch([b"a", b"b"]), build_batch([b"c"], first=4)
    found = read(before + BROKEN[name]() + after)
    assert told(found) == [(0, 0, b"a"), (1, 1, b"b"), (2, 3, "undecodable"), (4, 4, b"c")]
    assert found[2].rejection.reason.startswith("The batch of the records 2-3 cannot be read: ")
    assert found[2].record.size > 0
    assert read.position == 5


def test_what_is_read_of_a_broken_batch_is_not_read_again():
    tail = build_batch([b"a", b"b", b"c"])
    whole = fix_checksum(tail[:57] + struct.pack(">i", 4) + tail[61:])  # it says that there are four
    whole = fix_checksum(whole[:23] + struct.pack(">i", 3) + whole[27:])
    assert told(read(whole)) == [(0, 0, b"a"), (1, 1, b"b"), (2, 2, b"c"), (3, 3, "undecodable")]


def test_batch_whose_records_are_all_read_is_no_letter_though_more_follows():
    assert told(read(add_batch_header(build_batch([b"a"])[61:] + b"rest", 1))) == [(0, 0, b"a")]


@pytest.mark.parametrize("size", [1, 11, 12, 16, 17, 40, 60, 61, 70])
def test_answer_without_a_whole_batch_moves_on_by_what_it_says(size):
    found = read(build_batch([b"a" * 100], first=5)[:size], since=5, end=9)
    assert [(one.offset, one.rejection.code) for one in found] == [(5, "undecodable")]
    assert 5 < read.position <= 9


def test_cut_off_batch_after_a_whole_one_comes_again():
    assert told(read(build_batch([b"a"]) + build_batch([b"b"], first=1)[:-3])) == [(0, 0, b"a")]
    assert read.position == 1


@pytest.mark.parametrize(
    ("first", "delta"), [(2**60, 0), (-5, 0), (2, 2**31 - 1), (2, -7)], ids=["far away", "negative", "endless", "back"]
)
def test_offsets_that_cannot_be_true_are_not_believed(first, delta):
    """Nothing protects where a batch begins; a position beyond the end would begin the whole topic anew."""
    batch = build_batch([b"x"], first=first)
    batch = fix_checksum(batch[:23] + struct.pack(">i", delta) + batch[27:])
    found = read(build_batch([b"a", b"b"]) + batch, end=10)
    assert told(found)[:2] == [(0, 0, b"a"), (1, 1, b"b")]
    assert [one.rejection.code for one in found[2:]] in ([], ["undecodable"])
    assert 2 <= read.position <= 10


def test_reading_begins_in_the_middle_of_a_batch():
    assert told(read(build_batch([b"a", b"b", b"c"]), since=1)) == [(1, 1, b"b"), (2, 2, b"c")]
    assert told(read(corrupt(build_batch([b"a", b"b", b"c"])), since=1)) == [(1, 2, "undecodable")]


CODECS = {
    1: None,
    2: lambda data: bytes(cramjam.snappy.compress_raw(data)),
    3: lz4.frame.compress,
    4: zstandard.ZstdCompressor().compress,
}


def javas_snappy(data: bytes) -> bytes:
    blocks = [bytes(cramjam.snappy.compress_raw(data[n : n + 1000])) for n in range(0, len(data), 1000)]
    head = b"\x82SNAPPY\0" + struct.pack(">ii", 1, 1)
    return head + b"".join(struct.pack(">i", len(block)) + block for block in blocks)


@pytest.mark.parametrize("codec", CODECS)
def test_every_codec_of_kafka_is_read(codec):
    values = [b"v" * 3000 + str(n).encode() for n in range(50)]
    options = {} if codec == 1 else {"compress": CODECS[codec]}
    assert [one.record.value for one in read(build_batch(values, codec=codec, **options))] == values
    assert [one.record.value for one in read(build_batch(values, codec=2, compress=javas_snappy))] == values


BOMBS = {
    1: lambda: build_gzip_bomb(300),
    2: lambda: bytes(cramjam.snappy.compress_raw(bytes(64 * 2**20))),
    3: lambda: lz4.frame.compress(bytes(64 * 2**20)),
    4: lambda: zstandard.ZstdCompressor().compress(bytes(64 * 2**20)),
}


@pytest.mark.parametrize("codec", BOMBS)
def test_bomb_is_a_letter_and_takes_no_memory(codec):
    bomb = BOMBS[codec]()
    batch = build_batch([b"x"], first=1, codec=codec, compress=lambda _: bomb)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    found = read(build_batch([b"a"]) + batch + build_batch([b"b"], first=2))
    grown_mib = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    assert told(found) == [(0, 0, b"a"), (1, 1, "size"), (2, 2, b"b")]
    assert "larger than 32 MiB once it is decompressed" in found[1].rejection.reason
    assert grown_mib < 150


def test_small_bombs_of_one_large_record_each_do_not_add_up():
    """A value of more than 64 KiB is refused, so no more of it is kept while 500 of them are polled."""
    batches = b"".join(build_batch([bytes(8 * 2**20)], first=n, codec=GZIP_CODEC) for n in range(30))
    found = read(batches)
    assert {len(one.record.value) for one in found} == {64 * 1024}
    assert {one.record.size for one in found} == {8 * 2**20}


def test_markers_of_transactions_and_what_was_taken_back_are_passed_over():
    marker = build_record(b"\0" * 6, key=b"\0\0\0\0")
    data = build_batch([b"gone"], attributes=0x10, producer_id=4) + build_batch(
        [marker], first=1, attributes=0x30, producer_id=4
    )
    data += build_batch([b"kept"], first=2, attributes=0x10, producer_id=4)
    aborted = [FetchResponse.FetchableTopicResponse.PartitionData.AbortedTransaction(producer_id=4, first_offset=0)]
    assert told(read(data, aborted=aborted)) == [(2, 2, b"kept")]
    broken = build_batch([build_record(b"", key=None)], first=1, attributes=0x30, producer_id=4)
    assert told(read(build_batch([b"a"]) + broken + build_batch([b"b"], first=2))) == [
        (0, 0, b"a"), (1, 1, "undecodable"), (2, 2, b"b"),
    ]  # fmt: skip


@pytest.mark.parametrize("timestamp", [-1, -(2**63), 2**63 - 1])
def test_absurd_times_are_kept_only_where_they_can_be(timestamp):
    [found] = read(build_batch([RawRecord(b"\0" + b"\xfe\xff\xff\xff\xff\xff\xff\xff\xff\x01" + build_record(b"x")[2:])],
                           timestamp=timestamp))  # fmt: skip
    assert found.record.value == b"x"
    assert found.record.position.timestamp_ms is None or -(2**63) <= found.record.position.timestamp_ms < 2**63


def test_messages_of_old_brokers_are_read_alone_and_compressed():
    inner = build_legacy_message(b"b", offset=0, key=b"k") + build_legacy_message(None, offset=1)
    from gzip import compress

    data = build_legacy_message(b"a", offset=0, magic=0) + build_legacy_message(compress(inner), offset=2, codec=1)
    found = read(data + corrupt(build_legacy_message(b"c", offset=3)) + build_legacy_message(b"d", offset=4))
    assert told(found) == [(0, 0, b"a"), (1, 1, b"b"), (2, 2, None), (3, 3, "undecodable"), (4, 4, b"d")]
    assert found[1].record.key == b"k"
    bomb = build_legacy_message(build_gzip_bomb(100), offset=1, codec=1)
    assert told(read(build_legacy_message(b"a") + bomb)) == [(0, 0, b"a"), (1, 1, "size")]


@given(data=st.binary(max_size=200), at=st.integers(0, 300))
def test_no_bytes_make_it_raise_or_stand_still(data, at):
    whole = build_batch([b"a", b"b"]) + build_batch([b"c" * 50, b"d"], first=2) + build_batch([b"e"], first=4)
    at = min(at, len(whole))
    for changed in (data, whole[:at] + data + whole[at + len(data) :], whole[:at] + data):
        found = read(changed, end=5)
        places = [(one.offset, one.next_offset) for one in found]
        assert all(first < following for first, following in places)
        assert all(before[1] <= after[0] for before, after in zip(places, places[1:], strict=False))
        assert read.position > 0 or not changed


@given(data=st.binary(max_size=300))
def test_no_records_in_a_sound_batch_make_it_raise_or_stand_still(data):
    for found in (
        read(add_batch_header(data, 5, last=4), end=5),
        read(add_batch_header(data, 5, last=4, attributes=1), end=5),
    ):
        assert found[-1].next_offset <= 5
        assert read.position == 5
