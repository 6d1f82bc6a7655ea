"""CSV that says whether it is still what was exported: its last line signs every byte before it.

A spreadsheet takes a cell that begins with = + - or @ for a formula, so such cells get an apostrophe before them.
"""

import csv
import hashlib
import hmac
import io
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

from broadcast.domain import clock

_FORMULA = ("=", "+", "-", "@", "\t", "\r")
SIGNATURE_MARK = "# signature hmac-sha256 "
_MARK = SIGNATURE_MARK.encode()


class SignedCsv:
    """Encodes rows piece by piece. Call `end` once, after the last row."""

    def __init__(self, key: str):
        self._mac = _mac(key)

    def encode(self, rows: Iterable[Sequence[Any]]) -> bytes:
        text = io.StringIO()
        csv.writer(text, lineterminator="\r\n").writerows([_cell(value) for value in row] for row in rows)
        data = text.getvalue().encode()
        self._mac.update(data)
        return data

    def end(self) -> bytes:
        return _MARK + self._mac.hexdigest().encode() + b"\r\n"


def is_genuine(data: bytes, keys: Iterable[str]) -> bool:
    """True if `data` is a whole export signed with one of `keys`, unchanged."""
    body, mark, signature = data.rpartition(_MARK)
    return bool(mark) and any(_matches(body, key, signature.strip()) for key in keys)


def _matches(body: bytes, key: str, signature: bytes) -> bool:
    mac = _mac(key)
    mac.update(body)
    return hmac.compare_digest(mac.hexdigest().encode(), signature)


def _mac(key: str) -> hmac.HMAC:
    return hmac.new(b"csv export " + key.encode(), digestmod=hashlib.sha256)


def _cell(value: Any) -> str:
    if isinstance(value, datetime):
        return clock.to_wire(value)
    text = "" if value is None else str(value)
    return "'" + text if text.startswith(_FORMULA) else text
