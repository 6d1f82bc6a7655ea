"""What real workers keep private: their files, and which request headers they trust."""

import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.system import System

pytestmark = [pytest.mark.service, pytest.mark.alike]


@pytest.fixture(scope="module")
def open_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """A system whose folder is open to everybody, started by somebody whose files are, on files that an older version made."""
    folder = tmp_path_factory.mktemp("open")
    data = folder / "var"
    data.mkdir()
    data.chmod(0o777)
    (data / "secret_key").write_text("0f1e2d3c4b5a69788796a5b4c3d2e1f0" * 2)
    (data / "secret_key").chmod(0o644)
    (data / "others.txt").write_text("not ours")
    (data / "others.txt").chmod(0o644)
    before = os.umask(0)
    try:
        with System(folder, METRICS_FROM="", SCRIPT_NAME="/elsewhere") as running:
            yield running
    finally:
        os.umask(before)


def test_files_are_private_whatever_the_folder_is(open_folder: System):
    data = Path(open_folder.environ["DATA_DIR"])
    assert open_folder.call("POST", "/api/user/messages/read-all", token=open_folder.get_token("bob"))[0] == 200
    modes = {path.name: stat.S_IMODE(path.lstat().st_mode) for path in data.rglob("*") if path.is_file()}
    assert {
        "broadcast.sqlite3",
        "broadcast.sqlite3-wal",
        "broadcast.sqlite3-shm",
        "secret_key",
        "launcher.lock",
    } <= modes.keys()
    assert modes.pop("others.txt") == 0o644, "whose files they are not, they leave alone"
    assert {name: oct(mode) for name, mode in modes.items() if mode & 0o077} == {}
    assert stat.S_IMODE(data.stat().st_mode) == 0o777


@pytest.mark.parametrize(
    "lines",
    [
        ["SCRIPT_NAME: /inbox"],
        ["Script_Name: /login"],
        ["SCRIPT_NAME: /nothing-of-the-kind"],
        ["PATH_INFO: /metrics"],
        ["REMOTE_USER: alice"],
        ["REMOTE_ADDR: 192.0.2.1"],
        ["X-Forwarded-Proto: https"],
        ["X-Forwarded-Proto: http", "X-Forwarded-Ssl: on"],
        ["X-Forwarded-Protocol: ssl", "X-Forwarded-Proto: http"],
        ["X-Forwarded-Host: evil.example"],
        ["X-Forwarded-Prefix: /evil"],
        ["X_Forwarded_For: 127.0.0.1", "X-Forwarded_User: alice"],
        ["Forwarded: for=127.0.0.1;host=evil.example;proto=https"],
        ["wsgi.url_scheme: https"],
        ["HTTP_HOST: evil.example"],
    ],
    ids=lambda lines: lines[0],
)
def test_headers_of_a_client_change_nothing(open_folder: System, lines: list[str]):
    plain, told = ask(open_folder, "/inbox"), ask(open_folder, "/inbox", *lines)
    assert told == plain
    assert told[0] == "HTTP/1.1 303 SEE OTHER"
    assert told[1] == "/login?next=/inbox"
    assert ask(open_folder, "/metrics", *lines)[0] == "HTTP/1.1 303 SEE OTHER"


def test_proxy_protocol_is_not_spoken(open_folder: System):
    with socket.create_connection(("127.0.0.1", open_folder.port), timeout=20) as connection:
        connection.sendall(b"PROXY TCP4 192.0.2.1 127.0.0.1 1 2\r\nGET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert connection.recv(65536).startswith(b"HTTP/1.1 400")


def ask(system: System, path: str, *lines: str) -> tuple[str, str]:
    """Status line and Location."""
    with socket.create_connection(("127.0.0.1", system.port), timeout=20) as connection:
        head = [f"GET {path} HTTP/1.1", "Host: localhost", "Connection: close", *lines, "", ""]
        connection.sendall("\r\n".join(head).encode())
        answer = b""
        while more := connection.recv(65536):
            answer += more
    head, _, _ = answer.partition(b"\r\n\r\n")
    status, *fields = head.decode("latin-1").split("\r\n")
    found = dict(field.split(": ", 1) for field in fields)
    return status, found.get("Location", "")
