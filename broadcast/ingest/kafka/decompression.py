"""Decompression with a limit: a megabyte of gzip can stand for a gigabyte of memory.

Each codec of Kafka is read in pieces of at most CHUNK_BYTES and given up as soon as the whole passes the limit. Between two
pieces the caller's `pause` runs, so that the other greenlets of the worker do.
"""

import struct
import zlib
from collections.abc import Callable, Iterator
from typing import Any

CHUNK_BYTES = 256 * 1024  # a millisecond of work
_FEED_BYTES = 64 * 1024
_XERIAL = b"\x82SNAPPY\x00"  # how Java's producers frame snappy: a header, then blocks, each after its length
_XERIAL_HEADER_BYTES = 16


class TooLarge(Exception):
    """The data is larger than the limit once it is decompressed."""


class Undecodable(Exception):
    """The data is not what its codec writes, or is cut off; the message says what was wrong, without a full stop."""


def _no_pause() -> None:
    pass


def gunzip(data: bytes, *, limit: int, pause: Callable[[], None] = _no_pause) -> bytes:
    """Decompress one or more gzip members. Raises TooLarge, Undecodable."""
    return _whole(_frames(data, lambda: _Zlib(zlib.MAX_WBITS | 16), padding=b"\0"), "gzip", limit, pause)


def inflate(data: bytes, *, limit: int, pause: Callable[[], None] = _no_pause) -> bytes:
    """Decompress `deflate` of HTTP: zlib, or the bare stream that some clients send. Raises TooLarge, Undecodable."""
    is_zlib = len(data) >= 2 and data[0] & 0x0F == 8 and (data[0] << 8 | data[1]) % 31 == 0
    wbits = zlib.MAX_WBITS if is_zlib else -zlib.MAX_WBITS
    return _whole(_frames(data, lambda: _Zlib(wbits)), "deflate", limit, pause)


def unsnappy(data: bytes, *, limit: int, pause: Callable[[], None] = _no_pause) -> bytes:
    """Decompress snappy, with or without Java's frame. Raises TooLarge, Undecodable."""
    return _whole(_unsnappied(data, limit), "snappy", limit, pause)


def unlz4(data: bytes, *, limit: int, pause: Callable[[], None] = _no_pause) -> bytes:
    """Decompress LZ4 frames. Raises TooLarge, Undecodable."""
    return _whole(_unlz4ed(data), "lz4", limit, pause)


def unzstd(data: bytes, *, limit: int, pause: Callable[[], None] = _no_pause) -> bytes:
    """Decompress Zstandard frames. Raises TooLarge, Undecodable."""
    return _whole(_unzstded(data, limit), "zstd", limit, pause)


def _whole(pieces: Iterator[bytes], codec: str, limit: int, pause: Callable[[], None]) -> bytes:
    whole = bytearray()
    try:
        for piece in pieces:
            if len(whole) + len(piece) > limit:
                raise TooLarge
            whole += piece
            pause()
    except (TooLarge, Undecodable):
        raise
    except Exception as problem:  # each library has errors of its own, and cramjam's have no common base
        raise Undecodable(f"it is not {codec} ({problem})"[:200]) from None
    return bytes(whole)


class _Zlib:
    """zlib with the methods of LZ4FrameDecompressor."""

    def __init__(self, wbits: int):
        self._zlib, self._rest = zlib.decompressobj(wbits), b""

    def decompress(self, data: bytes, most: int) -> bytes:
        piece = self._zlib.decompress(self._rest + data, most)
        self._rest = self._zlib.unconsumed_tail
        return piece

    @property
    def needs_input(self) -> bool:
        return not self._rest

    @property
    def eof(self) -> bool:
        return self._zlib.eof

    @property
    def unused_data(self) -> bytes:
        return self._zlib.unused_data


def _frames(data: bytes, begin: Callable[[], Any], *, padding: bytes = b"") -> Iterator[bytes]:
    """Frames one after the other, with `padding` between them. The data is fed in small pieces: what a frame leaves over is
    copied, and a megabyte may be fifty thousand empty frames.
    """
    at, feed, frame = 0, b"", None
    while True:
        if not feed and (frame is None or frame.needs_input):
            feed, at = data[at : at + _FEED_BYTES], at + _FEED_BYTES
        if frame is None:
            feed = feed.lstrip(padding)
            if not feed and at >= len(data):
                return
            if not feed:
                continue
            frame = begin()
        piece = frame.decompress(feed, CHUNK_BYTES)
        if not (piece or feed or frame.eof) and frame.needs_input:
            raise Undecodable("it is cut off")
        yield piece
        feed = b""
        if frame.eof:
            feed, frame = frame.unused_data or b"", None


def _unsnappied(data: bytes, limit: int) -> Iterator[bytes]:
    if data[: len(_XERIAL)] != _XERIAL:
        yield _unsnappied_block(data, limit)
        return
    at, left = _XERIAL_HEADER_BYTES, limit
    while at < len(data):
        (size,) = struct.unpack_from(">i", data, at)
        at += 4
        if not 0 < size <= len(data) - at:
            raise Undecodable("it is cut off")
        piece = _unsnappied_block(data[at : at + size], left)
        left -= len(piece)
        yield piece
        at += size


def _unsnappied_block(block: bytes, limit: int) -> bytes:
    from cramjam import snappy

    if snappy.decompress_raw_len(block) > limit:  # a block says at its beginning how large it is
        raise TooLarge
    return bytes(snappy.decompress_raw(block))


def _unlz4ed(data: bytes) -> Iterator[bytes]:
    from lz4.frame import LZ4FrameDecompressor

    return _frames(data, LZ4FrameDecompressor)


def _unzstded(data: bytes, limit: int) -> Iterator[bytes]:
    from zstandard import ZstdDecompressor

    # The window is memory too, and the frame itself says how much.
    with ZstdDecompressor(max_window_size=limit).stream_reader(data, read_across_frames=True) as reader:
        while piece := reader.read(CHUNK_BYTES):
            yield piece
