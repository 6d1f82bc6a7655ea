"""Requests with a bounded number of fields, checked before parsing; long values are decoded in slices.

A limit in bytes alone does not protect the worker's loop: 256 KiB hold 100,000 form fields, and a field of 4 MB is a
million percent escapes. A request with more fields or parameters than any page sends is refused; decoding the rest lets
other greenlets run.
"""

from collections.abc import Iterator
from typing import IO, Any
from urllib.parse import unquote_to_bytes

from flask import Flask, Request, request
from werkzeug.exceptions import BadRequest, RequestEntityTooLarge
from werkzeug.formparser import FormDataParser

from broadcast.base.cooperative import Yielder

MAX_FORM_PARTS = 2000  # fields of one form: the 1,000 ids of a bulk action, and as many again
MAX_QUERY_PARAMETERS = 200
_SLICE_BYTES = 32 * 1024  # decoded at once: 2 ms when every character is escaped


class TooManyFields(RequestEntityTooLarge):
    """A form with more than MAX_FORM_PARTS fields. 413, as for too many bytes."""

    description = f"This form has more than {MAX_FORM_PARTS:,} fields, more than one request may have."


class TooManyParameters(BadRequest):
    """A URL with more than MAX_QUERY_PARAMETERS parameters."""

    description = f"This address has more than {MAX_QUERY_PARAMETERS} parameters."


class _FormParser(FormDataParser):
    def _parse_multipart(self, stream: IO[bytes], mimetype: str, content_length: int | None, options: dict) -> Any:
        try:
            return super()._parse_multipart(stream, mimetype, content_length, options)
        except RequestEntityTooLarge:
            if content_length is not None and content_length <= (self.max_form_memory_size or 0):
                raise TooManyFields() from None  # the size limit was checked before, so it has too many parts
            raise

    def _parse_urlencoded(self, stream: IO[bytes], mimetype: str, content_length: int | None, options: dict) -> Any:
        body = stream.read()
        if self.max_form_parts is not None and body.count(b"&") >= self.max_form_parts:
            raise TooManyFields()
        return stream, self.cls(_parse_pairs(body)), self.cls()


def _parse_pairs(body: bytes) -> Iterator[tuple[str, str]]:
    """Name and value of each field, as `urllib.parse.parse_qsl` reads them. Lets other greenlets run."""
    yielder = Yielder()
    for field in body.split(b"&"):
        if field:
            name, _, value = field.partition(b"=")
            yield _unquote(name, yielder), _unquote(value, yielder)


def _unquote(quoted: bytes, yielder: Yielder) -> str:
    chunks, start = [], 0
    while start < len(quoted):
        end = start + _SLICE_BYTES
        end -= next((cut for cut in (1, 2) if quoted[end - cut : end - cut + 1] == b"%"), 0)  # do not cut an escape
        chunks.append(unquote_to_bytes(quoted[start:end].replace(b"+", b" ")))
        start = end
        yielder.maybe_yield()
    return b"".join(chunks).decode("utf-8", "werkzeug.url_quote")


class BoundedRequest(Request):
    """The application's request class."""

    form_data_parser_class = _FormParser


def init_app(app: Flask) -> None:
    app.config["MAX_FORM_PARTS"] = MAX_FORM_PARTS
    app.before_request(_reject_long_query)


def _reject_long_query() -> None:
    if request.query_string.count(b"&") >= MAX_QUERY_PARAMETERS:
        raise TooManyParameters()
