"""Audit of reverse proxies: through each, a stream is delivered at once and survives idle time."""

import subprocess
import time
from pathlib import Path

from tests.support.external_audits.audits import AuditResult, AuditUnavailable, find_program, register_audit
from tests.support.ports import find_free_port, is_listening
from tests.support.stream_client import StreamClient
from tests.support.system import System, wait_for

_IDLE_SECONDS = 12  # how long a proxied stream must survive without a message
_PROXIES = {
    "nginx": (
        ["nginx", "-p", "{folder}", "-c", "{conf}", "-e", "stderr"],
        """daemon off; pid nginx.pid; error_log stderr; events {{}}
        http {{ access_log off; client_body_temp_path b; proxy_temp_path p;
        fastcgi_temp_path f; uwsgi_temp_path u; scgi_temp_path s;
        server {{ listen 127.0.0.1:{port}; location / {{ proxy_pass http://127.0.0.1:{target}; proxy_buffering on;
        proxy_read_timeout 8s; proxy_http_version 1.1; }} }} }}""",
    ),
    "haproxy": (
        ["haproxy", "-db", "-f", "{conf}"],
        "defaults\n mode http\n timeout connect 5s\n timeout client 8s\n timeout server 8s\n option http-buffer-request\n"
        "frontend f\n bind 127.0.0.1:{port}\n default_backend b\nbackend b\n server s 127.0.0.1:{target}\n",
    ),
    "caddy": (
        ["caddy", "run", "--adapter", "caddyfile", "--config", "{conf}"],
        "{{\n admin off\n auto_https off\n}}\nhttp://127.0.0.1:{port} {{\n reverse_proxy 127.0.0.1:{target}\n}}\n",
    ),
}


@register_audit("proxies")
def check_proxies(system: System, folder: Path) -> AuditResult:
    """Behind nginx (buffering on), haproxy and caddy; idle timeouts 8 s, heartbeats 5 s: first byte, and still open."""
    lines, has_passed = [], True
    (folder / "proxied").mkdir()
    with System(folder / "proxied", HEARTBEAT_SECONDS="5") as target_system:
        for name, (command, config_template) in _PROXIES.items():
            try:
                first_seconds, is_open = _stream_through_proxy(name, command, config_template, target_system, folder)
            except AuditUnavailable:
                lines.append(f"{name} not here")
                continue
            has_passed &= is_open
            lines.append(
                f"{name}: CONNECTED after {1000 * first_seconds:.0f} ms, {'open' if is_open else 'cut'} for {_IDLE_SECONDS} s"
            )
            print(lines[-1])
    return AuditResult(has_passed, "; ".join(lines))


def _stream_through_proxy(
    name: str, command: list[str], config_template: str, system: System, folder: Path
) -> tuple[float, bool]:
    """Return the seconds until CONNECTED, and whether the stream survives `_IDLE_SECONDS` without a message."""
    find_program(command[0])
    port, conf = find_free_port(), folder / f"{name}.conf"
    conf.write_text(config_template.format(port=port, target=system.port))
    filled_command = [word.format(folder=folder, conf=conf) for word in command]
    process = subprocess.Popen(filled_command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_for(lambda: is_listening(port), seconds=15, description=f"{name} to listen")
        started_at = time.monotonic()
        stream = StreamClient(
            f"http://127.0.0.1:{port}", headers={"Authorization": f"Bearer {system.get_token('bob')}"}
        )
        first_seconds = stream.wait_for("CONNECTED", seconds=20).received_at - started_at
        time.sleep(_IDLE_SECONDS)
        is_open = len(stream.response_headers) == 1
        stream.close()
        return first_seconds, is_open
    finally:
        process.terminate()
        process.wait(20)
