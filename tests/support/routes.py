"""Paths for every route, and Authorization headers."""

import re

from flask import Flask
from werkzeug.routing import Rule

from broadcast.actions import tokens
from broadcast.domain import clock
from broadcast.domain.actor import SYSTEM
from tests.support.builders import load_actor


def get_route_method(rule: Rule) -> str:
    [method] = rule.methods - {"HEAD", "OPTIONS"}
    return method


def build_route_path(rule: Rule, broadcast_id: int = 1) -> str:
    """Return a path of the route, with `broadcast_id` wherever it takes an id."""
    return re.sub(r"<[^>]+>", str(broadcast_id), rule.rule)


def make_bearer_headers(app: Flask, username: str, scopes: list[str]) -> dict[str, str]:
    """Return the headers of an API client with a token of this test user."""
    with app.app_context():
        user_id = load_actor(username).user_id
        token = tokens.create_token(user_id, scopes=scopes, label="x", by=SYSTEM, now=clock.now())
    return {"Authorization": f"Bearer {token}"}
