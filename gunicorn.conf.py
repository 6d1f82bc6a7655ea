"""gunicorn's settings, all from the environment (`docs/settings.md`); the launcher and production use this same file.

This file runs in the master, before the workers patch the standard library for gevent. Whatever is imported here keeps what it
has of that library unpatched in every worker. So nothing here imports the application, Redis, ssl or psycopg; hooks do, late.
"""

import gc
import importlib
import os
import resource
import shutil
import signal
import socket
import stat
import tempfile
import zlib
from contextlib import suppress
from pathlib import Path

from broadcast.worker import readiness


def _read_setting(name: str, default: str) -> str:
    return os.environ.get(name) or default  # an empty variable means the default, as in `broadcast.config.settings`


def _read_int_setting(name: str, default: str) -> int:
    value = _read_setting(name, default).strip()
    if not (value.isascii() and value.isdigit()):
        raise SystemExit(f"{name}: {value!r} is no whole number. See docs/settings.md.")
    return int(value)


# A third of what a worker imports has nothing that gevent patches (`tests/integration/worker/test_gunicorn_master.py`
# looks). Loaded here once, it is there
# when a worker begins, and in memory once for all of them.
for _name in ("alembic.migration", "alembic.script", "markdown_it", "nh3", "pydantic_settings", "sqlalchemy.orm"):
    importlib.import_module(_name)
for _name in ("sqlite", "postgresql"):
    importlib.import_module(f"sqlalchemy.dialects.{_name}")

_STREAMS_PER_WORKER = _read_int_setting("STREAMS_PER_WORKER", "12000")
_CONNECTION_HEADROOM = (
    1000  # ordinary requests beside the streams; when the pool is full, /healthz waits in the backlog
)
_SEND_BUFFER_BYTES = 32 * 1024  # per connection: a client that never reads pinned 1 MB of kernel memory, now 45 kB
_TCP_USER_TIMEOUT_MS = 20_000  # then a half-open client is gone; TCP alone still had it after 140 s


def _find_metrics_folder() -> Path:
    """In memory, where the machine has it: these files are mapped, and on a full disk the first touch of a new page ends
    the worker (SIGBUS). In /dev/shm everybody may make a folder of any name, so only one that is ours alone will do.
    """
    data_dir = Path(_read_setting("DATA_DIR", "var")).absolute()
    folder = Path("/dev/shm", f"broadcast-{os.getuid()}-{zlib.crc32(bytes(data_dir)):08x}")
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        status = folder.lstat()
    except OSError:
        return data_dir / "metrics"
    is_private = status.st_uid == os.getuid() and stat.filemode(status.st_mode) == "drwx------"
    return folder if is_private else data_dir / "metrics"


_METRICS_FOLDER = _find_metrics_folder()
_METRICS_DISK_FOLDER = Path(_read_setting("DATA_DIR", "var")).absolute() / "metrics"
_METRICS_BYTES_PER_WORKER = (
    8 * 1024 * 1024
)  # of one worker: the files that prometheus_client makes of a mebibyte each, with room

_host = _read_setting("HOST", "127.0.0.1")
bind = f"{f'[{_host}]' if ':' in _host else _host}:{_read_int_setting('PORT', '8000')}"
workers = _read_int_setting("WEB_CONCURRENCY", "2")
worker_class = "gevent"
worker_connections = _STREAMS_PER_WORKER + _CONNECTION_HEADROOM
preload_app = False  # the application would be loaded before patching
timeout = 60  # seconds without a heartbeat of the worker, not of a request: a stream outlives it, a stuck worker not
graceful_timeout = 10  # the streams are told and closed within this; see `broadcast.worker.runtime.stop_worker`
keepalive = 75  # longer than a proxy's (nginx: 60), which must be the one to close an idle connection
max_requests = _read_int_setting("MAX_REQUESTS", "0")
max_requests_jitter = max_requests // 10  # not all workers at once
limit_request_line = 8190  # bytes: the reason of a recall stands there, 500 characters of up to 12 each
control_socket_disable = True  # it would be made in the home folder, one path for every gunicorn of this user
if os.access("/dev/shm", os.W_OK):
    worker_tmp_dir = "/dev/shm"  # the heartbeat file: on a disk, a slow fsync of others can get a worker killed
umask = 0o077  # of this process and its workers too, as below
# Whom a request is for, where it was asked for and who asks: the application decides that (TRUSTED_PROXY_HOPS,
# PROXY_SIGN_IN_FROM).
# By itself gunicorn believes these headers from 127.0.0.1, where a proxy passes on what anybody sends, and from unix sockets.
forwarded_allow_ips = ""
forwarder_headers = ""  # SCRIPT_NAME, PATH_INFO
secure_scheme_headers = {}  # X-Forwarded-Proto and its like; two that differ were answered with 400
header_map = "drop"  # X_Forwarded_For is not X-Forwarded-For
proxy_protocol = "off"
loglevel = _read_setting("LOG_LEVEL", "info")
accesslog = "-" if _read_setting("ACCESS_LOG", "0") not in ("0", "false", "no", "off") else None

os.umask(umask)
os.environ.pop("SCRIPT_NAME", None)  # gunicorn would take it for the beginning of every path
os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(_METRICS_FOLDER)  # prometheus_client reads it when a worker imports it


def _raise_open_files_limit() -> int:
    """Lift the soft limit on open files (often 1024) to the hard one, which workers inherit; return what holds now."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    except (ValueError, OSError):  # macOS says "unlimited" and accepts less
        return soft
    return hard


_OPEN_FILES_LIMIT = _raise_open_files_limit()


def on_starting(server):
    """Start with empty metrics: files of dead workers would be counted again. Not on USR2: the old master lives."""
    _METRICS_FOLDER.mkdir(mode=0o700, parents=True, exist_ok=True)
    if server.master_pid == 0:
        for file in _METRICS_FOLDER.iterdir():
            file.unlink()
    if 0 <= _OPEN_FILES_LIMIT < worker_connections:
        server.log.warning(
            "A worker may open %d files but hold %d streams: raise the limit (ulimit -n) or lower STREAMS_PER_WORKER.",
            _OPEN_FILES_LIMIT,
            _STREAMS_PER_WORKER,
        )


def when_ready(server):
    """Set on the listening sockets what every accepted connection inherits, and open them only when a worker serves."""
    for listener in server.LISTENERS:
        if listener.sock.family == socket.AF_UNIX:
            continue
        listener.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER_BYTES)
        if hasattr(socket, "TCP_USER_TIMEOUT"):
            listener.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _TCP_USER_TIMEOUT_MS)
    readiness.close_until_ready(server)
    original_stop = server.stop

    def stop_at_once(graceful=True):
        readiness.mark_stopping(server)
        original_stop(graceful)

    server.stop = stop_at_once  # there is no hook before the workers are told


def on_reload(server):
    """The workers that are forked from here on follow those that are there."""
    readiness.start_generation(server)


def post_fork(server, worker):
    """Let SIGTERM end a worker that is still starting. Until it has its own handlers it has the master's, which would
    note the signal in a queue that nobody reads here, and the stop would then take all of `graceful_timeout`.
    """
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    readiness.join_generation()
    _choose_metrics_folder(worker.log)
    gc.disable()  # nothing of what is loaded now becomes garbage; `broadcast.worker.runtime.settle` turns it on again


def _has_room(folder: Path) -> bool:
    """Whether a worker's metrics fit there: a page of a mapped file that cannot be had ends the process."""
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            os.posix_fallocate(file.fileno(), 0, _METRICS_BYTES_PER_WORKER)
    except OSError:
        return False
    return True


def _choose_metrics_folder(log) -> None:
    """In memory if there is room, else on the disk; with none anywhere this worker counts for itself alone."""
    for folder in (_METRICS_FOLDER, _METRICS_DISK_FOLDER):
        with suppress(OSError):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if _has_room(folder):
            os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(folder)
            return
        log.warning("No room for the metrics in %s.", folder)
    os.environ.pop("PROMETHEUS_MULTIPROC_DIR", None)


def post_worker_init(worker):
    """Patched, and the application loaded: start this worker's background loops, and return when it can serve."""
    from broadcast.worker.runtime import start_worker

    start_worker(worker)


def worker_exit(server, worker):
    """Still in the worker, its loop alive: end the streams politely. Also runs when the worker failed to start."""
    from broadcast.worker.runtime import stop_worker

    stop_worker(worker)


def child_exit(server, worker):
    """Drop the live gauges (open streams, say) of a worker that is gone; its counters stay.

    What `prometheus_client.multiprocess.mark_process_dead` does, without importing that package into the master, whose
    later workers would inherit it unpatched. A test compares the two.
    """
    for gauge in _METRICS_FOLDER.glob(f"gauge_live*_{worker.pid}.db"):
        gauge.unlink(missing_ok=True)


def on_exit(server):
    """Leave nothing in memory. During USR2 the other master uses it still."""
    if server.master_pid == server.reexec_pid == 0:
        shutil.rmtree(_METRICS_FOLDER, ignore_errors=True)
