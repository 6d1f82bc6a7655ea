"""Ids in addresses: a number that no database can hold is an address where nothing is, not an error."""

from flask import Flask
from werkzeug.routing import IntegerConverter


class _IdConverter(IntegerConverter):
    regex = r"\d{1,18}"  # fits into 63 bits


def init_app(app: Flask) -> None:
    app.url_map.converters["int"] = _IdConverter
