"""Servers to compare the application with, on the same machine in the same run, each on core 0."""

import base64
import hashlib
import hmac
import http.client
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from bench.client import Target, build_get
from tests.support.ports import find_free_port

BENCH_FOLDER = Path(__file__).resolve().parent
MESSAGE = "x" * 180  # with its field names about 200 bytes, as the application's shortest message
LAST_REPLAYED = "the last one to replay"
KEY = "a key of thirty-two bytes, or more"


@dataclass
class Peer:
    """A server. `send(count)` sends messages back to back and returns the time of each (CLOCK_REALTIME)."""

    name: str
    process: subprocess.Popen
    live: Target
    send: Callable[[int], list[float]]
    find_replay: Callable[[int], Target] | None = None  # a stream that begins with that many messages; sends them

    @property
    def pids(self) -> list[int]:
        """The processes that serve: the children, or without any the process itself."""
        return list_children(self.process.pid) or [self.process.pid]

    def live_stream(self) -> Target:
        return self.live

    def replay_stream(self, events: int) -> Target | None:
        return self.find_replay and self.find_replay(events)


class Publisher:
    """Publishes by POST on one connection."""

    def __init__(self, port: int, path: str, build_body: Callable[[str], str] = str, **headers: str):
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        self._path, self._build_body, self._headers = path, build_body, headers

    def post(self, text: str, path: str | None = None) -> Any:
        try:
            self._connection.request("POST", path or self._path, text, self._headers)
        except ConnectionError:  # the server has closed a connection that was idle
            self._connection.close()
            self._connection.request("POST", path or self._path, text, self._headers)
        response = self._connection.getresponse()
        answer = response.read()
        assert response.status in (200, 201, 202), answer
        return answer

    def send(self, count: int, text: str = MESSAGE) -> list[float]:
        sent_at = []
        for _ in range(count):
            sent_at.append(time.time())
            self.post(self._build_body(text))
        return sent_at

    def send_replayed(self, count: int) -> None:
        self.send(count - 1)
        self.send(1, LAST_REPLAYED)


@contextmanager
def run_limit(programs: Path, streams: int) -> Iterator[Peer]:
    """Run the C loop."""
    port, pipe = find_free_port(), subprocess.PIPE
    with _run([programs / "limit", port, streams, 200], stdin=pipe, stdout=pipe, text=True) as process:
        assert process.stdout.readline() == "listening\n"

        def send(count: int) -> list[float]:
            process.stdin.write("\n" * count)
            process.stdin.flush()
            return [float(process.stdout.readline().split()[2]) for _ in range(count)]

        yield Peer("C, only `send()`", process, Target(port, _write_lines(programs, ["nobody"]), build_get("/")), send)


@contextmanager
def run_greenlets(programs: Path, _streams: int) -> Iterator[Peer]:
    """Run a Flask app with a greenlet and a queue per stream, as tutorials show it."""
    port = find_free_port()
    options = f"-k gevent -w 1 -b 127.0.0.1:{port} --worker-connections 12000 --no-control-socket greenlets:app".split()
    # in this folder, because gunicorn would read gunicorn.conf.py in the project root
    with _run([sys.executable, "-m", "gunicorn", *options], ready_at=port, cwd=BENCH_FOLDER) as process:
        target = Target(port, _write_lines(programs, ["nobody"]), build_get("/stream"))
        yield Peer("a greenlet for each stream", process, target, Publisher(port, "/publish").send)


NCHAN_MODULE = Path("/usr/lib/nginx/modules/ngx_nchan_module.so")
NGINX_CONFIG = """
load_module {module};
daemon off; master_process on; worker_processes 1; pid {folder}/pid; error_log {folder}/error.log; worker_rlimit_nofile 60000;
events {{ worker_connections 30000; }}
http {{
  access_log off; client_body_temp_path {folder}/a; proxy_temp_path {folder}/b; fastcgi_temp_path {folder}/c;
  uwsgi_temp_path {folder}/d; scgi_temp_path {folder}/e; nchan_max_reserved_memory 512m;
  server {{
    listen 127.0.0.1:{port};
    location = /ready {{ return 200; }}
    location = /publish {{ nchan_publisher; nchan_channel_id all; nchan_message_buffer_length 200; }}
    location = /stream {{ nchan_subscriber eventsource; nchan_channel_id all; nchan_subscriber_first_message newest;
                          nchan_eventsource_event MESSAGE; }}
  }}
}}
"""


@contextmanager
def run_nchan(programs: Path, _streams: int) -> Iterator[Peer | None]:
    """Run nginx with its nchan module, if Debian's package is installed. Nobody signs in."""
    if not shutil.which("nginx") or not NCHAN_MODULE.exists():
        yield None
        return
    port = find_free_port()
    (folder := programs / "nchan").mkdir()
    os.chmod(programs, 0o755)
    os.chmod(folder, 0o777)
    config = folder / "nginx.conf"
    config.write_text(NGINX_CONFIG.format(folder=folder, port=port, module=NCHAN_MODULE))
    with _run(["nginx", "-c", config, "-p", folder], ready_at=port) as process:
        publisher, lines = Publisher(port, "/publish", Accept="application/json"), _write_lines(programs, ["nobody"])

        def find_replay(events: int) -> Target:
            cursor = json.loads(publisher.post("before"))["last_message_id"]
            publisher.send_replayed(events)
            return Target(port, lines, build_get("/stream", f"Last-Event-ID: {cursor}"), hello=LAST_REPLAYED)

        live = Target(port, lines, build_get("/stream"), hello=": hi")
        yield Peer("nchan", process, live, publisher.send, find_replay)


@contextmanager
def run_centrifugo(programs: Path, streams: int) -> Iterator[Peer | None]:
    """Run the binary that CENTRIFUGO names: `uni_sse`, a JWT for each user, history, recovery, presence."""
    if not (binary := os.environ.get("CENTRIFUGO")):
        yield None
        return
    port = find_free_port()
    (config := programs / "centrifugo.json").write_text(
        json.dumps(
            {
                "http_server": {"address": "127.0.0.1", "port": port},
                "client": {"token": {"hmac_secret_key": KEY}},
                "channel": {
                    "without_namespace": {
                        "presence": True, "history_size": 200, "history_ttl": "1h", "force_recovery": True
                    }
                },
                "http_api": {"key": KEY},
                "uni_sse": {"enabled": True},
                "health": {"enabled": True},
                "log": {"level": "error"},
            }
        )
    )  # fmt: skip
    with _run([binary, "-c", config], ready_at=port, ready_path="/health") as process:
        headers = {"X-API-Key": KEY, "Content-Type": "application/json"}
        publisher = Publisher(
            port, "/api/publish", lambda text: json.dumps({"channel": "all", "data": {"title": text}}), **headers
        )
        tokens = _write_lines(programs, [_make_jwt({"sub": f"user{n}", "channels": ["all"]}) for n in range(streams)])

        def build_target(**request: Any) -> Target:
            # JSON without spaces, and the load client's place for a token in it
            connect = quote(json.dumps({"token": "TOKEN"} | request)).replace("TOKEN", "{}")
            path = f"/connection/uni_sse?cf_connect={connect}"
            return Target(port, tokens, build_get(path), hello='"connect":', mark='"pub":{')

        def find_replay(events: int) -> Target:
            publisher.send(events)
            answer = json.loads(publisher.post('{"channel": "all", "limit": 0}', "/api/history"))["result"]
            position = {"recover": True, "epoch": answer["epoch"], "offset": answer["offset"] - events}
            return build_target(subs={"all": position})

        yield Peer("Centrifugo", process, build_target(), publisher.send, find_replay)


CADDYFILE = """
{{
  admin off
  auto_https off
}}
http://127.0.0.1:{port} {{
  mercure {{
    transport_url bolt://{folder}/mercure.db?size=1000
    publisher_jwt "{key}" HS256
    subscriber_jwt "{key}" HS256
    write_timeout 0s
  }}
  respond /ready 200
}}
"""


@contextmanager
def run_mercure(programs: Path, streams: int) -> Iterator[Peer | None]:
    """Run the hub that MERCURE names, a build of Caddy: a JWT for each user, its history in a file."""
    if not (binary := os.environ.get("MERCURE")):
        yield None
        return
    port = find_free_port()
    (config := programs / "Caddyfile").write_text(CADDYFILE.format(port=port, folder=programs, key=KEY))
    with _run([binary, "run", "--config", config, "--adapter", "caddyfile"], ready_at=port) as process:
        path, publish_token = "/.well-known/mercure", _make_jwt({"mercure": {"publish": ["*"]}})
        headers = {"Authorization": f"Bearer {publish_token}", "Content-Type": "application/x-www-form-urlencoded"}
        publisher = Publisher(port, path, lambda text: f"topic=all&type=MESSAGE&data={quote(text)}", **headers)
        rights = {"mercure": {"subscribe": ["*"]}}
        tokens = _write_lines(programs, [_make_jwt({"sub": f"user{n}"} | rights) for n in range(streams)])

        def build_target(query: str, hello: str) -> Target:
            return Target(port, tokens, build_get(f"{path}?topic=all{query}", "Authorization: Bearer {}"), hello=hello)

        def find_replay(events: int) -> Target:
            before = publisher.post("topic=all&data=before").decode()  # the answer is the update's id
            publisher.send_replayed(events)
            return build_target(f"&lastEventID={quote(before)}", LAST_REPLAYED)

        yield Peer("Mercure", process, build_target("", ":"), publisher.send, find_replay)


def open_peers(stack: ExitStack, programs: Path, streams: int) -> list[Peer]:
    """Start every server that is there; they end with the stack."""
    runs = [run_limit, run_greenlets, run_nchan, run_centrifugo, run_mercure]
    started = [stack.enter_context(run(programs, streams)) for run in runs]
    return [peer for peer in started if peer is not None]


@contextmanager
def _run(
    command: Sequence[Any], *, ready_at: int | None = None, ready_path: str = "/ready", **options: Any
) -> Iterator[subprocess.Popen]:
    """Run a server on core 0, and wait until it answers. Ended by its process id."""
    options = {"stderr": subprocess.DEVNULL, "stdout": subprocess.DEVNULL} | options
    process = subprocess.Popen(["taskset", "-c", "0", *map(str, command)], preexec_fn=None, **options)
    try:
        if ready_at:
            _wait_for(process, ready_at, ready_path)
        yield process
    finally:
        process.terminate()
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _write_lines(programs: Path, lines: Sequence[str]) -> Path:
    path = programs / f"lines{hash(tuple(lines)):x}"
    path.write_text("\n".join(lines))
    return path


def _make_jwt(claims: dict[str, Any]) -> str:
    def encode(data: bytes) -> str:
        return base64.urlsafe_b64encode(data).rstrip(b"=").decode()

    parts = ({"alg": "HS256", "typ": "JWT"}, claims | {"exp": int(time.time()) + 86400})
    signed = ".".join(encode(json.dumps(part, separators=(",", ":")).encode()) for part in parts)
    return f"{signed}.{encode(hmac.digest(KEY.encode(), signed.encode(), hashlib.sha256))}"


def list_children(pid: int) -> list[int]:
    return [int(n) for n in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _wait_for(process: subprocess.Popen, port: int, path: str) -> None:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline and process.poll() is None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=1)
        try:
            connection.request("GET", path)
            if connection.getresponse().status == 200:
                return
        except OSError:
            pass
        finally:
            connection.close()
        time.sleep(0.05)
    raise SystemExit(f"{process.args} did not answer within 20 s")
