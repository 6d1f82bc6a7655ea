"""gunicorn's worker class. The master loads it, so it imports nothing that gevent patches besides what gunicorn does."""

from socket import MSG_PEEK
from typing import Any, Protocol

from gunicorn import util
from gunicorn.workers.ggevent import GeventWorker

_PEEKED_BYTES = 8192  # a longer head is gunicorn's


class DirectStreams(Protocol):
    """What opens a stream before WSGI: `web.streams.direct`."""

    def try_answer(self, data: bytes, sock: Any, peer: Any) -> bool: ...


class StreamWorker(GeventWorker):
    """A gevent worker that looks at the first bytes of a connection, and leaves all but whole requests for streams as
    they are. `direct_streams` is set once the application is ready.
    """

    direct_streams: DirectStreams | None = None

    def handle(self, listener: Any, client: Any, addr: Any) -> None:
        if self.direct_streams and not self.cfg.is_ssl and self._is_finished(client, addr):
            util.close(client)
        else:
            super().handle(listener, client, addr)

    def _is_finished(self, client: Any, addr: Any) -> bool:
        """Whether nothing is left to be done with this connection."""
        try:
            data = self._peek(client)
        except OSError:
            return False  # gunicorn meets the same, and logs it
        if data is None:
            return True
        if not self.direct_streams.try_answer(data, client, addr):
            return False
        self.nr += 1
        if self.nr >= self.max_requests and self.alive:  # as gunicorn counts a request
            self.log.info("Autorestarting worker after current request.")
            self.alive = False
        return True

    def _peek(self, client: Any) -> bytes | None:
        """The first bytes; None if none came in time. When many connect, they are there before it is their turn, and no
        timer is needed.
        """
        client.setblocking(False)
        try:
            return client.recv(_PEEKED_BYTES, MSG_PEEK)
        except BlockingIOError:
            client.setblocking(True)
            with self.timeout_ctx():  # as gunicorn waits for a request
                return client.recv(_PEEKED_BYTES, MSG_PEEK)
        finally:
            client.setblocking(True)
