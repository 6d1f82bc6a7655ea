"""Who is online anywhere: each worker writes its own people into Redis, under a lease.

One hash for each worker (user id → its open streams) and one sorted set of workers by the end of their lease. Changes are
written in batches, the lease is renewed once per heartbeat and worker, not per stream. A worker that dies is forgotten when its
lease ends; a server that was emptied is filled again at the next renewal. Without Redis a worker knows its own people only.

This is a figure for people to look at. Nothing that must be right, such as an audience, is decided by it. Redis may be written
by others: what does not look like what is written here is left out, and a key of another kind in our place is taken away.
"""

import json
import os
import re
import secrets
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any, Protocol, TypeVar

import gevent

from broadcast.base import untrusted_json
from broadcast.base.app_parts import AppPart
from broadcast.base.cooperative import Breath
from broadcast.bus.redis_client import AWAY, Quick, is_of_another_kind, make_client
from broadcast.domain import clock
from broadcast.streams.connection import Connection
from broadcast.streams.hub import Hub

_TIMEOUT_SECONDS = 0.5
_CHUNK = 200  # people in one write: a millisecond or two of this worker's time
_PAUSE_SECONDS = 0.002
_MOST_WORKERS = 1000
_MOST_PEOPLE = 100_000  # at one worker
_MOST_CHARACTERS = 200
_WORKER = re.compile(rb"\d{1,10}-[0-9a-f]{6}")
_USER_ID = re.compile(rb"[1-9]\d{0,17}")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Stream:
    """One open stream as the console lists it. `worker` is a process id and a random part; `since` is RFC 3339."""

    user_id: int
    id: str
    worker: str
    representation: str
    label: str
    address: str
    since: str
    backlog_bytes: int


class Presence(Protocol):
    """Never raises: without the server, what cannot be asked counts as offline, and what cannot be written waits.

    A read of a server that is away takes 0.3 s at most.
    """

    worker: str

    def write_changes(self) -> None:
        """Write whose streams changed since the last call that reached the server."""

    def renew(self) -> None:
        """Renew the lease, once per heartbeat; a server that was emptied is filled by the next `write_changes`."""

    def leave(self) -> None:
        """This worker ends: forget its people at once."""

    def online_ids(self) -> set[int]: ...

    def is_online(self, user_id: int) -> bool: ...

    def streams(self) -> list[Stream]: ...


class LocalPresence:
    """The people of this worker, from its hub."""

    def __init__(self, hub: Hub):
        self._hub = hub
        self.worker = f"{os.getpid()}-{secrets.token_hex(3)}"

    def write_changes(self) -> None:
        self._hub.changed_users.clear()

    def renew(self) -> None:
        pass

    def leave(self) -> None:
        pass

    def online_ids(self) -> set[int]:
        return set(self._hub.users())

    def is_online(self, user_id: int) -> bool:
        return user_id in self._hub.users()

    def streams(self) -> list[Stream]:
        return [_stream(connection, self.worker) for connection in self._hub.connections]


class RedisPresence:
    """The people of all workers that share a Redis."""

    def __init__(
        self,
        hub: Hub,
        url: str,
        quick: Quick | None = None,
        *,
        lease_seconds: float,
        prefix: str = "broadcast:presence",
    ):
        self._hub, self._lease_seconds, self._prefix = hub, lease_seconds, prefix
        self._quick = quick or Quick(url)  # for what a page asks
        self._redis = make_client(url, timeout_seconds=_TIMEOUT_SECONDS)
        self.worker = f"{os.getpid()}-{secrets.token_hex(3)}"

    def write_changes(self) -> None:
        key, changed = self._key(self.worker), self._hub.changed_users
        while changed:
            chunk = list(islice(changed, _CHUNK))
            told = {user_id: [_told(c) for c in self._hub.of_user(user_id)] for user_id in chunk}
            here = {str(user_id): json.dumps(streams) for user_id, streams in told.items() if streams}
            gone = [str(user_id) for user_id, streams in told.items() if not streams]
            changed.difference_update(chunk)
            try:
                pipeline = self._redis.pipeline(transaction=False)
                if here:
                    pipeline.hset(key, mapping=here)
                if gone:
                    pipeline.hdel(key, *gone)
                pipeline.expire(key, self._kept_seconds)
                pipeline.execute()
            except AWAY as problem:
                changed.update(chunk)
                self._take_away(key, problem)
                return
            if changed:
                gevent.sleep(_PAUSE_SECONDS)

    def renew(self) -> None:
        now = clock.now().timestamp()
        pipeline = self._redis.pipeline(transaction=False)
        pipeline.expire(self._key(self.worker), self._kept_seconds)
        pipeline.zadd(self._prefix, {self.worker: now + self._lease_seconds})
        pipeline.zremrangebyscore(self._prefix, "-inf", now - 60)
        try:
            has_people, is_new, _ = pipeline.execute()
        except AWAY as problem:
            self._take_away(self._prefix, problem)
            has_people, is_new = False, True
        # the server is away or was emptied (somebody may have been written since, so both are looked at), or nobody was here
        if is_new or not has_people:
            self._hub.changed_users.update(self._hub.users())

    def leave(self) -> None:
        self._ask(self._redis.delete, self._key(self.worker))  # if that fails, the lease ends by itself
        self._ask(self._redis.zrem, self._prefix, self.worker)

    def online_ids(self) -> set[int]:
        found = set(self._hub.users())
        for worker in self._others():
            found.update(self._read(_user_id, self._people("hkeys", worker)))
        return found

    def is_online(self, user_id: int) -> bool:
        if user_id in self._hub.users():
            return True
        return any(self._look("hexists", self._key(worker), str(user_id)) for worker in self._others())

    def streams(self) -> list[Stream]:
        found = [_stream(connection, self.worker) for connection in self._hub.connections]
        for worker in self._others():
            people = (self._people("hgetall", worker) or {}).items()
            for streams in self._read(lambda person, worker=worker: _streams(*person, worker), people):
                found += streams
        return found

    @property
    def _kept_seconds(self) -> int:
        """How long the server keeps this worker's people without a word from it."""
        return int(self._lease_seconds) + 1

    def _others(self) -> list[str]:
        now = clock.now().timestamp()
        workers = self._look("zrangebyscore", self._prefix, now, "+inf", 0, _MOST_WORKERS)
        return [worker for worker in self._read(_worker, workers) if worker != self.worker]

    def _people(self, command: str, worker: str) -> Any:
        """The people of a worker, unless there are more of them than a worker could hold."""
        key = self._key(worker)
        if (count := self._look("hlen", key) or 0) > _MOST_PEOPLE:
            untrusted_json.reject("presence", f"{count} people at one worker")
            return None
        return self._look(command, key)

    def _read(self, read: Callable[[Any], T], values: Iterable[Any] | None) -> Iterator[T]:
        """Each value as `read` gives it, without those that it refuses: they were written by somebody else."""
        breath = Breath()
        for value in values or ():
            breath.take()
            try:
                yield read(value)
            except (ValueError, TypeError) as problem:
                untrusted_json.reject("presence", problem)

    def _take_away(self, key: str, problem: Exception) -> None:
        """What is in our place and is of another kind, if that is the problem; the next try writes what belongs there."""
        if is_of_another_kind(problem):
            untrusted_json.reject("presence", problem)
            self._ask(self._redis.delete, key)

    def _look(self, command: str, *words: Any) -> Any:
        """What a page asks, and waits for."""
        return self._ask(self._quick.ask, lambda redis: getattr(redis, command)(*words))

    def _ask(self, command: Any, *words: Any) -> Any:
        try:
            return command(*words)
        except AWAY:
            return None

    def _key(self, worker: str) -> str:
        return f"{self._prefix}:{worker}"


def _told(connection: Connection) -> dict[str, Any]:
    return {
        "id": connection.id,
        "representation": connection.representation,
        "label": connection.label,
        "address": connection.address,
        "since": clock.to_wire(connection.since),
        "backlog_bytes": connection.backlog_bytes,
    }


def _stream(connection: Connection, worker: str) -> Stream:
    return Stream(connection.viewer.user_id, worker=worker, **_told(connection))


def _worker(name: bytes) -> str:
    """The name of a worker, as `RedisPresence` makes them. Raises ValueError."""
    if not _WORKER.fullmatch(name):
        raise ValueError(f"no worker: {name[:40]!r}")
    return name.decode()


def _user_id(text: bytes) -> int:
    """Raises ValueError for what is no id of a person."""
    if not _USER_ID.fullmatch(text):
        raise ValueError(f"nobody: {text[:40]!r}")
    return int(text)


def _streams(user_id: bytes, text: bytes, worker: str) -> list[Stream]:
    """The streams of one person at one worker. Raises ValueError or TypeError when they are not as `_told` tells them."""
    found = [Stream(_user_id(user_id), worker=worker, **told) for told in untrusted_json.parse_json(text)]
    for stream in found:
        clock.from_wire(stream.since)
        words = (stream.id, stream.representation, stream.label, stream.address, stream.since)
        if not all(isinstance(word, str) and len(word) <= _MOST_CHARACTERS for word in words):
            raise ValueError("a stream that is described by something else than words")
        if type(stream.backlog_bytes) is not int or not 0 <= stream.backlog_bytes < 2**63:
            raise ValueError("a backlog that is no size")
    return found


PRESENCE = AppPart[Presence]("presence")
