"""Servers of other makers as Debian packages them: each on loopback, on a free port, in a folder of its own, ended by pid.

What the machine does not have skips the test that asks for it, by name.
"""

import os
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.ports import free_port
from tests.system import TOP, wait_for

_IS_ROOT = os.geteuid() == 0  # PostgreSQL refuses to run as root


def program(name: str, package: str) -> str:
    """Where that program is; skips the test when it is not installed."""
    if found := shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin"):
        return found
    pytest.skip(f"{name} is not installed: apt-get install {package}")


class Server:
    """One process that listens on `port`; `signal(SIGKILL)` waits for its end."""

    def __init__(self, command: Sequence[str | Path], port: int, log: Path):
        self.port, self._command, self._log = port, command, log
        self.process: subprocess.Popen | None = None

    def start(self) -> None:
        """Start and wait until the port is open."""
        with self._log.open("ab") as output:
            self.process = subprocess.Popen(self._command, cwd="/", stdout=output, stderr=output)
        wait_for(self._is_open, seconds=30, what=f"{self._command[0]} on port {self.port}; see {self._log}")

    def signal(self, number: int) -> None:
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
                self.signal(signal.SIGKILL)

    def _is_open(self) -> bool:
        assert self.process.poll() is None, self._log.read_text()
        with socket.socket() as sock:
            return sock.connect_ex(("127.0.0.1", self.port)) == 0


class Redis(Server):
    """A Redis with the options given; `--cluster-enabled yes`, for instance."""

    def __init__(self, folder: Path, *options: str, port: int | None = None):
        port = port or free_port()
        home = folder / f"redis-{port}"
        home.mkdir(exist_ok=True)
        common = ["--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", str(home)]
        super().__init__([program("redis-server", "redis-server"), *common, *options], port, home / "log")


def nginx(folder: Path, nodes: Sequence[int], *, certificate: tuple[Path, Path]) -> Server:
    """`deploy/nginx.conf` as it is, but for ports, nodes, paths and the certificate. `server.port` is the one with TLS."""
    port = free_port()
    folder.mkdir()
    shutil.copytree(certificate[0].parent, folder / "tls")
    replaced = {
        "listen 8080;": f"listen 127.0.0.1:{free_port()};",
        "listen 8443 ssl": f"listen 127.0.0.1:{port} ssl",
        "server node1:8000 ": f"server 127.0.0.1:{nodes[0]} ",
        "server node2:8000 ": f"server 127.0.0.1:{nodes[1]} ",
        "/tmp/nginx": f"{folder}/nginx",
        "/dev/stdout": str(folder / "access.log"),
        "/dev/stderr": str(folder / "error.log"),
    }
    text = (TOP / "deploy/nginx.conf").read_text()
    for old, new in replaced.items():
        assert old in text, f"deploy/nginx.conf no longer says {old}"
        text = text.replace(old, new)
    (folder / "nginx.conf").write_text(text)
    command = [program("nginx", "nginx"), "-c", str(folder / "nginx.conf"), "-e", str(folder / "error.log")]
    return Server([*command, "-g", "daemon off;"], port, folder / "output.txt")


def make_certificate(folder: Path) -> tuple[Path, Path]:
    """A certificate for localhost that nobody signed, and its key: `folder`/cert.pem and key.pem."""
    folder.mkdir()
    certificate, key = folder / "cert.pem", folder / "key.pem"
    command = [program("openssl", "openssl"), "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
    command += ["-nodes", "-days", "2", "-subj", "/CN=localhost", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run(command, check=True, capture_output=True)
    return certificate, key


class Postgres:
    """A cluster of one's own in a folder of its own, ended by `pg_ctl`: runuser would pass no signal on."""

    def __init__(self, *, durable: bool = False):
        programs = max(Path("/usr/lib/postgresql").glob("*/bin"), default=None, key=lambda path: int(path.parent.name))
        if programs is None:
            pytest.skip("PostgreSQL is not installed: apt-get install postgresql")
        self.folder, self.port = Path(tempfile.mkdtemp(prefix="broadcast-postgres-")), free_port()
        self.url = f"postgresql://postgres@127.0.0.1:{self.port}/postgres"
        self._programs, self._as_postgres = programs, ["runuser", "-u", "postgres", "--"] if _IS_ROOT else []
        self._options = [
            "listen_addresses=127.0.0.1", f"fsync={'on' if durable else 'off'}", "max_connections=200",
            f"unix_socket_directories={self.folder}", f"port={self.port}",
        ]  # fmt: skip
        if _IS_ROOT:
            shutil.chown(self.folder, "postgres")

    def make(self) -> None:
        self._run(
            "initdb", "-D", self.folder / "data", "-U", "postgres", "--auth=trust", "-E", "UTF8", "--locale=C.UTF-8"
        )

    def make_standby_of(self, primary: "Postgres") -> None:
        """A copy that follows the primary's log, asynchronously, until it is promoted."""
        self._run("pg_basebackup", "-D", self.folder / "data", "-R", "-X", "stream", "-c", "fast", "-d", primary.url)

    def start(self) -> None:
        self._control("-o", " ".join(f"-c {option}" for option in self._options), "start")

    def stop(self) -> None:
        """As when its machine loses its power."""
        self._control("-m", "immediate", "stop", check=False)

    def promote(self) -> None:
        self._control("promote")

    def remove(self) -> None:
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _control(self, *words: str, check: bool = True) -> None:
        self._run("pg_ctl", "-D", self.folder / "data", "-l", self.folder / "log", "-w", *words, check=check)

    def _run(self, name: str, *words: str | Path, check: bool = True) -> None:
        command = [*self._as_postgres, self._programs / name, *words]
        subprocess.run(
            command, cwd="/", check=check, stdout=subprocess.DEVNULL, stderr=None if check else subprocess.DEVNULL
        )


@contextmanager
def postgres(*, durable: bool = False) -> Iterator[str]:
    """A PostgreSQL of one's own; yields the URL of its database `postgres`. `durable`: a commit waits for the disk."""
    server = Postgres(durable=durable)
    try:
        server.make()
        server.start()
        yield server.url
    finally:
        server.remove()


@contextmanager
def primary_and_standby() -> Iterator[tuple[Postgres, Postgres]]:
    """Two servers, of which the second follows the first."""
    primary, standby = Postgres(), Postgres()
    try:
        primary.make()
        primary.start()
        standby.make_standby_of(primary)
        standby.start()
        yield primary, standby
    finally:
        standby.remove()
        primary.remove()
