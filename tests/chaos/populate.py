"""Run in the environment of a system: makes people with roles drawn by a seed, and prints [username, roles, token] of each."""

import json
import random
import sys

from broadcast.actions import users
from broadcast.domain import clock
from broadcast.domain.actor import SYSTEM
from broadcast.factory import create_app

ROLES = ("ops", "sales", "night")


def populate(count: int, seed: int) -> list[tuple[str, list[str], str]]:
    choose, made, now = random.Random(seed), [], clock.now()
    for n in range(count):
        roles = [ROLES[n]] if n < len(ROLES) else sorted(choose.sample(ROLES, choose.randrange(3)))
        user_id = users.create_person(f"person{n}", None, roles=roles, by=SYSTEM, now=now)
        token = users.create_token(user_id, scopes=["inbox"], label="chaos", by=SYSTEM, now=now)
        made.append((f"person{n}", roles, token))
    return made


if __name__ == "__main__":
    with create_app().app_context():
        print(json.dumps(populate(int(sys.argv[1]), int(sys.argv[2]))))
