"""A receiver of webhooks as a process, written as its owner would: it verifies each request with `standardwebhooks`.

`python -m tests.support.webhook_receiver FOLDER` serves on a free port. In the folder it reads `secret`, takes its next
answer from the first line of `answers` (a status, or `hang`, or `drip`; without a line it answers 200), and appends what
came to `requests`, before it answers.
"""

import json
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from standardwebhooks import Webhook, WebhookVerificationError

from tests.support.seeded_databases import PROJECT_ROOT

_lock = threading.Lock()


class _Handler(BaseHTTPRequestHandler):
    folder: Path

    def do_POST(self) -> None:  # noqa: N802 - http.server's name
        body = self.rfile.read(int(self.headers["Content-Length"]))
        request = {"path": self.path, "headers": {name.lower(): value for name, value in self.headers.items()}}
        try:
            request["event"] = Webhook((self.folder / "secret").read_text()).verify(body, request["headers"])
        except WebhookVerificationError as problem:
            request["problem"] = str(problem)
        with _lock:
            with (self.folder / "requests").open("a") as file:
                file.write(json.dumps(request) + "\n")
            answer = self._take_answer()
        self._answer(answer)

    def _take_answer(self) -> str:
        path = self.folder / "answers"
        first, *others = path.read_text().splitlines() or ["200"]
        path.write_text("\n".join(others))
        return first

    def _answer(self, answer: str) -> None:
        if answer == "hang":
            self.rfile.read(1)  # until the other side closes
            return
        if answer == "drip":
            for byte in b"HTTP/1.1 200 OK\r\nX: " + b"x" * 10_000:
                self.wfile.write(bytes([byte]))
                time.sleep(0.05)
        status, _, location = answer.partition(" ")
        self.send_response(int(status))
        if location:
            self.send_header("Location", location)
        self.send_header("Content-Length", "9")
        self.end_headers()
        self.wfile.write(b"Thank\0you")

    def log_message(self, *_: Any) -> None:
        pass


class WebhookReceiver:
    """The process, as a test sees it."""

    def __init__(self, folder: Path):
        folder.mkdir()
        self._folder = folder
        self.forget()
        command = [sys.executable, "-m", "tests.support.webhook_receiver", str(folder)]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=PROJECT_ROOT)
        self.url = f"http://127.0.0.1:{int(self._process.stdout.readline())}/hook"

    def trust(self, secret: str) -> None:
        """Verify with this secret from now on."""
        (self._folder / "secret").write_text(secret)

    def answer(self, *answers: str) -> None:
        """What to answer to the next requests."""
        (self._folder / "answers").write_text("\n".join(answers))

    def forget(self) -> None:
        """As if nothing had come, and answer 200."""
        for name in ("answers", "requests", "secret"):
            (self._folder / name).write_text("")

    @property
    def requests(self) -> list[dict[str, Any]]:
        """`{path, headers, event}`, or `{…, problem}` for a request that is not what it claims to be."""
        lines = (self._folder / "requests").read_text().splitlines()
        return [json.loads(line) for line in lines]

    @property
    def events(self) -> list[dict[str, Any]]:
        """The payloads of all requests, each of which must have been verified."""
        return [request["event"] for request in self.requests]

    @property
    def ids(self) -> list[str]:
        return [request["headers"]["webhook-id"] for request in self.requests]

    def stop(self) -> None:
        self._process.kill()
        self._process.wait()
        self._process.stdout.close()


def serve(folder: Path) -> None:
    _Handler.folder = folder
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    print(server.server_port, flush=True)
    server.serve_forever()


if __name__ == "__main__":
    serve(Path(sys.argv[1]))
