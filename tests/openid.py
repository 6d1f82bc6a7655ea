"""A small OpenID provider on loopback, with real keys; what a test changes about it is what a hostile one would do."""

import base64
import hashlib
import json
import secrets
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

from joserfc import jwt
from joserfc.jwk import RSAKey

LOGOUT_EVENT = "http://schemas.openid.net/event/backchannel-logout"
CLIENT, SECRET = "broadcast", "the secret of the client"


def new_key() -> RSAKey:
    return RSAKey.generate_key(2048, parameters={"kid": secrets.token_hex(4), "use": "sig", "alg": "RS256"})


@cache
def _key() -> RSAKey:
    return new_key()  # making one takes a moment; every provider of a run may have the same


@dataclass
class OpenId:
    """`person` is who signs in there. The rest is what it says, and may be changed at any moment."""

    port: int = 0
    person: dict[str, Any] = field(
        default_factory=lambda: {"sub": "42-bob", "preferred_username": "bob", "name": "Bob"}
    )
    claims: dict[str, Any] = field(default_factory=dict)  # of the id_token, over what is right; None leaves one out
    userinfo: dict[str, Any] = field(default_factory=dict)
    published: RSAKey = field(default_factory=_key)
    signs_with: RSAKey = field(default_factory=_key)
    algorithm: str = "RS256"
    description: dict[str, Any] = field(default_factory=dict)
    fault: str = ""  # "500", "nonsense" or "error", answered by `faulty`
    faulty: str = ""  # the beginning of a path
    asks: bool = False  # show a page with a button, as a person would see it, instead of agreeing at once
    codes: dict[str, dict[str, str]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)  # paths, in order

    @property
    def issuer(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def described(self) -> dict[str, Any]:
        ends = {name: f"{self.issuer}/{path}" for name, path in _ENDPOINTS.items()}
        algorithms = {"id_token_signing_alg_values_supported": ["RS256", "HS256", "none"]}
        return {"issuer": self.issuer, **ends, **algorithms, **self.description}

    def agree(self, query: dict[str, str]) -> str:
        """Where the browser is sent after signing in."""
        code = secrets.token_urlsafe(8)
        self.codes[code] = query
        return f"{query['redirect_uri']}?{urlencode({'code': code, 'state': query['state']})}"

    def logout_token(self, *, header: dict[str, Any] | None = None, **changes: Any) -> str:
        """What this provider sends when somebody signs out here; `changes` are its claims, None leaves one out."""
        now = int(time.time())
        claims = {"iss": self.issuer, "aud": CLIENT, "iat": now, "exp": now + 120, "jti": secrets.token_hex(8)}
        claims |= {"sub": self.person["sub"], "events": {LOGOUT_EVENT: {}}} | changes
        head = {"alg": self.algorithm, "kid": self.signs_with.kid, "typ": "logout+jwt"} | (header or {})
        claims = {name: value for name, value in claims.items() if value is not None}
        return jwt.encode(head, claims, self.signs_with, algorithms=[self.algorithm])

    def exchange(self, form: dict[str, str], authorization: str) -> tuple[int, dict[str, Any]]:
        """Answer the token endpoint: the code counts once, for who asked for it (RFC 7636, section 4.6)."""
        asked = self.codes.pop(form.get("code", ""), None)
        digest = hashlib.sha256(form.get("code_verifier", "").encode()).digest()
        challenge = base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
        known = "Basic " + base64.b64encode(f"{CLIENT}:{SECRET}".encode()).decode()
        if asked is None or asked["code_challenge"] != challenge or authorization != known:
            return 400, {"error": "invalid_grant"}
        now = int(time.time())
        claims = {"iss": self.issuer, "aud": CLIENT, "iat": now, "exp": now + 60, "nonce": asked["nonce"]}
        claims = {name: value for name, value in {**claims, **self.person, **self.claims}.items() if value is not None}
        header = {"alg": self.algorithm, "kid": self.signs_with.kid}
        token = jwt.encode(header, claims, self.signs_with, algorithms=[self.algorithm])
        return 200, {"access_token": "opens userinfo", "token_type": "Bearer", "expires_in": 60, "id_token": token}


_ENDPOINTS = {
    "authorization_endpoint": "authorize",
    "token_endpoint": "token",
    "jwks_uri": "keys",
    "userinfo_endpoint": "userinfo",
    "end_session_endpoint": "leave",
}


@contextmanager
def provider() -> Iterator[OpenId]:
    """Serve one until the end of the block."""
    openid = OpenId()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._answer({})

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
            self._answer(_flat(body))

        def _answer(self, form: dict[str, str]) -> None:
            path, query = urlsplit(self.path).path, _flat(urlsplit(self.path).query)
            openid.asked.append(path)
            if openid.fault and path.startswith(openid.faulty):
                self._send(*_FAULTS[openid.fault])
            elif path == "/authorize" and openid.asks:
                self._send(200, f'<title>Sign in</title><a href="{openid.agree(query)}">I am Bob</a>', "text/html")
            elif path == "/authorize":
                self.send_response(302)
                self.send_header("Location", openid.agree(query))
                self.end_headers()
            elif path == "/token":
                status, said = openid.exchange(form, self.headers.get("Authorization", ""))
                self._send(status, json.dumps(said))
            elif path == "/leave":
                self._send(200, "<title>Left</title>You have left.", "text/html")
            else:
                said = {
                    "/.well-known/openid-configuration": openid.described(),
                    "/keys": {"keys": [openid.published.as_dict(private=False)]},
                    "/userinfo": {**openid.person, **openid.userinfo},
                }.get(path, {})
                self._send(200, json.dumps(said))

        def _send(self, status: int, body: str, kind: str = "application/json") -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body.encode())))
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    openid.port = server.server_port
    # by default it would notice its end only after half a second
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield openid
    server.shutdown()
    server.server_close()
    thread.join()


_FAULTS = {
    "500": (500, "no"),
    "nonsense": (200, "[<html>"),
    "list": (200, "[]"),
    "error": (400, '{"error": "server_error"}'),
}


def _flat(text: str) -> dict[str, str]:
    return {name: values[0] for name, values in parse_qs(text).items()}
