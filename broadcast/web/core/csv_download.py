"""Downloads of any length: rows are read in chunks, and no database connection is held while a slow client reads."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from flask import Flask, Response, current_app

from broadcast.domain.signed_csv import SignedCsvEncoder

CsvRows = Sequence[Sequence[Any]]


def stream_signed_csv(
    filename: str, header: Sequence[str], read_chunk: Callable[[Any], tuple[CsvRows, Any]]
) -> Response:
    """A CSV from `read_chunk(None)`, then `read_chunk(position)` with the position it returned with its rows, until
    that is None.

    Each call has an application context of its own. It runs after the request, so it must not use the current identity.
    """
    app: Flask = current_app._get_current_object()
    response = Response(_encode_chunks(app, header, read_chunk), mimetype="text/csv")
    response.headers["Content-Disposition"] = f'attachment; filename="{filename}"'
    return response


def _encode_chunks(
    app: Flask, header: Sequence[str], read_chunk: Callable[[Any], tuple[CsvRows, Any]]
) -> Iterator[bytes]:
    writer, cursor = SignedCsvEncoder(app.secret_key), None
    yield writer.encode([header])
    while True:
        with app.app_context():
            rows, cursor = read_chunk(cursor)
        yield writer.encode(rows)
        if cursor is None:
            break
    yield writer.finish()
