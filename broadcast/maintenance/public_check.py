"""Checks the public URL: does the system answer through its proxy, and does a stream arrive in time?"""

import http.client
import socket
import ssl
import time
from urllib.parse import urlsplit

from broadcast.maintenance.doctor import Finding, FindingState

_TIMEOUT_SECONDS = 5.0
_MAX_FIRST_EVENT_SECONDS = 2.0  # CONNECTED comes first on a stream; a proxy that delays it buffers everything


def check_public_url(url: str, *, token: str | None) -> list[Finding]:
    """Request /healthz at `url`, and with a token open a stream. Changes nothing."""
    try:
        status, _ = _fetch(url, "/healthz", {})
    except (OSError, http.client.HTTPException, ValueError) as problem:
        return [Finding("proxy", "failure", f"{url} cannot be reached: {_describe_error(problem)}.")]
    if status != 200:
        sentence = f"{url}/healthz answers {status} instead of 200. Check the proxy and the nodes."
        return [Finding("proxy", "failure", sentence)]
    findings = [Finding("proxy", "ok", f"{url} answers.")]
    return [*findings, Finding("stream", *_check_stream(url, token))] if token else findings


def _check_stream(url: str, token: str) -> tuple[FindingState, str]:
    started_at = time.monotonic()
    try:
        status, body = _fetch(url, "/api/sse/connect", {"Authorization": f"Bearer {token}"}, until=b"event: CONNECTED")
    except TimeoutError:
        advice = "the proxy buffers the stream. Turn its buffering off."
        return "failure", f"Nothing came through in {_TIMEOUT_SECONDS:.0f} s: {advice}"
    except (OSError, http.client.HTTPException, ValueError) as problem:
        return "failure", f"The stream broke off: {_describe_error(problem)}."
    elapsed_seconds = time.monotonic() - started_at
    if status == 401:
        return "failure", "The token is not valid. Create one with `flask --app app create-token`."
    if status == 403:
        return "failure", "The token may not open streams. Create one with the scope inbox."
    if status != 200 or b"event: CONNECTED" not in body:
        return "failure", f"No stream was opened (status {status}). The log of the node says why."
    if elapsed_seconds > _MAX_FIRST_EVENT_SECONDS:
        return "warning", f"The first event took {elapsed_seconds:.1f} s. Check the proxy for buffering."
    return "ok", f"The first event came through after {elapsed_seconds:.2f} s."


def _describe_error(problem: Exception) -> str:
    """A connection error, as the end of a sentence."""
    match problem:
        case ssl.SSLCertVerificationError():
            return f"its certificate is not trusted ({problem.verify_message})"
        case ssl.SSLError():
            return "the server there does not speak TLS"
        case TimeoutError():
            return f"nothing answers within {_TIMEOUT_SECONDS:.0f} s"
        case ConnectionRefusedError():
            return "nothing listens there"
        case socket.gaierror():
            return "its host name is not known"
        case http.client.RemoteDisconnected() | http.client.IncompleteRead() | ConnectionError():
            return "the connection was closed"
        case http.client.HTTPException():
            return "the server there does not speak HTTP"
        case ValueError():
            return "the address or the token cannot be read"
    return (problem.strerror if isinstance(problem, OSError) else None) or "the connection failed"


def _fetch(url: str, path: str, headers: dict[str, str], *, until: bytes = b"") -> tuple[int, bytes]:
    """Status and body, read until it contains `until`. Verifies the certificate."""
    url_parts = urlsplit(url)
    make_connection = http.client.HTTPSConnection if url_parts.scheme == "https" else http.client.HTTPConnection
    connection = make_connection(url_parts.netloc, timeout=_TIMEOUT_SECONDS)
    try:
        connection.request("GET", url_parts.path.rstrip("/") + path, headers=headers)
        response = connection.getresponse()
        body = b""
        while data := response.read1(4096):
            body += data
            if until and until in body:
                break
        return response.status, body
    finally:
        connection.close()
