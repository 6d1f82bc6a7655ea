"""A client that keeps one connection, and so one worker: an API client with a token, or a signed-in user."""

import http.client
import json
import re
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from tests.support.system import System, open_connection
from tests.support.users import TEST_USERS


@dataclass(frozen=True, slots=True)
class HttpResponse:
    status: int
    headers: http.client.HTTPMessage
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode()

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class HttpSession:
    """`worker` is the process that answered last. The caller handles broken connections; see `publish`."""

    def __init__(self, system: System, *, token: str | None = None):
        self.system = system
        self.headers = {"Authorization": f"Bearer {token}"} if token else {}
        self.worker: int | None = None
        self._csrf = ""
        self._connection = open_connection(system.url, timeout=30)

    @classmethod
    def sign_in(cls, system: System, username: str) -> "HttpSession":
        """Sign in with the form, as a browser without JavaScript does."""
        session = cls(system)
        session.get("/login")
        [password] = {person.password for person in TEST_USERS}
        answer = session.post("/login", username=username, password=password)
        assert answer.status == 303, answer.text
        session.get("/inbox")
        return session

    @classmethod
    def connect_to_worker(cls, system: System, worker: int, *, token: str) -> "HttpSession":
        """Reconnect until that worker answers."""
        for _ in range(200):
            session = cls(system, token=token)
            session.get("/healthz")
            if session.worker == worker:
                return session
            session.close()
        raise AssertionError(f"200 connections, and none was taken by worker {worker}")

    def get(self, path: str) -> HttpResponse:
        answer = self._request("GET", path, None, {})
        match = re.search(r'name="csrf_token" value="([^"]+)"', answer.body.decode(errors="replace"))
        self._csrf = match[1] if match else self._csrf
        return answer

    def post(self, path: str, **form: str) -> HttpResponse:
        body = urlencode({"csrf_token": self._csrf} | form)
        return self._request("POST", path, body, {"Content-Type": "application/x-www-form-urlencoded"})

    def send(self, method: str, path: str, body: Any = None, **headers: str) -> HttpResponse:
        """Send a JSON request."""
        headers = {name.replace("_", "-"): value for name, value in headers.items()}
        return self._request(method, path, json.dumps(body or {}), {"Content-Type": "application/json"} | headers)

    def publish(self, title: str, **draft: Any) -> int:
        """Publish to everyone, or as `draft` says; return the id. Retries with the same key when cut off or on 503."""
        body = {"title": title, "content": f"Text of {title}", "targetType": "ALL"} | draft
        while True:
            try:
                answer = self.send("POST", "/api/admin/broadcasts", body, Idempotency_Key=f"test: {title}")
            except (OSError, http.client.HTTPException):
                self.close()  # the next request connects anew
                continue
            if answer.status == 503:  # SQLite has one writer at a time, which may just have been killed
                continue
            assert answer.status in (200, 201), answer.text
            return answer.json["id"]

    def close(self) -> None:
        self._connection.close()

    def _request(self, method: str, path: str, body: str | None, headers: dict[str, str]) -> HttpResponse:
        self._connection.request(method, path, body, self.headers | headers)
        response = self._connection.getresponse()
        answer = HttpResponse(response.status, response.headers, response.read())
        self.worker = int(response.headers["X-Worker"])
        for cookie in response.headers.get_all("Set-Cookie", []):
            self.headers["Cookie"] = cookie.partition(";")[0]
        return answer
