"""Ports for test servers."""

import itertools
import os
import random
import socket

# pytest-xdist runs tests in several processes
WORKER_INDEX = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
if WORKER_INDEX > 7:
    raise RuntimeError("JOBS is 8 at most: each process has two of the 16 databases of a Redis.")
_PORTS_PER_WORKER = 1000
# below 32768, where the ports of Linux's outgoing connections begin
_FIRST_PORT = 12_000 + _PORTS_PER_WORKER * WORKER_INDEX
_port_offsets = itertools.count(random.randrange(_PORTS_PER_WORKER))


def find_free_port() -> int:
    """Return a port that is free now and that neither other processes of this run nor outgoing connections get."""
    while True:
        port = _FIRST_PORT + next(_port_offsets) % _PORTS_PER_WORKER
        with socket.socket() as sock:
            try:
                sock.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port


def is_listening(port: int) -> bool:
    with socket.socket() as sock:
        return sock.connect_ex(("127.0.0.1", port)) == 0
