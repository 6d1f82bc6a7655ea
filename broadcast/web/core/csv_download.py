"""Downloads of any length: rows are read in chunks, and no database connection is held while a slow client reads."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from flask import Flask, Response, current_app

from broadcast.domain import clock
from broadcast.domain.signed_csv import SignedCsvEncoder

CsvRows = Sequence[Sequence[Any]]
_BYTE_ORDER_MARK = "\ufeff".encode()  # Excel then reads UTF-8


def stream_csv(
    filename: str,
    header: Sequence[str],
    read_chunk: Callable[[Any], tuple[CsvRows, Any]],
    *,
    is_signed: bool = True,
) -> Response:
    """A CSV from `read_chunk(None)`, then `read_chunk(position)` with the position it returned with its rows, until
    that is None.

    Each call has an application context of its own. It runs after the request, so it must not use the current identity.
    """
    app: Flask = current_app._get_current_object()
    response = Response(_encode_chunks(app, header, read_chunk, is_signed), mimetype="text/csv")
    response.headers["Content-Disposition"] = f'attachment; filename="{filename}-{clock.now():%Y-%m-%d}.csv"'
    return response


def _encode_chunks(
    app: Flask, header: Sequence[str], read_chunk: Callable[[Any], tuple[CsvRows, Any]], is_signed: bool
) -> Iterator[bytes]:
    writer, cursor = SignedCsvEncoder(app.secret_key), None
    yield writer.encode([header]) if is_signed else _BYTE_ORDER_MARK + writer.encode([header])
    while True:
        with app.app_context():
            rows, cursor = read_chunk(cursor)
        yield writer.encode(rows)
        if cursor is None:
            break
    if is_signed:
        yield writer.finish()
