"""The bus over Redis pub/sub, on redis-py 8.

Two things about redis-py decide this file. Its default client retries for more than 25 s when a server is frozen, so ringing
goes by a client that gives up soon and never retries; this worker then rings for itself. And its pub/sub health check sends a
PING but never looks for the answer, so the listener sends its own and drops a link that stays silent.

A ring says nothing, so anybody may ring. A signal says what somebody did, so it is signed: one that was not sent by a worker
of this system is not heard. What it told is found in the database all the same.
"""

import hashlib
import hmac
import json
import random
import time
from collections.abc import Sequence

import gevent
import structlog

from broadcast.base import untrusted_json
from broadcast.bus.protocol import Listener
from broadcast.bus.redis_client import AWAY, Quick, database_of, make_client

_log = structlog.get_logger(__name__)

_LOOK_SECONDS = 1.0  # how often a silent link is pinged
_SILENT_SECONDS = 3.0  # a link that answers nothing for this long is dropped
_SIGNED = 64  # characters before a signal's text: its signature


class RedisBus:
    """A Bus. Channels are of a whole server, whatever its databases: so the number of the database is in their names (but 0,
    which was in none), and systems that share one server each with a database of its own do not hear each other.

    `keys` sign signals, the first of them; a signal of another is heard as well, as while keys are changed.
    """

    def __init__(self, url: str, quick: Quick | None = None, *, keys: Sequence[str]):
        self._keys = [hashlib.sha256(b"signals of the bus\0" + key.encode()).digest() for key in keys]
        self._quick = quick or Quick(url)
        self._listener: Listener | None = None
        self._ear = make_client(url, timeout_seconds=_SILENT_SECONDS)
        database = database_of(self._ear)
        channel = f"broadcast:{database}" if database else "broadcast"
        self._ring_channel, self._signal_channel = f"{channel}:ring", f"{channel}:signal"
        self.healthy = False
        self._heard_at = time.monotonic()

    @property
    def silent_seconds(self) -> float:
        return time.monotonic() - self._heard_at

    def ring(self) -> None:
        if not self._publish(self._ring_channel, "") and self._listener:
            self._listener.on_ring()

    def signal(self, name: str, body: dict) -> None:
        text = json.dumps([name, body])
        self._publish(self._signal_channel, f"{_signature(self._keys[0], text.encode())}{text}")

    def listen(self, listener: Listener) -> None:
        self._listener, pause = listener, 0.05
        while True:
            started = time.monotonic()
            try:
                self._listen_once(listener)
            except AWAY as problem:
                _log.warning("bus.lost", problem=str(problem))
            finally:
                self.healthy = False
            pause = 0.05 if time.monotonic() - started > 5 else min(pause * 2, 2.0)
            gevent.sleep(pause * random.uniform(0.5, 1))

    def _publish(self, channel: str, body: str) -> bool:
        try:
            self._quick.ask(lambda redis: redis.publish(channel, body))
        except AWAY as problem:
            _log.warning("bus.unheard", channel=channel, problem=str(problem))
            return False
        return True

    def _listen_once(self, listener: Listener) -> None:
        with self._ear.pubsub() as subscription:
            subscription.subscribe(self._ring_channel, self._signal_channel)
            self._heard_at = time.monotonic()
            while True:
                message = subscription.get_message(timeout=_LOOK_SECONDS)
                if message is None:
                    if self.silent_seconds > _SILENT_SECONDS:
                        raise TimeoutError(f"no answer for {_SILENT_SECONDS:.0f} s")
                    subscription.ping()
                    continue
                self._heard_at = time.monotonic()
                self._quick.wake()
                self._hear(message, listener)

    def _hear(self, message: dict, listener: Listener) -> None:
        if message["type"] == "subscribe":  # also the only sign that redis-py reconnected by itself
            self.healthy = True
            listener.on_connected()
        elif message["type"] == "message" and message["channel"] == self._ring_channel.encode():
            listener.on_ring()
        elif message["type"] == "message":
            try:
                name, body = self._read_signal(message["data"])
            except (ValueError, TypeError) as problem:
                untrusted_json.reject("signal", problem)
            else:
                listener.on_signal(str(name), body)

    def _read_signal(self, data: bytes) -> tuple[str, dict]:
        """Name and body. Raises ValueError or TypeError for what no worker of this system sent."""
        signature, text = data[:_SIGNED], data[_SIGNED:]
        if not any(hmac.compare_digest(_signature(key, text).encode(), signature) for key in self._keys):
            raise ValueError("not signed by this system")
        name, body = untrusted_json.parse_json(text)
        return name, dict(body)


def _signature(key: bytes, text: bytes) -> str:
    return hmac.digest(key, text, "sha256").hex()
