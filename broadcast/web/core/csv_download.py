"""Downloads of any length: the rows are read chunk by chunk, and no connection is held while a client takes its time."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from flask import Flask, Response, current_app

from broadcast.domain.signed_csv import SignedCsv

Rows = Sequence[Sequence[Any]]


def signed_csv(filename: str, header: Sequence[str], read: Callable[[Any], tuple[Rows, Any]]) -> Response:
    """A CSV made by calling `read(None)`, then `read` with what it returned beside its rows, until that is None.

    Each call has an application context of its own; it runs after the request is over, so it must not ask who is there.
    """
    app: Flask = current_app._get_current_object()
    response = Response(_encoded(app, header, read), mimetype="text/csv")
    response.headers["Content-Disposition"] = f'attachment; filename="{filename}"'
    return response


def _encoded(app: Flask, header: Sequence[str], read: Callable[[Any], tuple[Rows, Any]]) -> Iterator[bytes]:
    file, after = SignedCsv(app.secret_key), None
    yield file.encode([header])
    while True:
        with app.app_context():
            rows, after = read(after)
        yield file.encode(rows)
        if after is None:
            break
    yield file.end()
