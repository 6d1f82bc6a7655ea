"""`python -m broadcast.launcher`: from a fresh clone to a serving system.

1. Check the settings.           5. Start Redis, unless REDIS_URL is set.
2. Lock the data folder.         6. Migrate the database; fill it with demo data if DEMO=1.
3. Check that the port is free.  7. Start gunicorn and wait for /readyz.
4. Create the secret key.        8. Print `Ready: …`, and the setup code if there is no administrator; then watch
                                    until someone asks to stop or a child ends.

On every exit gunicorn is stopped first, then Redis.
"""

import argparse
import http.client
import os
import re
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from broadcast.base import private_files
from broadcast.launcher import preflight
from broadcast.launcher.children import ROOT, ChildProcesses, LaunchFailed, StopRequested, StopSignals, die_with_parent
from broadcast.launcher.redis_server import choose_socket_path, find_server, start_redis

if TYPE_CHECKING:
    from broadcast.config.settings import Settings

_READY_TIMEOUT_SECONDS = 60.0
_FLASK_COMMAND = [sys.executable, "-m", "flask", "--app", "app"]
_SETUP_CODE = re.compile(r"[0-9a-f]{4}(-[0-9a-f]{4}){4}")
_GUNICORN_GRACE_SECONDS = 15.0  # its own graceful_timeout is 10; then it kills its workers and needs a moment to exit
_LOOPBACK_OF_WILDCARD = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}  # what to query if it listens on all


def main() -> int:
    """Launch or probe, and return the exit code: 0 when asked to stop, 1 on failure."""
    signals = StopSignals.install()
    parser = argparse.ArgumentParser(
        prog="broadcast.launcher", description="Start all processes and stop them together."
    )
    parser.add_argument(
        "--end-with-parent",
        action="store_true",
        help="stop when the process that started this one is gone (`make run` does: killing make ends the system)",
    )
    parser.add_argument(
        "--probe", action="store_true", help="start nothing; exit with 0 if the system on HOST and PORT is ready"
    )
    options = parser.parse_args()
    if options.probe:
        return 0 if _is_ready(os.environ.get("HOST") or "127.0.0.1", int(os.environ.get("PORT") or 8000)) else 1
    if options.end_with_parent:
        die_with_parent(os.getppid())
    try:
        launch(os.environ, signals)
    except StopRequested:
        print_line("Stopped.")
        return 0
    except LaunchFailed as failure:
        print(failure, file=sys.stderr, flush=True)
        return 1


def launch(environ: Mapping[str, str], signals: StopSignals) -> None:
    """Do the steps above. Never returns: raises StopRequested or LaunchFailed, with every child stopped."""
    settings = _read_settings(environ)
    with preflight.lock_data_dir(settings.data_dir) as folder:
        private_files.restrict_permissions(folder, settings.database_path)  # here and in every child
        preflight.check_port_is_free(settings.host, settings.port)
        if settings.secret_key is None:
            preflight.ensure_secret_key(folder)
        child_environ = {**environ, "DATA_DIR": str(folder)}
        with choose_socket_path(folder) as redis_socket, ChildProcesses(signals, child_environ) as children:
            if settings.redis_url is None:
                _start_private_redis(redis_socket, folder, children)
            _prepare_database(settings, children)
            address = _start_gunicorn(settings, children)
            if not settings.demo and not preflight.has_administrator(settings.database_uri):
                _print_setup_code(address, children)
            children.watch()


def print_line(line: str) -> None:
    """Print a line for users and for programs that wait for it; a closed pipe (`| head`) stops nothing."""
    try:
        print(line, flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _read_settings(environ: Mapping[str, str]) -> "Settings":
    from broadcast.config.settings import Settings, SettingsError  # late: takes 0.2 s, and Ctrl-C is handled by now

    try:
        settings = Settings.load(environ)
    except SettingsError as problem:
        raise LaunchFailed(str(problem)) from None
    for sentence in settings.misspelling_warnings:
        print_line(sentence)
    return settings


def _start_private_redis(redis_socket: Path, folder: Path, children: ChildProcesses) -> None:
    server = find_server()
    if server is None:
        print_line("Redis was not found, so messages take up to a second. Install redis-server, or set REDIS_URL.")
        return
    children.environ["REDIS_URL"] = start_redis(server, redis_socket, folder, children=children)
    print_line(f"Redis: {server} on {redis_socket}")


def _prepare_database(settings: "Settings", children: ChildProcesses) -> None:
    if not preflight.is_migrated(settings.database_uri):
        with _show_output_on_failure() as output:
            children.run("Bringing the database up to date", [*_FLASK_COMMAND, "db", "upgrade"], output=output)
    if settings.demo:
        children.run("Creating the demo data", [*_FLASK_COMMAND, "seed-demo"])


@contextmanager
def _show_output_on_failure() -> Iterator[tempfile.SpooledTemporaryFile]:
    """Yield a file for a step's output, which is copied to stderr only if the step fails."""
    with tempfile.TemporaryFile() as output:
        try:
            yield output
        except LaunchFailed:
            output.seek(0)
            sys.stderr.write(output.read().decode(errors="replace"))
            raise


def _start_gunicorn(settings: "Settings", children: ChildProcesses) -> str:
    command = [sys.executable, "-m", "gunicorn", "-c", ROOT / "gunicorn.conf.py", "wsgi:app"]
    children.start("gunicorn", command, grace_seconds=_GUNICORN_GRACE_SECONDS)
    if not children.wait_until(lambda: _is_ready(settings.host, settings.port), seconds=_READY_TIMEOUT_SECONDS):
        raise LaunchFailed(
            f"The system was not ready within {_READY_TIMEOUT_SECONDS:.0f} seconds. The messages above say why."
        )
    host = _LOOPBACK_OF_WILDCARD.get(settings.host, settings.host)
    address = f"http://{f'[{host}]' if ':' in host else host}:{settings.port}"
    print_line(f"Ready: {address}")
    return address


def _print_setup_code(address: str, children: ChildProcesses) -> None:
    """Print the setup code for the first administrator while there is none; only its hash is stored."""
    with _show_output_on_failure() as output:
        children.run("Creating the setup code", [*_FLASK_COMMAND, "setup-code", "--if-needed"], output=output)
        output.seek(0)
        if match := _SETUP_CODE.search(output.read().decode(errors="replace")):
            print_line(f"First run: there is no administrator yet. Open {address}/setup and enter the code {match[0]}")


def _is_ready(host: str, port: int) -> bool:
    """Whether /readyz answers 200 within two seconds. Not urllib, which would use a configured proxy."""
    connection = http.client.HTTPConnection(_LOOPBACK_OF_WILDCARD.get(host, host), port, timeout=2)
    try:
        connection.request("GET", "/readyz")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


if __name__ == "__main__":
    sys.exit(main())
