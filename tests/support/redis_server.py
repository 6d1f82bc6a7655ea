"""A Redis for one test, which may kill, freeze and flush it."""

import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator

import pytest

from tests.support.ports import find_free_port
from tests.support.system import wait_for


class RedisServer:
    """A Redis-compatible server on its own port, started on creation; it keeps nothing on disk."""

    def __init__(self, program: str):
        self.port = find_free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self.program = program
        self.start()

    def start(self) -> None:
        command = [self.program, "--port", str(self.port), "--save", "", "--appendonly", "no", "--bind", "127.0.0.1"]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        wait_for(self._is_answering, description="the Redis of this test to answer")

    def freeze(self) -> None:
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self.process.send_signal(signal.SIGCONT)

    def stop(self) -> None:
        self.thaw()
        self.process.kill()
        self.process.wait()

    def _is_answering(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=5) as sock:
                sock.sendall(b"PING\r\n")
                return sock.recv(100) == b"+PONG\r\n"
        except OSError:
            return False


@pytest.fixture
def own_redis() -> Iterator[RedisServer]:
    program = shutil.which("redis-server") or shutil.which("valkey-server")
    if not program:
        pytest.skip("neither redis-server nor valkey-server is installed")
    server = RedisServer(program)
    yield server
    server.stop()
