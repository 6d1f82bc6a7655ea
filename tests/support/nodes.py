"""Two nodes as an operator runs them: own folder and settings each, shared PostgreSQL and Redis, nginx in front."""

import secrets
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.databases import DATABASE_URL, temporary_database
from tests.support.servers import (
    RedisServer,
    ServerProcess,
    find_program_or_skip,
    make_nginx,
    make_self_signed_certificate,
    run_postgres,
)
from tests.support.system import System


@dataclass(frozen=True, slots=True)
class Nodes:
    """`via_proxy` is the system as users reach it: nginx with TLS. `first` and `second` are reached directly."""

    first: System
    second: System
    via_proxy: System
    proxy: ServerProcess

    @property
    def nodes(self) -> list[System]:
        return [self.first, self.second]


@contextmanager
def shared_servers(folder: Path) -> Iterator[dict[str, str]]:
    """Yield what the nodes share, as settings of a System: a PostgreSQL database, a Redis, a secret key."""
    with ExitStack() as stack:
        server_url = (
            DATABASE_URL if (DATABASE_URL or "").startswith("postgresql") else stack.enter_context(run_postgres())
        )
        database = stack.enter_context(temporary_database(server_url))
        redis = RedisServer(folder)
        stack.callback(redis.stop)
        redis.start()
        yield {"database_url": database, "redis_url": redis.url, "SECRET_KEY": secrets.token_hex(32)}


@pytest.fixture(scope="module")
def two_nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nodes]:
    """Two running nodes with the test users; a test that stops a node restarts it. Skips if a program is missing."""
    for name in ("nginx", "openssl"):
        find_program_or_skip(name, name)
    folder = tmp_path_factory.mktemp("nodes")
    with ExitStack() as stack:
        settings = stack.enter_context(shared_servers(folder)) | {"TRUSTED_PROXY_HOPS": "1"}
        first, second = _make_node(folder / "first", settings), _make_node(folder / "second", settings)
        stack.enter_context(first)  # migrates the database and adds the test users
        stack.push(second)
        second.start()
        yield stack.enter_context(proxy_nodes(folder, first, second))


@contextmanager
def proxy_nodes(folder: Path, first: System, second: System) -> Iterator[Nodes]:
    """Run nginx in front of two running nodes."""
    certificate = make_self_signed_certificate(folder / "tls")
    proxy = make_nginx(folder / "nginx", [first.port, second.port], certificate=certificate)
    proxy.start()
    try:
        yield Nodes(first, second, first.with_url(f"https://localhost:{proxy.port}"), proxy)
    finally:
        proxy.stop()


def _make_node(folder: Path, settings: dict[str, str]) -> System:
    folder.mkdir()
    return System(folder, **settings)
