"""Run in a system's environment: creates users with roles chosen by a seed; prints [username, roles, token] of each."""

import json
import random
import sys

from broadcast.actions import tokens, users
from broadcast.domain import clock
from broadcast.domain.actor import SYSTEM
from broadcast.factory import create_app

ROLES = ("ops", "sales", "night")


def seed_users(count: int, seed: int) -> list[tuple[str, list[str], str]]:
    rng, seeded_users, now = random.Random(seed), [], clock.now()
    for number in range(count):
        roles = [ROLES[number]] if number < len(ROLES) else sorted(rng.sample(ROLES, rng.randrange(3)))
        user_id = users.create_user(f"person{number}", None, roles=roles, by=SYSTEM, now=now)
        token = tokens.create_token(user_id, scopes=["inbox"], label="chaos", by=SYSTEM, now=now)
        seeded_users.append((f"person{number}", roles, token))
    return seeded_users


if __name__ == "__main__":
    with create_app().app_context():
        print(json.dumps(seed_users(int(sys.argv[1]), int(sys.argv[2]))))
