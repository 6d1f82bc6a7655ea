"""Routes as a test walks them, and the key of a program."""

import re

from flask import Flask
from werkzeug.routing import Rule

from broadcast.actions import users
from broadcast.domain import clock
from broadcast.domain.actor import SYSTEM
from tests.support.builders import load_actor


def get_route_method(rule: Rule) -> str:
    [method] = rule.methods - {"HEAD", "OPTIONS"}
    return method


def build_route_path(rule: Rule, broadcast_id: int = 1) -> str:
    """An address of the route, with this id wherever it takes one."""
    return re.sub(r"<[^>]+>", str(broadcast_id), rule.rule)


def make_bearer_headers(app: Flask, username: str, scopes: list[str]) -> dict[str, str]:
    """The headers of a program that acts for this person of the cast."""
    with app.app_context():
        user_id = load_actor(username).user_id
        token = users.create_token(user_id, scopes=scopes, label="x", by=SYSTEM, now=clock.now())
    return {"Authorization": f"Bearer {token}"}
