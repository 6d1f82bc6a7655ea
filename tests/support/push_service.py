"""A push service and its browsers, as a process of its own: TLS with an own authority, subscriptions, and what arrives.

It checks each message as a push service does, and decrypts it as a browser does: with other packages than the product.
A request for `/-/…` is the test's: to subscribe a browser, to have an answer, or to read what came.
"""

import base64
import datetime
import json
import secrets
import ssl
import subprocess
import sys
import time
from http.client import HTTPSConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import http_ece
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from joserfc import jwt
from joserfc.jwk import ECKey

from broadcast.domain.push_subscription import PushEndpoint

HOST = "push.test"
_MAX_TOKEN_SECONDS = 24 * 3600  # RFC 8292, 2


def encode(value: bytes) -> str:
    return base64.urlsafe_b64encode(value).rstrip(b"=").decode()


def decode(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


class PushService:
    """Starts the process. `folder` gets `authority.pem`, which clients must trust, and the certificate for HOST."""

    def __init__(self, folder: Path):
        self.authority_path = folder / "authority.pem"
        _write_certificates(folder)
        command = [sys.executable, "-m", "tests.support.push_service", str(folder)]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        self.port = int(self._process.stdout.readline())
        self.origin = f"https://{HOST}:{self.port}"
        self._context = ssl.create_default_context(cafile=self.authority_path)
        self._context.check_hostname = False  # the test's own requests go to the address

    def __enter__(self) -> "PushService":
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        self._process.stdout.close()

    def subscribe(self, public_key: str) -> PushEndpoint:
        """A new browser subscribes with this application server key."""
        made = self._ask("subscribe", publicKey=public_key)
        return PushEndpoint(self.origin + made["path"], made["p256dh"], made["auth"])

    def answer(self, endpoint: PushEndpoint, *statuses: int, **headers: str) -> None:
        """Answer the next messages to this browser with these statuses, each with these headers."""
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        self._ask("answer", path=endpoint.url.removeprefix(self.origin), statuses=statuses, headers=names)

    @property
    def messages(self) -> list[dict[str, Any]]:
        """What was accepted, in order: path, content, and headers."""
        return self._ask("messages")["messages"]

    @property
    def requests(self) -> list[list[Any]]:
        """The path and the answered status of each request."""
        return self._ask("messages")["requests"]

    def _ask(self, action: str, **values: Any) -> Any:
        connection = HTTPSConnection("127.0.0.1", self.port, context=self._context, timeout=10)
        connection.request("POST", f"/-/{action}", json.dumps(values))
        answer = json.loads(connection.getresponse().read())
        connection.close()
        return answer


class _Handler(BaseHTTPRequestHandler):
    protocol_version, disable_nagle_algorithm = "HTTP/1.1", True
    browsers: dict[str, tuple[ec.EllipticCurvePrivateKey, bytes, str]] = {}  # by path: key, secret, its server's key
    answers: dict[str, tuple[list[int], dict[str, str]]] = {}
    messages: list[dict[str, Any]] = []
    requests: list[tuple[str, int]] = []

    def do_POST(self) -> None:  # noqa: N802 - http.server's name
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.path.startswith("/-/"):
            values = json.loads(body)
            answer = {"subscribe": self._subscribe, "answer": self._set_answer, "messages": self._list_messages}
            return self._respond(200, {}, json.dumps(answer[self.path[3:]](values)).encode())
        statuses, headers = self.answers.get(self.path, ([], {}))
        status = statuses.pop(0) if statuses else self._receive(body)
        self.requests.append((self.path, status))
        return self._respond(status, headers, b"" if status == 201 else b"No: \r\n\0 sorry")

    def _respond(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def _subscribe(self, values: dict[str, Any]) -> dict[str, str]:
        key, auth, path = ec.generate_private_key(ec.SECP256R1()), secrets.token_bytes(16), f"/{secrets.token_hex(20)}"
        self.browsers[path] = key, auth, values["publicKey"]
        point = key.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
        return {"path": path, "p256dh": encode(point), "auth": encode(auth)}

    def _set_answer(self, values: dict[str, Any]) -> dict[str, str]:
        self.answers[values["path"]] = values["statuses"], values["headers"]
        return {}

    def _list_messages(self, _: dict[str, Any]) -> dict[str, Any]:
        return {"messages": self.messages, "requests": self.requests}

    def _receive(self, body: bytes) -> int:
        """Check as a push service, decrypt as the browser; the status."""
        if self.path.partition("?")[0] not in self.browsers:
            return 404
        key, auth, server_key = self.browsers[self.path.partition("?")[0]]
        if len(body) > 4096:
            return 413
        if self.headers["Content-Encoding"] != "aes128gcm" or not self.headers["TTL"].isdigit():
            return 400
        if not _is_authorized(self.headers["Authorization"], server_key, f"https://{self.headers['Host']}"):
            return 403
        content = http_ece.decrypt(body, private_key=key, auth_secret=auth, version="aes128gcm")
        names = ("TTL", "Urgency", "Topic")
        headers = {name: self.headers[name] for name in names}
        self.messages.append({"path": self.path, "content": json.loads(content), **headers})
        return 201

    def log_message(self, *_: object) -> None:
        pass


def _is_authorized(header: str, server_key: str, origin: str) -> bool:
    scheme, _, parameters = header.partition(" ")
    named = dict(part.strip().split("=", 1) for part in parameters.split(","))
    if scheme != "vapid" or named["k"] != server_key:
        return False
    point = decode(server_key)
    key = ECKey.import_key({"kty": "EC", "crv": "P-256", "x": encode(point[1:33]), "y": encode(point[33:])})
    claims = jwt.decode(named["t"], key, algorithms=["ES256"]).claims
    is_current = 0 < claims["exp"] - time.time() <= _MAX_TOKEN_SECONDS
    return is_current and claims["aud"] == origin and claims["sub"].startswith(("mailto:", "https:"))


def _write_certificates(folder: Path) -> None:
    authority_key, key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    authority = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "Test authority")])
    is_authority = x509.BasicConstraints(ca=True, path_length=0)
    root = _build_certificate(authority, authority_key.public_key(), authority, is_authority).sign(
        authority_key, hashes.SHA256()
    )
    host = x509.SubjectAlternativeName([x509.DNSName(HOST)])
    own = _build_certificate(x509.Name([]), key.public_key(), authority, host).sign(authority_key, hashes.SHA256())
    private = key.private_bytes(Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (folder / "authority.pem").write_bytes(root.public_bytes(Encoding.PEM))
    (folder / "server.pem").write_bytes(private + own.public_bytes(Encoding.PEM))


def _build_certificate(
    subject: x509.Name, key: ec.EllipticCurvePublicKey, issuer: x509.Name, extension: x509.ExtensionType
) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    until = now + datetime.timedelta(days=1)
    builder = x509.CertificateBuilder(issuer, subject, key, x509.random_serial_number(), now, until)
    return builder.add_extension(extension, critical=True)


class _Server(ThreadingHTTPServer):
    request_queue_size = 128


def _serve(folder: Path) -> None:
    server = _Server(("127.0.0.1", 0), _Handler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "server.pem")
    server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    print(server.server_port, flush=True)
    server.serve_forever()


if __name__ == "__main__":
    _serve(Path(sys.argv[1]))
