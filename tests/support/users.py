"""The standard test users, and a test client that signs in without the form."""

import re
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime

from flask import Flask
from flask.testing import FlaskClient

from broadcast.actions.tokens import hash_token
from broadcast.store import users
from broadcast.store.models import UserSession
from broadcast.store.transactions import write_transaction


@dataclass(frozen=True)
class UserAccount:
    username: str
    roles: tuple[str, ...]
    password: str = "correct horse battery"


TEST_USERS = [UserAccount("alice", ("admin",)), UserAccount("bob", ("ops",)), UserAccount("charlie", ())]


class BrowserClient:
    """A browser without JavaScript: keeps cookies and sends the CSRF token of the last page it loaded."""

    def __init__(self, http: FlaskClient):
        self.http = http
        self.csrf_token = ""

    @classmethod
    def for_user(cls, app: Flask, username: str | None) -> "BrowserClient":
        client = cls(app.test_client())
        if username:
            token = secrets.token_urlsafe(32)
            with app.app_context():
                now = datetime.now(UTC)
                user_id = users.get_by_username(username).id
                with write_transaction() as session:
                    session.add(UserSession(token_hash=hash_token(token), user_id=user_id, created_at=now, seen_at=now))
            with client.http.session_transaction() as cookie:
                cookie.update(token=token, csrf_token=f"{user_id}-{secrets.token_hex(20)}")
        return client

    def get(self, path: str, **options):
        response = self.http.get(path, **options)
        if response.mimetype == "text/html":
            match = re.search(r'name="csrf_token" value="([^"]+)"', response.get_data(as_text=True))
            self.csrf_token = match[1] if match else self.csrf_token
        return response

    def post(self, path: str, data: dict | None = None, **options):
        """Post a form with the CSRF token; loads a page first if none was loaded yet."""
        return self.http.post(path, data={"csrf_token": self._get_csrf_token()} | (data or {}), **options)

    def send(self, method: str, path: str, json=None, **options):
        """Send a JSON request as a page's script does: with the cookie and X-CSRFToken."""
        headers = {"X-CSRFToken": self._get_csrf_token()} | options.pop("headers", {})
        return self.http.open(path, method=method, json=json, headers=headers, **options)

    def _get_csrf_token(self) -> str:
        if not self.csrf_token:
            self.get("/inbox")
            self.csrf_token or self.get("/login")
        return self.csrf_token
