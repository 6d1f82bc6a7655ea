"""Console and inbox with a million users: `python -m bench.figures [--url postgresql://…] [--people 1000000]`.

Fills an empty database with bulk inserts (one broadcast per hundred users, five receipts per user), then requests pages
from the application in this process, and prints p50 and p95 of each. Without --url: SQLite in a temporary folder, a
tenth of the users. Half of the receipts belong to the five newest broadcasts, so that the first page of the list is the
worst case.
"""

import argparse
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import flask_migrate
from flask import Flask
from sqlalchemy import text

from broadcast.actions import users
from broadcast.config.settings import Settings
from broadcast.domain import clock
from broadcast.domain.actor import SYSTEM
from broadcast.factory import create_app
from broadcast.store.database import db
from tests.support.users import BrowserClient

ROLE_COUNT, CHOSEN_USERS, POPULAR_BROADCASTS = (
    100,
    100,
    5,
)  # roles; recipients of a broadcast to chosen users; broadcasts with half of the receipts
LIMITS_MS = {"publish": 50, "audience preview": 300}  # of all others: 100


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--url", help="an empty database; SQLite without it")
    parser.add_argument("--people", type=int, help="1,000,000 by default, 100,000 on SQLite")
    parser.add_argument("--rounds", type=int, default=60)
    options = parser.parse_args()
    people_count = options.people or (1_000_000 if options.url else 100_000)
    with tempfile.TemporaryDirectory() as folder:
        app = create_app(
            Settings(
                app_env="test", data_dir=Path(folder), database_url=options.url, secret_key="k" * 40,
                ratelimit_enabled=False, log_level="error",
            )
        )  # fmt: skip
        with app.app_context():
            flask_migrate.upgrade()
            if not db.session.scalar(text("SELECT count(*) FROM users")):
                _print_duration("filled", lambda: fill_database(people_count))
            db.session.remove()
        measure_pages(app, people_count, options.rounds)


def fill_database(people_count: int) -> None:
    """Insert users, roles, broadcasts and receipts, with ids from 1 without gaps."""
    alice = users.create_user("alice", None, roles=["admin"], by=SYSTEM, now=clock.now())
    assert alice == 1
    broadcasts, receipts = people_count // 100, people_count * 5
    receipts_per_popular, receipts_per_other = (
        receipts // 2 // POPULAR_BROADCASTS,
        receipts // 2 // (broadcasts - POPULAR_BROADCASTS),
    )
    values = {
        "people": people_count, "broadcasts": broadcasts, "roles": ROLE_COUNT, "chosen": CHOSEN_USERS,
        "quiet": receipts_per_other,
        "loud": receipts_per_popular, "first_loud": broadcasts - POPULAR_BROADCASTS + 1, "now": clock.now(),
    }  # fmt: skip
    is_sqlite = db.engine.dialect.name == "sqlite"
    with db.engine.begin() as connection:
        if not is_sqlite:
            connection.execute(text("SET session_replication_role = replica"))  # skip two foreign key checks per row
        for statement in _STATEMENTS:
            parameters = {name: value for name, value in values.items() if f":{name}" in statement}
            connection.execute(text(_expand_series(statement, is_sqlite)), parameters)
        if not is_sqlite:
            for table in ("users", "broadcasts"):
                connection.execute(text(f"SELECT setval('{table}_id_seq', (SELECT max(id) FROM {table}))"))
            connection.execute(text("SET session_replication_role = DEFAULT"))
    with db.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("ANALYZE" if is_sqlite else "VACUUM ANALYZE"))


# "FROM numbers(a, b, n)" means the numbers a to b as column n, whose syntax differs between the two databases
_STATEMENTS = [
    "INSERT INTO roles (name) SELECT 'role' || n FROM numbers(0, :roles - 1, n)",
    """INSERT INTO users (id, username, name, created_at, read_through_seq, preferences)
       SELECT n, 'person' || n, 'Person ' || n, :now, 0, '{}' FROM numbers(2, :people, n)""",
    "INSERT INTO user_roles (user_id, role_name) SELECT n, 'role' || (n % :roles) FROM numbers(2, :people, n)",
    """INSERT INTO user_roles (user_id, role_name)
       SELECT n * 10, 'role' || ((n * 10 + 1 + n % 7) % :roles) FROM numbers(1, :people / 10, n)""",
    "INSERT INTO person_words (word, user_id) SELECT 'person' || n, n FROM numbers(2, :people, n)",
    "INSERT INTO person_words (word, user_id) SELECT 'person', n FROM numbers(2, :people, n)",
    "INSERT INTO person_words (word, user_id) SELECT CAST(n AS VARCHAR(64)), n FROM numbers(2, :people, n)",
    "INSERT INTO silences (user_id, what) SELECT n * 20, 'category News' FROM numbers(1, :people / 20, n)",
    """INSERT INTO broadcasts (id, seq, status, revision, title, content, content_html, priority, actions, audience_kind,
         audience_count, requires_ack, close_sessions, sender_id, sender_name, created_at, updated_at, published_at)
       SELECT n, n, 'ACTIVE', 1, 'Broadcast number ' || n, 'Some text of it.', '<p>Some text of it.</p>', 'NORMAL', '[]',
         CASE WHEN n >= :first_loud OR n % 5 = 0 THEN 'everyone' WHEN n % 5 = 1 THEN 'users' ELSE 'roles' END,
         CASE WHEN n >= :first_loud OR n % 5 = 0 THEN :people WHEN n % 5 = 1 THEN :chosen ELSE :people / :roles END,
         n % 10 = 0, false, 1, 'Alice', :now, :now, :now FROM numbers(1, :broadcasts, n)""",
    """INSERT INTO broadcast_roles (broadcast_id, role_name) SELECT id, 'role' || (id % :roles) FROM broadcasts
       WHERE audience_kind = 'roles'""",
    """INSERT INTO broadcast_users (broadcast_id, user_id) SELECT id, 2 + (id * 7919 + n * 4001) % (:people - 1)
       FROM broadcasts, numbers(1, :chosen, n) WHERE audience_kind = 'users'""",
    """INSERT INTO receipts (broadcast_id, user_id, delivered_at, first_seen_at, read_at)
       SELECT id, 2 + (id * 7919 + n * 4001) % (:people - 1), :now, CASE WHEN n % 10 < 7 THEN :now END,
         CASE WHEN n % 10 < 5 THEN :now END FROM broadcasts, numbers(1, :quiet, n) WHERE id < :first_loud""",
    """INSERT INTO receipts (broadcast_id, user_id, delivered_at, first_seen_at, read_at)
       SELECT id, n + 1, :now, CASE WHEN n % 10 < 7 THEN :now END, CASE WHEN n % 10 < 5 THEN :now END
       FROM broadcasts, numbers(1, :loud, n) WHERE id >= :first_loud""",
    "UPDATE log_head SET seq = :broadcasts",
]


def _expand_series(statement: str, is_sqlite: bool) -> str:
    head, separator, arguments = statement.partition("numbers(")
    if not separator:
        return statement
    first, last, tail = arguments.split(",", 2)
    tail = tail.split(")", 1)[1]
    if not is_sqlite:
        return f"{head}generate_series({first}, {last}) AS s(n) {tail}"
    series = (
        f"(WITH RECURSIVE s(n) AS (SELECT {first} UNION ALL SELECT n + 1 FROM s WHERE n < {last}) SELECT n FROM s) AS s"
    )
    return f"{head}{series} {tail}"


def measure_pages(app: Flask, people_count: int, rounds: int) -> None:
    broadcasts = people_count // 100
    alice, rng = BrowserClient.for_user(app, "alice"), random.Random(1)
    readers = [BrowserClient.for_user(app, f"person{rng.randrange(2, people_count)}") for _ in range(20)]
    alice.get("/console/broadcasts/new")

    def get(path: Callable[[], str], client: Callable[[], BrowserClient] = lambda: alice) -> Callable[[], Any]:
        return lambda: client().get(path())

    def publish(**draft: Any) -> Callable[[], Any]:
        return lambda: alice.send("POST", "/api/admin/broadcasts", {"title": "T", "content": "C"} | draft)

    def preview_audience(**form: str) -> Callable[[], Any]:
        return lambda: alice.post("/console/audience", form)

    def random_broadcast_id() -> int:
        return rng.randrange(1, broadcasts)

    def random_reader() -> BrowserClient:
        return rng.choice(readers)

    requests = {
        "list: first page": get(lambda: "/console/broadcasts"),
        "list: a later page": get(lambda: f"/console/broadcasts?after={random_broadcast_id()}"),
        "list: live": get(lambda: "/console/broadcasts?filter=active"),
        "detail: any": get(lambda: f"/console/broadcasts/{random_broadcast_id()}"),
        "detail: the loudest": get(lambda: f"/console/broadcasts/{broadcasts}"),
        "detail: live funnel": get(lambda: f"/console/broadcasts/{broadcasts}/stats"),
        "figures: any": get(lambda: f"/console/broadcasts/{random_broadcast_id()}/figures"),
        "figures: the loudest": get(lambda: f"/console/broadcasts/{broadcasts}/figures"),
        "inbox: first page": get(lambda: "/inbox", random_reader),
        "inbox: unread": get(lambda: "/inbox?view=unread", random_reader),
        "inbox: a later page": get(lambda: f"/inbox?after={random_broadcast_id()}", random_reader),
        "inbox: counts": get(lambda: "/inbox/count", random_reader),
        "audience preview: everyone": preview_audience(targetType="ALL"),
        "audience preview: a role": preview_audience(targetType="ROLE", roles="role7"),
        "audience preview: some muted": preview_audience(targetType="ALL", category="News"),
        "publish: everyone": publish(targetType="ALL"),
        "publish: a role": publish(targetType="ROLE", targetIds=["role7"]),
        "people: search": get(lambda: f"/console/people?q=person{rng.randrange(people_count)}"),
        "people: everybody matches": get(lambda: "/console/people?q=p"),
        "people: picker": get(lambda: f"/console/people-found?pick=person{rng.randrange(people_count)}"),
    }
    print(f"{'':32}{'first':>9}{'p50':>9}{'p95':>9}   ms; {people_count:,} people, {rounds} rounds")
    for name, send_request in requests.items():
        durations_ms = [_time_request(send_request) for _ in range(rounds)]
        p95 = statistics.quantiles(durations_ms, n=20)[-1]
        limit = LIMITS_MS.get(name.partition(":")[0], 100)
        note = "" if p95 <= limit else f"   over {limit}"
        print(f"{name:32}{durations_ms[0]:9.1f}{statistics.median(durations_ms):9.1f}{p95:9.1f}{note}", flush=True)


def _time_request(send_request: Callable[[], Any]) -> float:
    started_at = time.perf_counter()
    response = send_request()
    response.get_data()
    duration_ms = (time.perf_counter() - started_at) * 1000
    assert response.status_code in (200, 201), response.get_data(as_text=True)[:500]
    return duration_ms


def _print_duration(label: str, action: Callable[[], Any]) -> None:
    started_at = time.perf_counter()
    action()
    print(f"{label} in {time.perf_counter() - started_at:.0f} s", flush=True)


if __name__ == "__main__":
    main()
