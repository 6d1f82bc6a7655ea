"""Failpoints: kill a worker once at a chosen point of a publish, of the Kafka bridge or of the outbox. Python runs this
at startup when the folder is on PYTHONPATH.

A file named after the failpoint in the folder $FAILPOINTS arms it; the first process that reaches it removes the file
and dies as by `kill -9`. $CLOCK_SHIFT_SECONDS shifts the clock of the process. The product itself knows nothing of
either; with APP_ENV=production it does not start.
"""

import importlib.abc
import importlib.machinery
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

FAILPOINT_NAMES = (
    "insert",
    "append",
    "commit",
    "ring",
    "offsets",
)  # besides "mail" and "webhook", after a server took one
_LAST_IMPORTED_MODULE = "broadcast.ingest.kafka.bridge"  # importing it loads everything that is wrapped


def _crash_if_armed(point: str) -> None:
    try:
        (Path(os.environ["FAILPOINTS"]) / point).unlink()
    except FileNotFoundError:
        return
    os.kill(os.getpid(), signal.SIGKILL)


def _add_failpoints(failpoint_before: str | None, function: Callable, failpoint_after: str | None) -> Callable:
    def wrapped(*args, **options):
        if failpoint_before:
            _crash_if_armed(failpoint_before)
        result = function(*args, **options)
        if failpoint_after:
            _crash_if_armed(failpoint_after)
        return result

    return wrapped


def _shift_clock(clock) -> None:
    shift = clock.timedelta(seconds=float(os.environ["CLOCK_SHIFT_SECONDS"]))

    class ShiftedDatetime(clock.datetime):
        @classmethod
        def now(cls, zone=None):
            return super().now(zone) + shift

    clock.datetime = ShiftedDatetime


def _install_failpoints(bridge) -> None:
    events, log = sys.modules["broadcast.actions.inbound_events"], sys.modules["broadcast.store.log"]
    log.append = _add_failpoints("insert", log.append, "append")  # after the rows; after the rows and events
    events.notify.notify_workers = _add_failpoints(
        "commit", events.notify.notify_workers, "ring"
    )  # after the commit; after the notification
    bridge._ConsumerSession._commit_offsets = _add_failpoints(None, bridge._ConsumerSession._commit_offsets, "offsets")


def _install_mail_failpoint(smtp) -> None:
    smtp.SmtpTransport.send = _add_failpoints(None, smtp.SmtpTransport.send, "mail")


def _install_webhook_failpoint(outgoing_http) -> None:
    outgoing_http.post = _add_failpoints(None, outgoing_http.post, "webhook")


_IMPORT_HOOKS = {}
if "FAILPOINTS" in os.environ:
    _IMPORT_HOOKS = {
        _LAST_IMPORTED_MODULE: _install_failpoints,
        "broadcast.channels.smtp": _install_mail_failpoint,
        "broadcast.channels.outgoing_http": _install_webhook_failpoint,
    }
if "CLOCK_SHIFT_SECONDS" in os.environ:
    _IMPORT_HOOKS["broadcast.domain.clock"] = _shift_clock


class _Loader(importlib.machinery.SourceFileLoader):
    def exec_module(self, module) -> None:
        super().exec_module(module)
        _IMPORT_HOOKS[module.__name__](module)


class _Finder(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name not in _IMPORT_HOOKS:
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path, target)
        spec.loader = _Loader(spec.loader.name, spec.loader.path)
        return spec


if _IMPORT_HOOKS:
    if os.environ.get("APP_ENV") == "production":
        sys.exit("FAILPOINTS: for tests only; refused when APP_ENV=production.")
    sys.meta_path.insert(0, _Finder())
