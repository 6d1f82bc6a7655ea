"""The socket transport: all adopted sockets of a worker in one epoll, watched by one gevent watcher.

A stream costs no greenlet, only its Connection and a file descriptor. Writes happen where the bytes are made; EPOLLOUT
is registered only while something waits, and EPOLLRDHUP reports at once that a client left. (`gunicorn.conf.py` sets
the send buffer and the timeout for half-open clients on the listening socket, which every accepted one inherits.)
"""

import os
import socket
from collections.abc import Sequence
from itertools import chain

import gevent
from gevent.monkey import get_original

from broadcast.streams.connection import Connection
from broadcast.streams.hub import Hub

_MAX_EPOLL_EVENTS = 512  # descriptors per poll


class SocketTransport:
    """A Transport. Its callbacks run in gevent's hub: nothing here waits or switches greenlets."""

    def __init__(self, hub: Hub):
        originals = get_original("select", ["epoll", "EPOLLIN", "EPOLLOUT", "EPOLLRDHUP", "EPOLLHUP", "EPOLLERR"])
        epoll, _, self._writable_mask, self._rdhup_mask, hup_mask, error_mask = originals
        self._hangup_mask = self._rdhup_mask | hup_mask | error_mask
        self._hub = hub
        hub.send_many = self.write_many
        self._epoll = epoll()
        self._by_fd: dict[int, Connection] = {}
        self._watcher = gevent.get_hub().loop.io(self._epoll.fileno(), 1)
        self._watcher.start(self._handle_ready)

    def adopt(self, connection: Connection, sock: socket.socket, response_head: bytes) -> None:
        """Take over a duplicate of `sock`, beginning with the response `response_head`. The caller closes its own copy.

        Raises any error, such as OSError for no free descriptor or no room in the epoll. The stream has then left the
        hub, and none of its bytes were sent.
        """
        try:
            connection.fd = self._register_duplicate(sock)
            self._by_fd[connection.fd] = connection
            connection.preamble = chain((response_head,), connection.preamble or ())  # so that all of it is one write
            self._hub.attach_transport(connection, self)
        except BaseException:
            self._hub.close(connection, "failed to open")
            raise

    def _register_duplicate(self, sock: socket.socket) -> int:
        """A duplicate of the descriptor of `sock`, in the epoll."""
        fd = os.dup(sock.fileno())
        try:
            os.set_blocking(fd, False)
            self._epoll.register(fd, self._rdhup_mask)
        except BaseException:
            os.close(fd)
            raise
        return fd

    def write(self, connection: Connection, data: bytes) -> None:
        while data:
            try:
                sent = os.write(connection.fd, data)
            except BlockingIOError:
                sent = 0
            except OSError:
                self._hub.close(connection, "left")
                return
            if sent < len(data):
                self._wait_until_writable(connection, data[sent:])
                return
            data = connection.next_chunk()

    def write_many(self, connections: Sequence[Connection], data: bytes) -> None:
        """The inner loop of every fan-out: one system call per stream, and as little as possible around it."""
        write, size = os.write, len(data)
        for connection in connections:
            if connection.has_pending or connection.fd < 0:  # lagging, not open yet, closed, or on another transport
                self._hub.send(connection, data)
                continue
            try:
                sent = write(connection.fd, data)
            except BlockingIOError:
                sent = 0
            except OSError:
                self._hub.close(connection, "left")
                continue
            if sent != size:
                self._wait_until_writable(connection, data[sent:])

    def _wait_until_writable(self, connection: Connection, unsent: bytes) -> None:
        connection.set_unsent(unsent)
        self._epoll.modify(connection.fd, self._rdhup_mask | self._writable_mask)

    def end(self, connection: Connection) -> None:
        """Close the descriptor. What still waits is dropped: the client returns with its cursor and loses nothing."""
        connection.discard()
        if self._by_fd.pop(connection.fd, None):
            self._epoll.unregister(connection.fd)
            os.close(connection.fd)
            connection.fd = -1

    def close(self) -> None:
        """Stop watching. The hub has closed its connections before."""
        self._watcher.stop()
        self._watcher.close()
        self._epoll.close()

    def _handle_ready(self) -> None:
        for fd, event_mask in self._epoll.poll(0, _MAX_EPOLL_EVENTS):
            connection = self._by_fd.get(fd)
            if connection is None:
                continue
            if event_mask & self._hangup_mask:
                self._hub.close(connection, "left")
            elif event_mask & self._writable_mask:
                self._resume_writing(connection)

    def _resume_writing(self, connection: Connection) -> None:
        try:
            self._epoll.modify(connection.fd, self._rdhup_mask)
            self.write(connection, connection.next_chunk())
        except BaseException:  # a replay that fails would leave its client waiting; gevent prints the traceback
            self._hub.close(connection, "failed to replay")
            raise
