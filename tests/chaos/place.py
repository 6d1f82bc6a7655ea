"""A system to break: two workers, a Redis of its own behind a link, a database (PostgreSQL behind a link), and people."""

import json
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import sqlalchemy

from broadcast.launcher.redis_server import find_server
from tests.chaos.servers import Link, RedisServer
from tests.chaos.world import Place
from tests.databases import DATABASE_URL, database_of_its_own
from tests.system import TOP, System


@contextmanager
def a_place(folder: Path, *, people: int, seed: int) -> Iterator[Place]:
    """Everything started, and ended at the end. Raises LookupError without a Redis server on this machine."""
    program = find_server()
    if program is None:
        raise LookupError("no Redis or Valkey server on this machine")
    redis, failpoints = RedisServer(str(program), folder), folder / "failpoints"
    failpoints.mkdir()
    redis.start()
    redis_link = Link("127.0.0.1", redis.port)
    try:
        with database_of_its_own(DATABASE_URL) as database:
            database_link, linked = _linked(database)
            with System(
                folder,
                database_url=linked,
                redis_url=f"redis://127.0.0.1:{redis_link.port}",
                PYTHONPATH=str(TOP / "tests/failpoints"),
                FAILPOINTS=str(failpoints),
            ) as system:
                made = json.loads(system.run_module("tests.chaos.populate", str(people), str(seed)))
                admin = system.token("alice", "admin")
                roles, tokens = {who: of for who, of, _ in made}, {who: token for who, _, token in made}
                yield Place(system, redis, redis_link, database_link, database, failpoints, roles, tokens, admin)
    finally:
        redis.signal(signal.SIGCONT)
        redis.signal(signal.SIGKILL)


def _linked(database: str | None) -> tuple[Link | None, str | None]:
    """The same database through a link that can be closed; (None, None) for SQLite."""
    if database is None:
        return None, None
    url = sqlalchemy.make_url(database)
    link = Link(url.host or "127.0.0.1", url.port or 5432)
    return link, url.set(host="127.0.0.1", port=link.port).render_as_string(hide_password=False)
