"""Decompression with a limit: a megabyte of gzip can expand to a gigabyte.

Each Kafka codec is read in pieces of at most CHUNK_BYTES, and stops once the total exceeds the limit. The caller's
`pause` runs between two pieces, so that the worker's other greenlets can run.
"""

import struct
import zlib
from collections.abc import Callable, Iterator
from typing import Any

CHUNK_BYTES = 256 * 1024  # one millisecond of work
_INPUT_CHUNK_BYTES = 64 * 1024
_XERIAL_MAGIC = b"\x82SNAPPY\x00"  # Java's framing of snappy: a header, then blocks with a length each
_XERIAL_HEADER_BYTES = 16


class TooLarge(Exception):
    """The decompressed data exceeds the limit."""


class Undecodable(Exception):
    """The data is invalid for its codec, or truncated. The message says what is wrong, without a full stop."""


def decompress(data: bytes, codec: str, *, limit: int, pause: Callable[[], None] = lambda: None) -> bytes:
    """Decompress Kafka's gzip, snappy, lz4 or zstd, or HTTP's gzip or deflate. Raises TooLarge, Undecodable."""
    joined = bytearray()
    try:
        for piece in _DECOMPRESSORS[codec](data, limit):
            if len(joined) + len(piece) > limit:
                raise TooLarge
            joined += piece
            pause()
    except (TooLarge, Undecodable):
        raise
    except Exception as problem:  # each library has its own errors, and cramjam's have no common base
        raise Undecodable(f"it is not {codec} ({problem})"[:200]) from None
    return bytes(joined)


class _ZlibDecompressor:
    """zlib with the interface of LZ4FrameDecompressor."""

    def __init__(self, wbits: int):
        self._zlib, self._unconsumed = zlib.decompressobj(wbits), b""

    def decompress(self, data: bytes, max_length: int) -> bytes:
        piece = self._zlib.decompress(self._unconsumed + data, max_length)
        self._unconsumed = self._zlib.unconsumed_tail
        return piece

    @property
    def needs_input(self) -> bool:
        return not self._unconsumed

    @property
    def eof(self) -> bool:
        return self._zlib.eof

    @property
    def unused_data(self) -> bytes:
        return self._zlib.unused_data


def _decompress_frames(data: bytes, new_frame: Callable[[], Any], *, padding: bytes = b"") -> Iterator[bytes]:
    """Decompress consecutive frames, with `padding` between them. Input is fed in small pieces: what a frame leaves
    over is copied, and a megabyte may hold fifty thousand empty frames.
    """
    position, input_chunk, frame = 0, b"", None
    while True:
        if not input_chunk and (frame is None or frame.needs_input):
            input_chunk, position = data[position : position + _INPUT_CHUNK_BYTES], position + _INPUT_CHUNK_BYTES
        if frame is None:
            input_chunk = input_chunk.lstrip(padding)
            if not input_chunk and position >= len(data):
                return
            if not input_chunk:
                continue
            frame = new_frame()
        piece = frame.decompress(input_chunk, CHUNK_BYTES)
        if not (piece or input_chunk or frame.eof) and frame.needs_input:
            raise Undecodable("it is cut off")
        yield piece
        input_chunk = b""
        if frame.eof:
            input_chunk, frame = frame.unused_data or b"", None


def _decompress_gzip(data: bytes, limit: int) -> Iterator[bytes]:
    """One or more gzip members."""
    return _decompress_frames(data, lambda: _ZlibDecompressor(zlib.MAX_WBITS | 16), padding=b"\0")


def _decompress_deflate(data: bytes, limit: int) -> Iterator[bytes]:
    """zlib, or the raw stream that some clients send."""
    is_zlib = len(data) >= 2 and data[0] & 0x0F == 8 and (data[0] << 8 | data[1]) % 31 == 0
    return _decompress_frames(data, lambda: _ZlibDecompressor(zlib.MAX_WBITS if is_zlib else -zlib.MAX_WBITS))


def _decompress_snappy(data: bytes, limit: int) -> Iterator[bytes]:
    """With or without Java's framing."""
    if data[: len(_XERIAL_MAGIC)] != _XERIAL_MAGIC:
        yield _decompress_snappy_block(data, limit)
        return
    position, remaining_bytes = _XERIAL_HEADER_BYTES, limit
    while position < len(data):
        (size,) = struct.unpack_from(">i", data, position)
        position += 4
        if not 0 < size <= len(data) - position:
            raise Undecodable("it is cut off")
        piece = _decompress_snappy_block(data[position : position + size], remaining_bytes)
        remaining_bytes -= len(piece)
        yield piece
        position += size


def _decompress_snappy_block(block: bytes, limit: int) -> bytes:
    from cramjam import snappy

    if snappy.decompress_raw_len(block) > limit:  # a block begins with its size
        raise TooLarge
    return bytes(snappy.decompress_raw(block))


def _decompress_lz4(data: bytes, limit: int) -> Iterator[bytes]:
    from lz4.frame import LZ4FrameDecompressor

    return _decompress_frames(data, LZ4FrameDecompressor)


def _decompress_zstd(data: bytes, limit: int) -> Iterator[bytes]:
    from zstandard import ZstdDecompressor

    # The window uses memory too, and the frame sets its size.
    with ZstdDecompressor(max_window_size=limit).stream_reader(data, read_across_frames=True) as reader:
        while piece := reader.read(CHUNK_BYTES):
            yield piece


_DECOMPRESSORS: dict[str, Callable[[bytes, int], Iterator[bytes]]] = {
    "gzip": _decompress_gzip, "deflate": _decompress_deflate, "snappy": _decompress_snappy, "lz4": _decompress_lz4,
    "zstd": _decompress_zstd,
}  # fmt: skip
