"""Downloads of any length: the rows are read chunk by chunk, and no connection is held while a client takes its time."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from flask import Flask, Response, current_app

from broadcast.domain.signed_csv import SignedCsvEncoder

CsvRows = Sequence[Sequence[Any]]


def stream_signed_csv(
    filename: str, header: Sequence[str], read_chunk: Callable[[Any], tuple[CsvRows, Any]]
) -> Response:
    """A CSV made by calling `read(None)`, then `read_chunk` with what it returned beside its rows, until that is None.

    Each call has an application context of its own; it runs after the request is over, so it must not ask who is there.
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
