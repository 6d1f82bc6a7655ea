"""Redis clients from REDIS_URL: one server, a master found through Sentinels, or a cluster.

    redis://host:6379/0    rediss://…    unix:///path          one server
    redis+sentinel://[user:password@]host:26379,host:26379/name[/db]    the master that the Sentinels agree on
    redis+cluster://[user:password@]host:6379,host:6379        a cluster, discovered from any of these nodes

Making a client connects to nothing, so the program starts while Redis is down.
"""

import time
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar
from urllib.parse import SplitResult, unquote, urlsplit

from redis import Redis
from redis.backoff import NoBackoff
from redis.cluster import ClusterNode, RedisCluster
from redis.exceptions import AuthenticationError, NoPermissionError, RedisClusterException, RedisError, ResponseError
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError
from redis.retry import Retry
from redis.sentinel import MasterNotFoundError, Sentinel

from broadcast.base.app_parts import AppPart

T = TypeVar("T")
_CALL_TIMEOUT_SECONDS = 0.25
_OPEN_SECONDS = 5.0
# everything a client raises when the server is unreachable
CONNECTION_ERRORS = (RedisError, RedisClusterException, OSError)


def make_client(url: str, *, timeout_seconds: float, **options: Any) -> Any:
    """A redis-py client that gives up after `timeout_seconds` and never retries; the caller decides when to.

    Raises ValueError for a URL that names no server. `options` are redis-py's (`decode_responses`).
    """
    options |= {"socket_timeout": timeout_seconds, "socket_connect_timeout": timeout_seconds}
    url_parts = urlsplit(url)
    match url_parts.scheme:
        case "redis+sentinel":
            return _make_sentinel_client(url_parts, options | {"retry": Retry(NoBackoff(), 0)})
        case "redis+cluster":
            return LazyCluster(partial(_make_cluster, url_parts, options))
        case _:
            return Redis.from_url(url, **options, retry=Retry(NoBackoff(), 0))


def is_wrong_type_error(problem: Exception) -> bool:
    """Whether the key holds another type than the command expects, such as a string instead of a hash."""
    return isinstance(problem, ResponseError) and "WRONGTYPE" in str(problem)


def describe_failure(problem: Exception) -> str:
    """What one of CONNECTION_ERRORS means, as the rest of a sentence that begins with "Redis"."""
    match problem:
        case AuthenticationError() | NoPermissionError():
            return "refuses the user name or password in REDIS_URL"
        case TimeoutError() | RedisTimeoutError():
            return "does not answer in time"
        case MasterNotFoundError():
            return "has no master: its Sentinels know none of that name"
        case RedisClusterException():
            return "does not answer as a cluster"
        case RedisConnectionError() | OSError():
            return "does not answer"
    return f"refuses to work: {' '.join(str(problem).split()).rstrip('.')}"


def get_database_number(client: Any) -> int:
    """The database number that a client of `make_client` uses; 0 for a cluster. Connects to nothing."""
    return 0 if isinstance(client, LazyCluster) else client.get_connection_kwargs().get("db") or 0


class CircuitBreaker:
    """A client for calls that a request waits for. After a failure it stays open (fails at once) for some seconds.

    One per worker, so that a request with several calls waits for a frozen server once, and most requests not at all.
    Code that hears from the server again calls `reset`.
    """

    def __init__(self, url: str):
        self._client = make_client(url, timeout_seconds=_CALL_TIMEOUT_SECONDS)
        self._open_until = 0.0

    def call(self, command: Callable[[Any], T]) -> T:
        """Return `command(client)`. Raises one of CONNECTION_ERRORS, within 0.3 s."""
        if time.monotonic() < self._open_until:
            raise ConnectionError("Redis did not answer a moment ago.")
        try:
            return command(self._client)
        except ResponseError:
            raise  # read-only or out of memory: the server refuses at once
        except CONNECTION_ERRORS:
            self._open_until = time.monotonic() + _OPEN_SECONDS
            raise

    def reset(self) -> None:
        """Close the breaker: the server has answered elsewhere."""
        self._open_until = 0.0


class LazyCluster:
    """A RedisCluster that is made at first use, because making one connects to the cluster."""

    def __init__(self, connect: Callable[[], RedisCluster]):
        self._connect = connect
        self._cluster: RedisCluster | None = None

    def __getattr__(self, name: str) -> Any:
        if self._cluster is None:
            self._cluster = self._connect()
        return getattr(self._cluster, name)

    def pubsub(self, **options: Any) -> Any:
        """A subscription to the cluster as it is now: a listener reconnects here, and known nodes may be gone."""
        self._cluster = self._connect()
        return self._cluster.pubsub(**options)


def _make_sentinel_client(url_parts: SplitResult, options: dict[str, Any]) -> Redis:
    name, _, db = url_parts.path.strip("/").partition("/")
    if not name:
        raise ValueError("name the master behind the Sentinels: redis+sentinel://host:26379,host:26379/name")
    timeouts = {key: options[key] for key in ("socket_timeout", "socket_connect_timeout", "retry")}
    sentinels = Sentinel(_parse_hosts(url_parts, 26379), sentinel_kwargs=timeouts)
    return sentinels.master_for(name, db=int(db or 0), **options, **_parse_credentials(url_parts))


def _make_cluster(url_parts: SplitResult, options: dict[str, Any]) -> RedisCluster:
    nodes = [ClusterNode(host, port) for host, port in _parse_hosts(url_parts, 6379)]
    retry_once = Retry(NoBackoff(), 1)  # an error reloads the slot map; the second try uses it
    # a cluster that lost some of its slots still delivers notifications
    return RedisCluster(
        startup_nodes=nodes, require_full_coverage=False, retry=retry_once, **options, **_parse_credentials(url_parts)
    )


def _parse_hosts(url_parts: SplitResult, default_port: int) -> list[tuple[str, int]]:
    hosts = [urlsplit(f"//{host}") for host in url_parts.netloc.rpartition("@")[2].split(",") if host]
    if not hosts:
        raise ValueError("name at least one host")
    return [(host.hostname or "localhost", host.port or default_port) for host in hosts]


def _parse_credentials(url_parts: SplitResult) -> dict[str, str]:
    credentials = url_parts.netloc.rpartition("@")[0]
    username, _, password = credentials.partition(":")
    arguments = {"username": unquote(username), "password": unquote(password)}
    return {name: value for name, value in arguments.items() if value}


REDIS = AppPart[CircuitBreaker | None]("redis")
