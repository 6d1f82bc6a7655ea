"""Run in a system's environment with a count: creates that many users without a role, prints their tokens as JSON."""

import json
import secrets
import sys

from broadcast.actions import tokens, users
from broadcast.domain import clock
from broadcast.domain.actor import SYSTEM
from broadcast.factory import create_app


def create_recipients(count: int) -> list[str]:
    """Return one token per user, for reading the inbox."""
    now = clock.now()
    user_ids = [
        users.create_user(f"crowd{secrets.token_hex(6)}", None, roles=(), by=SYSTEM, now=now) for _ in range(count)
    ]
    return [tokens.create_token(user_id, scopes=["inbox"], label="crowd", by=SYSTEM, now=now) for user_id in user_ids]


if __name__ == "__main__":
    with create_app().app_context():
        print(json.dumps(create_recipients(int(sys.argv[1]))))
