"""The OpenAPI document matches the API: exactly its routes, and the fields of a message."""

import re

import pytest

from broadcast.base.errors import Invalid
from broadcast.domain import clock
from broadcast.domain.message import parse_draft
from broadcast.web.api import openapi


def test_every_route_of_the_interface_is_described_and_nothing_else(routes):
    there = {
        (method.lower(), re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", rule.rule))
        for rule in routes
        if rule.rule.startswith("/api/")
        for method in rule.methods - {"HEAD", "OPTIONS"}
    }
    described = {
        (method, path) for path, operations in openapi.build_document("x")["paths"].items() for method in operations
    }
    assert described == there, "broadcast/web/api/openapi.py describes the routes, one line for each"


def test_fields_of_a_message_are_the_ones_that_are_read():
    schema = openapi.build_document("x")["components"]["schemas"]["Draft"]
    with pytest.raises(Invalid) as refused:
        parse_draft(dict.fromkeys(schema["properties"], object()) | {"surprise": 1}, now=clock.now())
    unknown = {name for name, sentence in refused.value.fields.items() if sentence == "There is no such field."}
    assert unknown == {"surprise"}
    with pytest.raises(Invalid) as refused:
        parse_draft({}, now=clock.now())
    assert set(refused.value.fields) == set(schema["required"])


def test_description_is_served_to_anyone(client):
    response = client().get("/api/openapi.json")
    assert (response.status_code, response.mimetype) == (200, "application/json")
    assert response.json["openapi"] == "3.1.0"
