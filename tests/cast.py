"""The cast of every test, and a test client that signs in the short way."""

import re
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime

from flask import Flask
from flask.testing import FlaskClient

from broadcast.actions.users import hash_token
from broadcast.store import users
from broadcast.store.database import writing
from broadcast.store.models import UserSession


@dataclass(frozen=True)
class Person:
    username: str
    roles: tuple[str, ...]
    password: str = "correct horse battery"


CAST = [Person("alice", ("admin",)), Person("bob", ("ops",)), Person("charlie", ())]


class Client:
    """A browser without JavaScript: keeps its cookies and sends the CSRF token of the last page it saw."""

    def __init__(self, http: FlaskClient):
        self.http = http
        self.csrf = ""

    @classmethod
    def of(cls, app: Flask, username: str | None) -> "Client":
        client = cls(app.test_client())
        if username:
            token = secrets.token_urlsafe(32)
            with app.app_context():
                now = datetime.now(UTC)
                user_id = users.by_username(username).id
                with writing() as session:
                    session.add(UserSession(token_hash=hash_token(token), user_id=user_id, created_at=now, seen_at=now))
            with client.http.session_transaction() as cookie:
                cookie["token"] = token
        return client

    def get(self, path: str, **options):
        response = self.http.get(path, **options)
        if response.mimetype == "text/html":
            found = re.search(r'name="csrf_token" value="([^"]+)"', response.get_data(as_text=True))
            self.csrf = found[1] if found else self.csrf
        return response

    def post(self, path: str, data: dict | None = None, **options):
        """Post a form with the CSRF token; a page is looked at first if none was seen yet."""
        return self.http.post(path, data={"csrf_token": self._token()} | (data or {}), **options)

    def send(self, method: str, path: str, json=None, **options):
        """A JSON request as a page's script makes it: cookie and X-CSRFToken."""
        headers = {"X-CSRFToken": self._token()} | options.pop("headers", {})
        return self.http.open(path, method=method, json=json, headers=headers, **options)

    def _token(self) -> str:
        if not self.csrf:
            self.get("/inbox")
            self.csrf or self.get("/login")
        return self.csrf
