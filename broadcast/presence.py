"""Who is online anywhere: each worker writes its own people into Redis, under a lease.

One hash for each worker (user id → its open streams) and one sorted set of workers by the end of their lease. Changes are
written in batches, the lease is renewed once per heartbeat and worker, not per stream. A worker that dies is forgotten when its
lease ends; a server that was emptied is filled again at the next renewal. Without Redis a worker knows its own people only.

This is a figure for people to look at. Nothing that must be right, such as an audience, is decided by it.
"""

import json
import os
import secrets
from dataclasses import dataclass
from itertools import islice
from typing import Any, Protocol

import gevent

from broadcast.domain import clock
from broadcast.hub.connection import Connection
from broadcast.hub.hub import Hub
from broadcast.redis_url import AWAY, Quick, make_client

_TIMEOUT_SECONDS = 0.5
_CHUNK = 200  # people in one write: a millisecond or two of this worker's time
_PAUSE_SECONDS = 0.002


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
            except AWAY:
                changed.update(chunk)
                return
            if changed:
                gevent.sleep(_PAUSE_SECONDS)

    def renew(self) -> None:
        now = clock.now().timestamp()
        pipeline = self._redis.pipeline(transaction=False)
        pipeline.expire(self._key(self.worker), self._kept_seconds)
        pipeline.zadd(self._prefix, {self.worker: now + self._lease_seconds})
        pipeline.zremrangebyscore(self._prefix, "-inf", now - 60)
        has_people, is_new, _ = self._ask(pipeline.execute) or (False, True, 0)
        # the server is away or was emptied (somebody may have been written since, so both are looked at), or nobody was here
        if is_new or not has_people:
            self._hub.changed_users.update(self._hub.users())

    def leave(self) -> None:
        self._ask(self._redis.delete, self._key(self.worker))  # if that fails, the lease ends by itself
        self._ask(self._redis.zrem, self._prefix, self.worker)

    def online_ids(self) -> set[int]:
        found = set(self._hub.users())
        for worker in self._others():
            found.update(map(int, self._look("hkeys", self._key(worker)) or ()))
        return found

    def is_online(self, user_id: int) -> bool:
        if user_id in self._hub.users():
            return True
        return any(self._look("hexists", self._key(worker), str(user_id)) for worker in self._others())

    def streams(self) -> list[Stream]:
        found = [_stream(connection, self.worker) for connection in self._hub.connections]
        for worker in self._others():
            for user_id, streams in (self._look("hgetall", self._key(worker)) or {}).items():
                found += [Stream(int(user_id), worker=worker, **told) for told in json.loads(streams)]
        return found

    @property
    def _kept_seconds(self) -> int:
        """How long the server keeps this worker's people without a word from it."""
        return int(self._lease_seconds) + 1

    def _others(self) -> list[str]:
        workers = self._look("zrangebyscore", self._prefix, clock.now().timestamp(), "+inf") or []
        return [worker for worker in map(bytes.decode, workers) if worker != self.worker]

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
