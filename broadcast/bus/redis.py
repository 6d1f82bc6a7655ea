"""The bus over Redis pub/sub, on redis-py 8.

Two things about redis-py decide this file. Its default client retries for more than 25 s when a server is frozen, so ringing
goes by a client that gives up soon and never retries; this worker then rings for itself. And its pub/sub health check sends a
PING but never looks for the answer, so the listener sends its own and drops a link that stays silent.
"""

import json
import random
import time

import gevent
import structlog

from broadcast.bus.protocol import Listener
from broadcast.redis_url import AWAY, Quick, database_of, make_client

_log = structlog.get_logger(__name__)

_LOOK_SECONDS = 1.0  # how often a silent link is pinged
_SILENT_SECONDS = 3.0  # a link that answers nothing for this long is dropped


class RedisBus:
    """A Bus. Channels are of a whole server, whatever its databases: so the number of the database is in their names (but 0,
    which was in none), and systems that share one server each with a database of its own do not hear each other.
    """

    def __init__(self, url: str, quick: Quick | None = None):
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
        self._publish(self._signal_channel, json.dumps([name, body]))

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
                name, body = json.loads(message["data"])
                listener.on_signal(str(name), dict(body))
            except (ValueError, TypeError) as problem:
                _log.warning("bus.garbled", problem=str(problem))
