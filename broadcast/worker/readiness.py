"""Who serves during a start and a reload, agreed between gunicorn's master and its workers through a page of shared memory.

- At a start nobody listens until a worker has read the log, so that a proxy is refused at once and asks another node, instead
  of waiting in the kernel's queue for as long as this one boots.
- At a reload (HUP) gunicorn tells the old workers to go while the new ones are still being loaded. They stay until as many of
  the new ones serve.
- systemd hears READY=1 when somebody serves, and not when the master has begun.

The master imports this before its workers are patched for gevent, so it needs nothing but the standard library.
"""

import mmap
import os
import socket
from contextlib import suppress
from typing import Any

_MAX_WORKERS = 256  # workers of one reload that are told apart; WEB_CONCURRENCY is at most 64
_GENERATION_OFFSET, _STOPPING_OFFSET, _FIRST_WORKER_OFFSET = 0, 1, 2

_shared_page = mmap.mmap(-1, _FIRST_WORKER_OFFSET + _MAX_WORKERS)  # shared with every worker that is forked from here
_own_generation = 0
_notify_socket = os.environ.pop("NOTIFY_SOCKET", None)  # gunicorn would say READY=1 before any worker is there


def close_until_ready(server: Any) -> None:
    """In the master, once the sockets are bound: let nobody connect before a worker serves.

    Not for sockets that others serve already (USR2) or that systemd keeps open, and not for a unix socket, which cannot be
    opened again.
    """
    if server.master_pid or server.systemd:
        return
    for listener in server.LISTENERS:
        if listener.sock.family != socket.AF_UNIX:
            with suppress(OSError):  # only Linux takes this for a listening socket
                listener.sock.shutdown(socket.SHUT_RD)


def start_generation(server: Any) -> None:
    """In the master, at a reload and before its new workers are forked."""
    _shared_page[_GENERATION_OFFSET] = (_shared_page[_GENERATION_OFFSET] + 1) % 255
    _shared_page[_FIRST_WORKER_OFFSET:] = bytes(_MAX_WORKERS)


def mark_stopping(server: Any) -> None:
    """In the master: from here on a worker that is told to go goes at once."""
    _shared_page[_STOPPING_OFFSET] = 1


def join_generation() -> None:
    """In a worker, when it was forked."""
    global _own_generation
    _own_generation = _shared_page[_GENERATION_OFFSET]


def start_serving(worker: Any) -> None:
    """In a worker that can serve: open the sockets, and count it."""
    for listener in worker.sockets:
        listener.listen(worker.cfg.backlog)
    _shared_page[_FIRST_WORKER_OFFSET + worker.age % _MAX_WORKERS] = 1
    _notify_systemd(b"READY=1")


def may_exit(worker: Any) -> bool:
    """In a worker that is told to go: whether enough of those who follow it serve. True when nobody follows."""
    if _shared_page[_STOPPING_OFFSET] or _shared_page[_GENERATION_OFFSET] == _own_generation:
        return True
    return sum(_shared_page[_FIRST_WORKER_OFFSET:]) >= worker.cfg.workers


def _notify_systemd(state: bytes) -> None:
    """Say it to systemd (sd_notify(3)); the unit has NotifyAccess=all, as it is a worker that knows."""
    if _notify_socket is None:
        return
    address = "\0" + _notify_socket[1:] if _notify_socket.startswith("@") else _notify_socket
    with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.connect(address)
        sock.send(state)
