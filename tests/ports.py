"""Ports for servers of the tests."""

import itertools
import os
import random
import socket

WORKER = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))  # tests run in several processes at once
if WORKER > 7:
    raise RuntimeError("JOBS is 8 at most: each process has two of the 16 databases of a Redis.")
_EACH = 1000
_FIRST = 12_000 + _EACH * WORKER  # below 32768, where Linux takes the ports of outgoing connections from
_ports = itertools.count(random.randrange(_EACH))


def free_port() -> int:
    """A port that is free now, that no other process of this run is given, and that no connection takes by chance."""
    while True:
        port = _FIRST + next(_ports) % _EACH
        with socket.socket() as sock:
            try:
                sock.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port
