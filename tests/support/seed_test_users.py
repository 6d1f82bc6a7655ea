"""Run in a system's environment: creates the test users and prints their tokens as JSON. One start instead of seven."""

import json

from broadcast.actions import tokens as token_actions
from broadcast.actions import users
from broadcast.domain import clock
from broadcast.domain.actor import SYSTEM
from broadcast.factory import create_app
from tests.support.users import TEST_USERS


def seed_test_users() -> dict[str, str]:
    """Return tokens by "username scope"."""
    tokens, now = {}, clock.now()
    for account in TEST_USERS:
        user_id = users.create_user(account.username, account.password, roles=account.roles, by=SYSTEM, now=now)
        for scope in ("inbox", "admin") if "admin" in account.roles else ("inbox",):
            token = token_actions.create_token(user_id, scopes=[scope], label="tests", by=SYSTEM, now=now)
            tokens[f"{account.username} {scope}"] = token
    return tokens


if __name__ == "__main__":
    with create_app().app_context():
        print(json.dumps(seed_test_users()))
