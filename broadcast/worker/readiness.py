"""Readiness during a start and a reload, coordinated between gunicorn's master and workers through shared memory.

- At a start the sockets do not listen until a worker has read the log, so that a proxy is refused at once and tries
  another node, instead of waiting in the kernel's queue while this one boots.
- At a reload (HUP) gunicorn tells the old workers to exit while the new ones still load. They stay until as many new
  ones serve.
- systemd gets READY=1 when a worker serves, not when the master has started.

The master imports this module before gevent patches the workers, so it imports only the standard library.
"""

import mmap
import os
import socket
from contextlib import suppress
from typing import Any

_MAX_WORKERS = 256  # per reload; WEB_CONCURRENCY is at most 64
_GENERATION_OFFSET, _STOPPING_OFFSET, _FIRST_WORKER_OFFSET = 0, 1, 2

_shared_page = mmap.mmap(-1, _FIRST_WORKER_OFFSET + _MAX_WORKERS)  # shared with every forked worker
_own_generation = 0
_notify_socket = os.environ.pop("NOTIFY_SOCKET", None)  # gunicorn would send READY=1 before any worker serves


def close_until_ready(server: Any) -> None:
    """In the master, once the sockets are bound: refuse connections until a worker serves.

    Not for sockets that others already serve (USR2) or that systemd keeps open, and not for a unix socket, which cannot
    be reopened.
    """
    if server.master_pid or server.systemd:
        return
    for listener in server.LISTENERS:
        if listener.sock.family != socket.AF_UNIX:
            with suppress(OSError):  # only Linux supports this for a listening socket
                listener.sock.shutdown(socket.SHUT_RD)


def start_generation(server: Any) -> None:
    """In the master, at a reload, before its new workers are forked."""
    _shared_page[_GENERATION_OFFSET] = (_shared_page[_GENERATION_OFFSET] + 1) % 255
    _shared_page[_FIRST_WORKER_OFFSET:] = bytes(_MAX_WORKERS)


def mark_stopping(server: Any) -> None:
    """In the master: from now on a worker that is told to exit exits at once."""
    _shared_page[_STOPPING_OFFSET] = 1


def join_generation() -> None:
    """In a worker, right after the fork."""
    global _own_generation
    _own_generation = _shared_page[_GENERATION_OFFSET]


def start_serving(worker: Any) -> None:
    """In a worker that can serve: open the sockets, and count the worker as serving."""
    for listener in worker.sockets:
        listener.listen(worker.cfg.backlog)
    _shared_page[_FIRST_WORKER_OFFSET + worker.age % _MAX_WORKERS] = 1
    _notify_systemd(b"READY=1")


def may_exit(worker: Any) -> bool:
    """In a worker that is told to exit: whether enough successors serve. True when there are none."""
    if _shared_page[_STOPPING_OFFSET] or _shared_page[_GENERATION_OFFSET] == _own_generation:
        return True
    return sum(_shared_page[_FIRST_WORKER_OFFSET:]) >= worker.cfg.workers


def _notify_systemd(state: bytes) -> None:
    """Notify systemd (sd_notify(3)). The unit has NotifyAccess=all, because a worker sends it."""
    if _notify_socket is None:
        return
    address = "\0" + _notify_socket[1:] if _notify_socket.startswith("@") else _notify_socket
    with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.connect(address)
        sock.send(state)
