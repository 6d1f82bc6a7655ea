"""Who is online anywhere: each worker writes its own users into Redis, under a lease.

One hash per worker (user id → its open streams) and one sorted set of workers by the end of their lease. Changes are
written in batches; the lease is renewed once per heartbeat and worker, not per stream. A dead worker is forgotten when
its lease ends; an emptied server is refilled at the next renewal. Without Redis a worker knows only its own users.

Presence is informational: nothing that must be right, such as an audience, depends on it. Others may write to the
Redis: entries in another format are skipped, and a key of the wrong type is deleted.
"""

import json
import os
import re
import secrets
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any, TypeVar

import gevent

from broadcast.base import untrusted_json
from broadcast.base.app_parts import AppPart
from broadcast.base.cooperative import Yielder
from broadcast.bus.redis_client import CONNECTION_ERRORS, CircuitBreaker, is_wrong_type_error, make_client
from broadcast.domain import clock
from broadcast.streams.connection import Connection
from broadcast.streams.hub import Hub

_TIMEOUT_SECONDS = 0.5
_CHUNK_USERS = 200  # users in one write: a millisecond or two of this worker's time
_PAUSE_SECONDS = 0.002
_MAX_WORKERS = 1000
_MAX_USERS_PER_WORKER = 100_000
_MAX_TEXT_CHARACTERS = 200
_WORKER_NAME = re.compile(rb"\d{1,10}-[0-9a-f]{6}")
_USER_ID = re.compile(rb"[1-9]\d{0,17}")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class StreamInfo:
    """One open stream as the console lists it. `worker` is a process id and a random part; `since` is RFC 3339."""

    user_id: int
    id: str
    worker: str
    representation: str
    label: str
    address: str
    since: str
    backlog_bytes: int


class Presence:
    """The users of this worker, from its hub; `RedisPresence` adds those of other workers.

    Never raises: while the server is down, users elsewhere count as offline, and changes wait. A read takes 0.3 s at
    most then.
    """

    def __init__(self, hub: Hub):
        self._hub = hub
        self.worker = f"{os.getpid()}-{secrets.token_hex(3)}"

    def write_changes(self) -> None:
        """Write the users whose streams changed since the last successful call."""
        self._hub.changed_user_ids.clear()

    def renew_lease(self) -> None:
        """Renew the lease, once per heartbeat; the next `write_changes` refills a server that was emptied."""

    def remove_worker(self) -> None:
        """This worker ends: remove its users at once."""

    def get_online_ids(self) -> set[int]:
        return set(self._hub.online_user_ids)

    def is_online(self, user_id: int) -> bool:
        return user_id in self._hub.online_user_ids

    def list_streams(self) -> list[StreamInfo]:
        return [StreamInfo(c.viewer.user_id, worker=self.worker, **_to_json(c)) for c in self._hub.connections]


class RedisPresence(Presence):
    """The users of all workers that share a Redis."""

    def __init__(
        self,
        hub: Hub,
        url: str,
        circuit_breaker: CircuitBreaker | None = None,
        *,
        lease_seconds: float,
        prefix: str = "broadcast:presence",
    ):
        super().__init__(hub)
        self._lease_seconds, self._prefix = lease_seconds, prefix
        self._circuit_breaker = circuit_breaker or CircuitBreaker(url)  # for reads that a page waits for
        self._redis = make_client(url, timeout_seconds=_TIMEOUT_SECONDS)

    def write_changes(self) -> None:
        key, changed_user_ids = self._key(self.worker), self._hub.changed_user_ids
        while changed_user_ids:
            chunk = list(islice(changed_user_ids, _CHUNK_USERS))
            streams_by_user = {
                user_id: [_to_json(c) for c in self._hub.get_user_connections(user_id)] for user_id in chunk
            }
            online = {str(user_id): json.dumps(streams) for user_id, streams in streams_by_user.items() if streams}
            offline = [str(user_id) for user_id, streams in streams_by_user.items() if not streams]
            changed_user_ids.difference_update(chunk)
            try:
                pipeline = self._redis.pipeline(transaction=False)
                if online:
                    pipeline.hset(key, mapping=online)
                if offline:
                    pipeline.hdel(key, *offline)
                pipeline.expire(key, self._ttl_seconds)
                pipeline.execute()
            except CONNECTION_ERRORS as problem:
                changed_user_ids.update(chunk)
                self._delete_wrong_type_key(key, problem)
                return
            if changed_user_ids:
                gevent.sleep(_PAUSE_SECONDS)

    def renew_lease(self) -> None:
        now = clock.now().timestamp()
        pipeline = self._redis.pipeline(transaction=False)
        pipeline.expire(self._key(self.worker), self._ttl_seconds)
        pipeline.zadd(self._prefix, {self.worker: now + self._lease_seconds})
        pipeline.zremrangebyscore(self._prefix, "-inf", now - 60)
        try:
            has_users, is_new, _ = pipeline.execute()
        except CONNECTION_ERRORS as problem:
            self._delete_wrong_type_key(self._prefix, problem)
            has_users, is_new = False, True
        # the server is down or was emptied (it may be refilled since, so check both), or nobody was here
        if is_new or not has_users:
            self._hub.changed_user_ids.update(self._hub.online_user_ids)

    def remove_worker(self) -> None:
        self._try_command(self._redis.delete, self._key(self.worker))  # if that fails, the lease runs out
        self._try_command(self._redis.zrem, self._prefix, self.worker)

    def get_online_ids(self) -> set[int]:
        user_ids = super().get_online_ids()
        for worker in self._list_other_workers():
            user_ids.update(self._parse_all(_parse_user_id, self._query_worker_users("hkeys", worker)))
        return user_ids

    def is_online(self, user_id: int) -> bool:
        return super().is_online(user_id) or any(
            self._query("hexists", self._key(worker), str(user_id)) for worker in self._list_other_workers()
        )

    def list_streams(self) -> list[StreamInfo]:
        all_streams = super().list_streams()
        for worker in self._list_other_workers():
            users = (self._query_worker_users("hgetall", worker) or {}).items()
            for streams in self._parse_all(lambda person, worker=worker: _parse_streams(*person, worker), users):
                all_streams += streams
        return all_streams

    @property
    def _ttl_seconds(self) -> int:
        """How long the server keeps this worker's users without a renewal."""
        return int(self._lease_seconds) + 1

    def _list_other_workers(self) -> list[str]:
        now = clock.now().timestamp()
        workers = self._query("zrangebyscore", self._prefix, now, "+inf", 0, _MAX_WORKERS)
        return [worker for worker in self._parse_all(_parse_worker_name, workers) if worker != self.worker]

    def _query_worker_users(self, command: str, worker: str) -> Any:
        """The users of a worker, unless there are more than one worker can have."""
        key = self._key(worker)
        if (count := self._query("hlen", key) or 0) > _MAX_USERS_PER_WORKER:
            untrusted_json.record_rejection("presence", f"{count} people at one worker")
            return None
        return self._query(command, key)

    def _parse_all(self, parse: Callable[[Any], T], values: Iterable[Any] | None) -> Iterator[T]:
        """Each value parsed by `parse`; values that it rejects were written by someone else and are skipped."""
        yielder = Yielder()
        for value in values or ():
            yielder.maybe_yield()
            try:
                yield parse(value)
            except (ValueError, TypeError) as problem:
                untrusted_json.record_rejection("presence", problem)

    def _delete_wrong_type_key(self, key: str, problem: Exception) -> None:
        """Delete our key if `problem` says that it has the wrong type; the next try writes it anew."""
        if is_wrong_type_error(problem):
            untrusted_json.record_rejection("presence", problem)
            self._try_command(self._redis.delete, key)

    def _query(self, command: str, *arguments: Any) -> Any:
        """A read that a page waits for."""
        return self._try_command(self._circuit_breaker.call, lambda redis: getattr(redis, command)(*arguments))

    def _try_command(self, command: Any, *arguments: Any) -> Any:
        try:
            return command(*arguments)
        except CONNECTION_ERRORS:
            return None

    def _key(self, worker: str) -> str:
        return f"{self._prefix}:{worker}"


def _to_json(connection: Connection) -> dict[str, Any]:
    return {
        "id": connection.id,
        "representation": connection.representation,
        "label": connection.label,
        "address": connection.address,
        "since": clock.to_rfc3339(connection.since),
        "backlog_bytes": connection.backlog_bytes,
    }


def _parse_worker_name(name: bytes) -> str:
    """A worker's name, as `Presence` makes it. Raises ValueError."""
    if not _WORKER_NAME.fullmatch(name):
        raise ValueError(f"no worker: {name[:40]!r}")
    return name.decode()


def _parse_user_id(text: bytes) -> int:
    """Raises ValueError for anything but a user id."""
    if not _USER_ID.fullmatch(text):
        raise ValueError(f"nobody: {text[:40]!r}")
    return int(text)


def _parse_streams(user_id: bytes, text: bytes, worker: str) -> list[StreamInfo]:
    """The streams of one user at one worker. Raises ValueError or TypeError if `_to_json` did not write them."""
    streams = [
        StreamInfo(_parse_user_id(user_id), worker=worker, **fields) for fields in untrusted_json.parse_json(text)
    ]
    for stream in streams:
        clock.parse_rfc3339(stream.since)
        texts = (stream.id, stream.representation, stream.label, stream.address, stream.since)
        if not all(isinstance(text_value, str) and len(text_value) <= _MAX_TEXT_CHARACTERS for text_value in texts):
            raise ValueError("a stream that is described by something else than words")
        if type(stream.backlog_bytes) is not int or not 0 <= stream.backlog_bytes < 2**63:
            raise ValueError("a backlog that is no size")
    return streams


PRESENCE = AppPart[Presence]("presence")
