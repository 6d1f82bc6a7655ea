"""CSV exports with a signature: the last line signs every byte before it.

Spreadsheets treat a cell that begins with = + - or @ as a formula, so such cells get a leading apostrophe.
"""

import csv
import hashlib
import hmac
import io
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

from broadcast.domain import clock

_FORMULA_PREFIXES = ("=", "+", "-", "@", "\t", "\r")
SIGNATURE_PREFIX = "# signature hmac-sha256 "
_SIGNATURE_PREFIX_BYTES = SIGNATURE_PREFIX.encode()


class SignedCsvEncoder:
    """Encodes rows in batches. Call `finish` once, after the last row."""

    def __init__(self, key: str):
        self._mac = _new_mac(key)

    def encode(self, rows: Iterable[Sequence[Any]]) -> bytes:
        text = io.StringIO()
        csv.writer(text, lineterminator="\r\n").writerows([_format_cell(value) for value in row] for row in rows)
        data = text.getvalue().encode()
        self._mac.update(data)
        return data

    def finish(self) -> bytes:
        return _SIGNATURE_PREFIX_BYTES + self._mac.hexdigest().encode() + b"\r\n"


def has_valid_signature(data: bytes, keys: Iterable[str]) -> bool:
    """Whether `data` is a complete, unchanged export signed with one of `keys`."""
    body, prefix, signature = data.rpartition(_SIGNATURE_PREFIX_BYTES)
    return bool(prefix) and any(
        hmac.compare_digest(_new_mac(key, body).hexdigest().encode(), signature.strip()) for key in keys
    )


def _new_mac(key: str, body: bytes = b"") -> hmac.HMAC:
    return hmac.new(b"csv export " + key.encode(), body, hashlib.sha256)


def _format_cell(value: Any) -> str:
    if isinstance(value, datetime):
        return clock.to_rfc3339(value)
    text = "" if value is None else str(value)
    return "'" + text if text.startswith(_FORMULA_PREFIXES) else text
