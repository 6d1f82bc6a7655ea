"""A small OpenID provider on loopback with real keys; tests change its answers to what a hostile one would send."""

import base64
import hashlib
import json
import secrets
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

from tests.support.background import serve_in_thread

LOGOUT_EVENT = "http://schemas.openid.net/event/backchannel-logout"
CLIENT_ID, CLIENT_SECRET = "broadcast", "the secret of the client"


def generate_key() -> RSAKey:
    return RSAKey.generate_key(2048, parameters={"kid": secrets.token_hex(4), "use": "sig", "alg": "RS256"})


@cache
def _shared_key() -> RSAKey:
    return generate_key()  # generating a key is slow; all providers of a run share it


@dataclass
class OidcProvider:
    """`user_claims` are those of the user who signs in. The rest is what it answers, and may be changed at any time."""

    port: int = 0
    user_claims: dict[str, Any] = field(
        default_factory=lambda: {"sub": "42-bob", "preferred_username": "bob", "name": "Bob"}
    )
    id_token_overrides: dict[str, Any] = field(
        default_factory=dict
    )  # claims that replace the right ones in the id_token; None removes one
    userinfo_overrides: dict[str, Any] = field(default_factory=dict)
    published_key: RSAKey = field(default_factory=_shared_key)
    signing_key: RSAKey = field(default_factory=_shared_key)
    algorithm: str = "RS256"
    discovery_overrides: dict[str, Any] = field(default_factory=dict)
    fault: str = ""  # "500", "nonsense" or "error", answered by `faulty_path`
    faulty_path: str = ""  # a path prefix
    has_consent_page: bool = False  # show a page with a button instead of consenting at once
    codes: dict[str, dict[str, str]] = field(default_factory=dict)
    requested_paths: list[str] = field(default_factory=list)  # paths, in order

    @property
    def issuer(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def build_discovery_document(self) -> dict[str, Any]:
        endpoints = {name: f"{self.issuer}/{path}" for name, path in _ENDPOINTS.items()}
        algorithms = {"id_token_signing_alg_values_supported": ["RS256", "HS256", "none"]}
        return {"issuer": self.issuer, **endpoints, **algorithms, **self.discovery_overrides}

    def authorize(self, query: dict[str, str]) -> str:
        """Return the URL that the browser is redirected to after signing in."""
        code = secrets.token_urlsafe(8)
        self.codes[code] = query
        return f"{query['redirect_uri']}?{urlencode({'code': code, 'state': query['state']})}"

    def build_logout_token(self, *, header: dict[str, Any] | None = None, **changes: Any) -> str:
        """Return the token this provider sends when its user signs out; `changes` replace claims, None removes one."""
        now = int(time.time())
        claims = {"iss": self.issuer, "aud": CLIENT_ID, "iat": now, "exp": now + 120, "jti": secrets.token_hex(8)}
        claims |= {"sub": self.user_claims["sub"], "events": {LOGOUT_EVENT: {}}} | changes
        jwt_header = {"alg": self.algorithm, "kid": self.signing_key.kid, "typ": "logout+jwt"} | (header or {})
        claims = {name: value for name, value in claims.items() if value is not None}
        return jwt.encode(jwt_header, claims, self.signing_key, algorithms=[self.algorithm])

    def exchange_code(self, form: dict[str, str], authorization: str) -> tuple[int, dict[str, Any]]:
        """Answer the token endpoint: a code is valid once, and only for its requester (RFC 7636, section 4.6)."""
        authorization_request = self.codes.pop(form.get("code", ""), None)
        digest = hashlib.sha256(form.get("code_verifier", "").encode()).digest()
        challenge = base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
        expected_authorization = "Basic " + base64.b64encode(f"{CLIENT_ID}:{CLIENT_SECRET}".encode()).decode()
        if (
            authorization_request is None
            or authorization_request["code_challenge"] != challenge
            or authorization != expected_authorization
        ):
            return 400, {"error": "invalid_grant"}
        now = int(time.time())
        claims = {
            "iss": self.issuer,
            "aud": CLIENT_ID,
            "iat": now,
            "exp": now + 60,
            "nonce": authorization_request["nonce"],
        }
        claims = {
            name: value
            for name, value in {**claims, **self.user_claims, **self.id_token_overrides}.items()
            if value is not None
        }
        header = {"alg": self.algorithm, "kid": self.signing_key.kid}
        token = jwt.encode(header, claims, self.signing_key, algorithms=[self.algorithm])
        return 200, {"access_token": "opens userinfo", "token_type": "Bearer", "expires_in": 60, "id_token": token}


_ENDPOINTS = {
    "authorization_endpoint": "authorize",
    "token_endpoint": "token",
    "jwks_uri": "keys",
    "userinfo_endpoint": "userinfo",
    "end_session_endpoint": "leave",
}


@contextmanager
def serve_oidc_provider() -> Iterator[OidcProvider]:
    """Run a provider until the end of the block."""
    oidc = OidcProvider()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._handle({})

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
            self._handle(_parse_query(body))

        def _handle(self, form: dict[str, str]) -> None:
            path, query = urlsplit(self.path).path, _parse_query(urlsplit(self.path).query)
            oidc.requested_paths.append(path)
            if oidc.fault and path.startswith(oidc.faulty_path):
                self._send_response(*_FAULTS[oidc.fault])
            elif path == "/authorize" and oidc.has_consent_page:
                self._send_response(
                    200, f'<title>Sign in</title><a href="{oidc.authorize(query)}">I am Bob</a>', "text/html"
                )
            elif path == "/authorize":
                self.send_response(302)
                self.send_header("Location", oidc.authorize(query))
                self.end_headers()
            elif path == "/token":
                status, payload = oidc.exchange_code(form, self.headers.get("Authorization", ""))
                self._send_response(status, json.dumps(payload))
            elif path == "/leave":
                self._send_response(200, "<title>Left</title>You have left.", "text/html")
            else:
                payload = {
                    "/.well-known/openid-configuration": oidc.build_discovery_document(),
                    "/keys": {"keys": [oidc.published_key.as_dict(private=False)]},
                    "/userinfo": {**oidc.user_claims, **oidc.userinfo_overrides},
                }.get(path, {})
                self._send_response(200, json.dumps(payload))

        def _send_response(self, status: int, body: str, content_type: str = "application/json") -> None:
            self.send_response(status)
            self.send_header("Content-Type", content_type)
            self.send_header("Content-Length", str(len(body.encode())))
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    oidc.port = server.server_port
    with serve_in_thread(server):
        yield oidc


_FAULTS = {
    "500": (500, "no"),
    "nonsense": (200, "[<html>"),
    "list": (200, "[]"),
    "error": (400, '{"error": "server_error"}'),
}


def _parse_query(text: str) -> dict[str, str]:
    return {name: values[0] for name, values in parse_qs(text).items()}
