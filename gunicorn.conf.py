"""gunicorn's settings, all from the environment (`docs/settings.md`). The launcher and production use this file.

This file runs in the master, before gevent patches the standard library in the workers. Whatever is imported here keeps
unpatched references to that library in every worker. So it does not import the application, Redis, ssl or psycopg;
hooks import late.
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

from broadcast.base.numbers import parse_number
from broadcast.worker import readiness


def _read_setting(name: str, default: str) -> str:
    return os.environ.get(name) or default  # an empty variable means the default, as in `broadcast.config.settings`


def _read_int_setting(name: str, default: str) -> int:
    value = _read_setting(name, default).strip()
    number = parse_number(value)
    if number is None:
        raise SystemExit(f"{name}: {value!r} is no whole number. See docs/settings.md.")
    return number


# A third of a worker's imports uses nothing that gevent patches (`tests/integration/worker/test_gunicorn_master.py`
# checks). Imported here, it is loaded once, and its memory is shared by all workers.
for _name in ("alembic.migration", "alembic.script", "markdown_it", "nh3", "pydantic.main", "sqlalchemy.orm"):
    importlib.import_module(_name)
for _name in ("sqlite", "postgresql"):
    importlib.import_module(f"sqlalchemy.dialects.{_name}")

_STREAMS_PER_WORKER = _read_int_setting("STREAMS_PER_WORKER", "12000")
_CONNECTION_HEADROOM = 1000  # ordinary requests besides streams; in a full pool, /healthz waits in the backlog
_SEND_BUFFER_BYTES = 32 * 1024  # per connection: a client that never reads pinned 1 MB of kernel memory, now 45 kB
_TCP_USER_TIMEOUT_MS = 20_000  # then a half-open client is dropped; TCP alone still had it after 140 s
_DATA_DIR = Path(_read_setting("DATA_DIR", "var")).absolute()
_METRICS_DISK_FOLDER = _DATA_DIR / "metrics"


def _find_metrics_folder() -> Path:
    """In memory, if the machine has /dev/shm: the files are mapped, and on a full disk the first touch of a new page
    kills the worker (SIGBUS). Anybody may create a folder of any name in /dev/shm, so it must be owned by this user
    only.
    """
    folder = Path("/dev/shm", f"broadcast-{os.getuid()}-{zlib.crc32(bytes(_DATA_DIR)):08x}")
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        status = folder.lstat()
    except OSError:
        return _METRICS_DISK_FOLDER
    is_private = status.st_uid == os.getuid() and stat.filemode(status.st_mode) == "drwx------"
    return folder if is_private else _METRICS_DISK_FOLDER


_METRICS_FOLDER = _find_metrics_folder()
_METRICS_BYTES_PER_WORKER = 8 * 1024 * 1024  # prometheus_client's files of one mebibyte each, with headroom

_host = _read_setting("HOST", "127.0.0.1")
bind = f"{f'[{_host}]' if ':' in _host else _host}:{_read_int_setting('PORT', '8000')}"
workers = _read_int_setting("WEB_CONCURRENCY", "2")
worker_class = "broadcast.worker.stream_worker.StreamWorker"
worker_connections = _STREAMS_PER_WORKER + _CONNECTION_HEADROOM
preload_app = False  # it would load the application before patching
timeout = 60  # seconds without a worker heartbeat, not a request limit: streams last longer, a stuck worker does not
graceful_timeout = 10  # streams are notified and closed within this; see `broadcast.worker.runtime.stop_worker`
keepalive = 75  # longer than a proxy's (nginx: 60), which must be the one to close an idle connection
max_requests = _read_int_setting("MAX_REQUESTS", "0")
max_requests_jitter = max_requests // 10  # not all workers at once
limit_request_line = 8190  # bytes: a recall's reason is in the URL, 500 characters of up to 12 bytes each
control_socket_disable = True  # it would be created in the home folder, one path for every gunicorn of this user
if os.access("/dev/shm", os.W_OK):
    worker_tmp_dir = "/dev/shm"  # the heartbeat file: on a disk, another process's slow fsync can get a worker killed
umask = 0o077  # of this process and its workers too, as below
# Host, scheme and client address: the application decides whom to trust (TRUSTED_PROXY_HOPS, PROXY_SIGN_IN_FROM). By
# default gunicorn trusts these headers from 127.0.0.1, where a proxy passes on what anybody sends, and from unix
# sockets.
forwarded_allow_ips = ""
forwarder_headers = ""  # SCRIPT_NAME, PATH_INFO
secure_scheme_headers = {}  # X-Forwarded-Proto and its like; two that differed were answered with 400
header_map = "drop"  # X_Forwarded_For is not X-Forwarded-For
proxy_protocol = "off"
loglevel = _read_setting("LOG_LEVEL", "info")
accesslog = "-" if _read_setting("ACCESS_LOG", "0") not in ("0", "false", "no", "off") else None

os.umask(umask)
os.environ.pop("SCRIPT_NAME", None)  # gunicorn would treat it as the prefix of every path
os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(_METRICS_FOLDER)  # prometheus_client reads it when a worker imports it


def _raise_open_files_limit() -> int:
    """Raise the soft limit on open files (often 1024) to the hard one, which workers inherit; return the result."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    except (ValueError, OSError):  # macOS reports "unlimited" and accepts less
        return soft
    return hard


_OPEN_FILES_LIMIT = _raise_open_files_limit()


def on_starting(server):
    """Start with empty metrics: files of dead workers would be counted again. Not on USR2: the old master is alive."""
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
    """Set socket options that accepted connections inherit, and refuse connections until a worker serves."""
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
    """Workers forked from now on are the successors of the current ones."""
    readiness.start_generation(server)


def post_fork(server, worker):
    """Let SIGTERM end a worker that is still starting. Until it installs its own handlers it has the master's, which
    would queue the signal where nobody reads it, and the stop would then take all of `graceful_timeout`.
    """
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    readiness.join_generation()
    _choose_metrics_folder(worker.log)
    gc.disable()  # nothing loaded now becomes garbage; `broadcast.worker.runtime.freeze_gc` enables it again


def _has_room(folder: Path) -> bool:
    """Whether a worker's metrics fit into `folder`: an unavailable page of a mapped file kills the process."""
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            os.posix_fallocate(file.fileno(), 0, _METRICS_BYTES_PER_WORKER)
    except OSError:
        return False
    return True


def _choose_metrics_folder(log) -> None:
    """Use memory if there is room, else the disk; without either this worker counts only for itself."""
    for folder in (_METRICS_FOLDER, _METRICS_DISK_FOLDER):
        with suppress(OSError):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if _has_room(folder):
            os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(folder)
            return
        log.warning("No room for the metrics in %s.", folder)
    os.environ.pop("PROMETHEUS_MULTIPROC_DIR", None)


def post_worker_init(worker):
    """Patched, with the application loaded: start this worker's background loops; return when it can serve."""
    from broadcast.worker.runtime import start_worker

    start_worker(worker)


def worker_exit(server, worker):
    """In the worker, its loop still running: drain the streams. Also runs when the worker failed to start."""
    from broadcast.worker.runtime import stop_worker

    stop_worker(worker)


def child_exit(server, worker):
    """Remove the live gauges (open streams, for example) of a dead worker; its counters stay.

    The same as `prometheus_client.multiprocess.mark_process_dead`, without importing that package into the master,
    whose later workers would inherit it unpatched. A test compares the two.
    """
    for gauge in _METRICS_FOLDER.glob(f"gauge_live*_{worker.pid}.db"):
        gauge.unlink(missing_ok=True)


def on_exit(server):
    """Remove the files in memory. During USR2 the other master still uses them."""
    if server.master_pid == server.reexec_pid == 0:
        shutil.rmtree(_METRICS_FOLDER, ignore_errors=True)
