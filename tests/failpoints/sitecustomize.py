"""Kills a worker at a chosen point of a publish or of the bridge, once. Python runs this at its start when the folder is on
PYTHONPATH.

A point is armed by a file of its name in the folder $FAILPOINTS; the process that comes by takes the file away and is gone,
as by `kill -9`. With $CLOCK_SHIFT_SECONDS the clock of the process is wrong by as much. The product itself knows nothing of
either; with APP_ENV=production the program does not start.
"""

import importlib.abc
import importlib.machinery
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

POINTS = ("insert", "append", "commit", "ring", "offsets")
_LAST_IMPORTED = "broadcast.ingest.kafka.bridge"  # everything that is wrapped is loaded with it


def _pass(point: str) -> None:
    try:
        (Path(os.environ["FAILPOINTS"]) / point).unlink()
    except FileNotFoundError:
        return
    os.kill(os.getpid(), signal.SIGKILL)


def _between(before: str | None, function: Callable, after: str | None) -> Callable:
    def wrapped(*args, **options):
        if before:
            _pass(before)
        result = function(*args, **options)
        if after:
            _pass(after)
        return result

    return wrapped


def _shift(clock) -> None:
    shift = clock.timedelta(seconds=float(os.environ["CLOCK_SHIFT_SECONDS"]))

    class Wrong(clock.datetime):
        @classmethod
        def now(cls, zone=None):
            return super().now(zone) + shift

    clock.datetime = Wrong


def _wrap(bridge) -> None:
    events, log = sys.modules["broadcast.actions.inbound_events"], sys.modules["broadcast.store.log"]
    log.append = _between("insert", log.append, "append")  # rows are in; rows and events are in
    events.announce.ring = _between("commit", events.announce.ring, "ring")  # committed; others know
    bridge._Reading._commit = _between(None, bridge._Reading._commit, "offsets")


_AFTER_IMPORT = {_LAST_IMPORTED: _wrap} if "FAILPOINTS" in os.environ else {}
if "CLOCK_SHIFT_SECONDS" in os.environ:
    _AFTER_IMPORT["broadcast.domain.clock"] = _shift


class _Loader(importlib.machinery.SourceFileLoader):
    def exec_module(self, module) -> None:
        super().exec_module(module)
        _AFTER_IMPORT[module.__name__](module)


class _Finder(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name not in _AFTER_IMPORT:
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path, target)
        spec.loader = _Loader(spec.loader.name, spec.loader.path)
        return spec


if _AFTER_IMPORT:
    if os.environ.get("APP_ENV") == "production":
        sys.exit("FAILPOINTS: for tests only; refused when APP_ENV=production.")
    sys.meta_path.insert(0, _Finder())
