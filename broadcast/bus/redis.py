"""The bus over Redis pub/sub, on redis-py 8.

Two properties of redis-py shape this file. Its default client retries for more than 25 s when a server is frozen, so
notifications go through a client that gives up soon and never retries; this worker then notifies itself. And its
pub/sub health check sends a PING but never checks for the answer, so the listener sends its own and drops a silent
connection.

A notification carries nothing, so anyone may send one. A signal says what a user did, so it is signed, and one that no
worker of this system signed is ignored. What a signal reports is also in the database.
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
from broadcast.bus.redis_client import CONNECTION_ERRORS, CircuitBreaker, get_database_number, make_client

_log = structlog.get_logger(__name__)

_PING_INTERVAL_SECONDS = 1.0  # how often a silent connection is pinged
_SILENCE_TIMEOUT_SECONDS = 3.0  # a connection that is silent for this long is dropped
_SIGNATURE_CHARACTERS = 64  # length of the signature before a signal's text


class RedisBus:
    """A Bus. Pub/sub channels span all databases of a server, so their names contain the database number (except 0, for
    compatibility). Systems that share one server, each with its own database, do not hear each other.

    The first of `keys` signs signals; signals signed with any of them are accepted, so that keys can be rotated.
    """

    def __init__(self, url: str, circuit_breaker: CircuitBreaker | None = None, *, keys: Sequence[str]):
        self._signing_keys = [hashlib.sha256(b"signals of the bus\0" + key.encode()).digest() for key in keys]
        self._circuit_breaker = circuit_breaker or CircuitBreaker(url)
        self._listener: Listener | None = None
        self._subscriber_client = make_client(url, timeout_seconds=_SILENCE_TIMEOUT_SECONDS)
        database = get_database_number(self._subscriber_client)
        channel = f"broadcast:{database}" if database else "broadcast"
        self._notify_channel, self._signal_channel = f"{channel}:ring", f"{channel}:signal"
        self.is_healthy = False
        self._last_heard_at = time.monotonic()

    @property
    def silent_seconds(self) -> float:
        return time.monotonic() - self._last_heard_at

    def notify(self) -> None:
        if not self._publish(self._notify_channel, "") and self._listener:
            self._listener.on_notify()

    def send_signal(self, name: str, body: dict) -> None:
        text = json.dumps([name, body])
        self._publish(self._signal_channel, f"{_sign(self._signing_keys[0], text.encode())}{text}")

    def listen(self, listener: Listener) -> None:
        self._listener, pause_seconds = listener, 0.05
        while True:
            started_at = time.monotonic()
            try:
                self._listen_once(listener)
            except CONNECTION_ERRORS as problem:
                _log.warning("bus.lost", problem=str(problem))
            finally:
                self.is_healthy = False
            pause_seconds = 0.05 if time.monotonic() - started_at > 5 else min(pause_seconds * 2, 2.0)
            gevent.sleep(pause_seconds * random.uniform(0.5, 1))

    def _publish(self, channel: str, body: str) -> bool:
        try:
            self._circuit_breaker.call(lambda redis: redis.publish(channel, body))
        except CONNECTION_ERRORS as problem:
            _log.warning("bus.unheard", channel=channel, problem=str(problem))
            return False
        return True

    def _listen_once(self, listener: Listener) -> None:
        with self._subscriber_client.pubsub() as subscription:
            subscription.subscribe(self._notify_channel, self._signal_channel)
            self._last_heard_at = time.monotonic()
            while True:
                message = subscription.get_message(timeout=_PING_INTERVAL_SECONDS)
                if message is None:
                    if self.silent_seconds > _SILENCE_TIMEOUT_SECONDS:
                        raise TimeoutError(f"no answer for {_SILENCE_TIMEOUT_SECONDS:.0f} s")
                    subscription.ping()
                    continue
                self._last_heard_at = time.monotonic()
                self._circuit_breaker.reset()
                self._handle_message(message, listener)

    def _handle_message(self, message: dict, listener: Listener) -> None:
        if message["type"] == "subscribe":  # also the only sign that redis-py reconnected on its own
            self.is_healthy = True
            listener.on_connected()
        elif message["type"] == "message" and message["channel"] == self._notify_channel.encode():
            listener.on_notify()
        elif message["type"] == "message":
            try:
                name, body = self._verify_signal(message["data"])
            except (ValueError, TypeError) as problem:
                untrusted_json.record_rejection("signal", problem)
            else:
                listener.on_signal(str(name), body)

    def _verify_signal(self, data: bytes) -> tuple[str, dict]:
        """Name and body of a signal. Raises ValueError or TypeError if no worker of this system sent it."""
        signature, text = data[:_SIGNATURE_CHARACTERS], data[_SIGNATURE_CHARACTERS:]
        if not any(hmac.compare_digest(_sign(key, text).encode(), signature) for key in self._signing_keys):
            raise ValueError("not signed by this system")
        name, body = untrusted_json.parse_json(text)
        return name, dict(body)


def _sign(key: bytes, text: bytes) -> str:
    return hmac.digest(key, text, "sha256").hex()
