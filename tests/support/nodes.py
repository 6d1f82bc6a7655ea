"""Two nodes as an operator runs them: each with its own folder and settings, one PostgreSQL, one Redis, nginx in front."""

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
    """`via_proxy` is the system as people reach it: through nginx, with TLS. `first` and `second` answer for themselves."""

    first: System
    second: System
    via_proxy: System
    proxy: ServerProcess

    @property
    def nodes(self) -> list[System]:
        return [self.first, self.second]


@contextmanager
def shared_servers(folder: Path) -> Iterator[dict[str, str]]:
    """What the nodes of one system have in common, as settings of a System: a PostgreSQL database, a Redis, a key."""
    with ExitStack() as stack:
        server_url = (
            DATABASE_URL if (DATABASE_URL or "").startswith("postgresql") else stack.enter_context(run_postgres())
        )
        database = stack.enter_context(temporary_database(server_url))
        redis = RedisServer(folder)
        stack.callback(redis.stop)
        redis.start()
        redis_url = f"redis://127.0.0.1:{redis.port}/0"
        yield {"database_url": database, "redis_url": redis_url, "SECRET_KEY": secrets.token_hex(32)}


@pytest.fixture(scope="module")
def two_nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nodes]:
    """Serving, with the cast; a test that ends a node starts it again. Skips by name what the machine lacks."""
    for name in ("nginx", "redis-server", "openssl"):
        find_program_or_skip(name, name)
    folder = tmp_path_factory.mktemp("nodes")
    with ExitStack() as stack:
        settings = stack.enter_context(shared_servers(folder)) | {"TRUSTED_PROXY_HOPS": "1"}
        first, second = _make_node(folder / "first", settings), _make_node(folder / "second", settings)
        stack.enter_context(first)  # brings the database up to date, and adds the cast
        stack.push(second)
        second.start()
        proxy = make_nginx(
            folder / "nginx", [first.port, second.port], certificate=make_self_signed_certificate(folder / "tls")
        )
        stack.callback(proxy.stop)
        proxy.start()
        yield Nodes(first, second, first.with_url(f"https://localhost:{proxy.port}"), proxy)


def _make_node(folder: Path, settings: dict[str, str]) -> System:
    folder.mkdir()
    return System(folder, **settings)
