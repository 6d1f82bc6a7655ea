"""Ids in URLs. A number that does not fit into the database is 404, not an error."""

from flask import Flask
from werkzeug.routing import IntegerConverter


class _IdConverter(IntegerConverter):
    regex = r"\d{1,18}"  # fits into 63 bits


def init_app(app: Flask) -> None:
    app.url_map.converters["int"] = _IdConverter
