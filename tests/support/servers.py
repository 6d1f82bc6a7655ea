"""Third-party servers as Debian packages them: each on loopback, on a free port, in its own folder, stopped by pid.

A test is skipped, with the program's name, if the machine lacks one.
"""

import os
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from broadcast.launcher.redis_server import find_server
from tests.support.ports import find_free_port
from tests.support.system import PROJECT_ROOT, wait_for

_IS_ROOT = os.geteuid() == 0  # PostgreSQL refuses to run as root


def find_program_or_skip(name: str, package: str) -> str:
    """Return the path of that program; skips the test when it is not installed."""
    if path := shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin"):
        return path
    pytest.skip(f"{name} is not installed: apt-get install {package}")


class ServerProcess:
    """One process that listens on `port`; `signal(SIGKILL)` waits until it has ended."""

    def __init__(self, command: Sequence[str | Path], port: int, log: Path):
        self.port, self._command, self._log = port, command, log
        self.process: subprocess.Popen | None = None

    def start(self) -> None:
        """Start and wait until the port is open."""
        with self._log.open("ab") as output:
            self.process = subprocess.Popen(self._command, cwd="/", stdout=output, stderr=output)
        wait_for(self._is_open, seconds=30, description=f"{self._command[0]} on port {self.port}; see {self._log}")

    def send_signal(self, number: int) -> None:
        self.process.send_signal(number)
        if number == signal.SIGKILL:
            self.process.wait()

    def stop(self) -> None:
        if self.process and self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.process.terminate()
            try:
                self.process.wait(15)
            except subprocess.TimeoutExpired:
                self.send_signal(signal.SIGKILL)

    def _is_open(self) -> bool:
        assert self.process.poll() is None, self._log.read_text()
        with socket.socket() as sock:
            return sock.connect_ex(("127.0.0.1", self.port)) == 0


class RedisServer(ServerProcess):
    """A Redis, or Valkey, with the given options, for example `--cluster-enabled yes`; it keeps nothing on disk."""

    def __init__(self, folder: Path, *options: str):
        program = find_server()
        if program is None:
            pytest.skip("no Redis or Valkey server on this machine")
        port = find_free_port()
        self.url = f"redis://127.0.0.1:{port}/0"
        data_dir = folder / f"redis-{port}"
        data_dir.mkdir()
        command = [program, "--port", str(port), "--bind", "127.0.0.1", "--dir", data_dir]
        super().__init__([*command, "--save", "", "--appendonly", "no", *options], port, data_dir / "log")

    def freeze(self) -> None:
        self.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self.send_signal(signal.SIGCONT)

    def stop(self) -> None:
        """Kill it: it has nothing to save."""
        if self.process and self.process.poll() is None:
            self.send_signal(signal.SIGKILL)

    def _is_open(self) -> bool:
        with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=5) as sock:
            sock.sendall(b"PING\r\n")
            return sock.recv(100) == b"+PONG\r\n"
        assert self.process.poll() is None, self._log.read_text()
        return False


@pytest.fixture
def own_redis(tmp_path: Path) -> Iterator[RedisServer]:
    """A Redis for one test, which may kill, freeze and flush it."""
    server = RedisServer(tmp_path)
    server.start()
    yield server
    server.stop()


def make_nginx(folder: Path, node_ports: Sequence[int], *, certificate: tuple[Path, Path]) -> ServerProcess:
    """nginx with `deploy/nginx.conf`; only ports, nodes, paths and certificate differ. `port` is the TLS one."""
    port = find_free_port()
    folder.mkdir()
    shutil.copytree(certificate[0].parent, folder / "tls")
    replacements = {
        "listen 8080;": f"listen 127.0.0.1:{find_free_port()};",
        "listen 8443 ssl": f"listen 127.0.0.1:{port} ssl",
        "server node1:8000 ": f"server 127.0.0.1:{node_ports[0]} ",
        "server node2:8000 ": f"server 127.0.0.1:{node_ports[1]} ",
        "/tmp/nginx": f"{folder}/nginx",
        "/dev/stdout": str(folder / "access.log"),
        "/dev/stderr": str(folder / "error.log"),
    }
    text = (PROJECT_ROOT / "deploy/nginx.conf").read_text()
    for old, new in replacements.items():
        assert old in text, f"deploy/nginx.conf no longer says {old}"
        text = text.replace(old, new)
    (folder / "nginx.conf").write_text(text)
    command = [
        find_program_or_skip("nginx", "nginx"),
        "-c",
        str(folder / "nginx.conf"),
        "-e",
        str(folder / "error.log"),
    ]
    return ServerProcess([*command, "-g", "daemon off;"], port, folder / "output.txt")


def make_self_signed_certificate(folder: Path) -> tuple[Path, Path]:
    """Make a self-signed certificate for localhost and its key: `folder`/cert.pem and key.pem."""
    folder.mkdir()
    certificate, key = folder / "cert.pem", folder / "key.pem"
    command = [
        find_program_or_skip("openssl", "openssl"),
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
    ]
    command += ["-nodes", "-days", "2", "-subj", "/CN=localhost", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run(command, check=True, capture_output=True)
    return certificate, key


class PostgresServer:
    """A cluster in its own folder, stopped by `pg_ctl`, because runuser does not forward signals."""

    def __init__(self, *, durable: bool = False):
        bin_dir = max(Path("/usr/lib/postgresql").glob("*/bin"), default=None, key=lambda path: int(path.parent.name))
        if bin_dir is None:
            pytest.skip("PostgreSQL is not installed: apt-get install postgresql")
        self.folder, self.port = Path(tempfile.mkdtemp(prefix="broadcast-postgres-")), find_free_port()
        self.url = f"postgresql://postgres@127.0.0.1:{self.port}/postgres"
        self._bin_dir, self._as_postgres = bin_dir, ["runuser", "-u", "postgres", "--"] if _IS_ROOT else []
        self._options = [
            "listen_addresses=127.0.0.1", f"fsync={'on' if durable else 'off'}", "max_connections=200",
            f"unix_socket_directories={self.folder}", f"port={self.port}",
        ]  # fmt: skip
        if _IS_ROOT:
            shutil.chown(self.folder, "postgres")

    def initialize(self) -> None:
        self._run_command(
            "initdb", "-D", self.folder / "data", "-U", "postgres", "--auth=trust", "-E", "UTF8", "--locale=C.UTF-8"
        )

    def initialize_as_standby(self, primary: "PostgresServer") -> None:
        """Initialize as an asynchronous streaming standby of `primary`, until it is promoted."""
        self._run_command(
            "pg_basebackup", "-D", self.folder / "data", "-R", "-X", "stream", "-c", "fast", "-d", primary.url
        )

    def start(self) -> None:
        self._run_pg_ctl("-o", " ".join(f"-c {option}" for option in self._options), "start")

    def stop(self) -> None:
        """Stop at once, as a power failure would."""
        self._run_pg_ctl("-m", "immediate", "stop", check=False)

    def promote(self) -> None:
        self._run_pg_ctl("promote")

    def remove(self) -> None:
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _run_pg_ctl(self, *args: str, check: bool = True) -> None:
        self._run_command("pg_ctl", "-D", self.folder / "data", "-l", self.folder / "log", "-w", *args, check=check)

    def _run_command(self, name: str, *args: str | Path, check: bool = True) -> None:
        command = [*self._as_postgres, self._bin_dir / name, *args]
        subprocess.run(
            command, cwd="/", check=check, stdout=subprocess.DEVNULL, stderr=None if check else subprocess.DEVNULL
        )


@contextmanager
def run_postgres(*, durable: bool = False) -> Iterator[str]:
    """Run a PostgreSQL; yields the URL of its database. `durable`: a commit waits for the disk."""
    server = PostgresServer(durable=durable)
    try:
        server.initialize()
        server.start()
        yield server.url
    finally:
        server.remove()


@contextmanager
def run_primary_and_standby() -> Iterator[tuple[PostgresServer, PostgresServer]]:
    """Run two servers; the second is a standby of the first."""
    primary, standby = PostgresServer(), PostgresServer()
    try:
        primary.initialize()
        primary.start()
        standby.initialize_as_standby(primary)
        standby.start()
        yield primary, standby
    finally:
        standby.remove()
        primary.remove()
