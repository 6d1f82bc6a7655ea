"""A ticker in every gunicorn worker: writes each 10 ms wait that took 2 ms too long to $TICKER, in milliseconds."""

import importlib.abc
import importlib.machinery
import os
import sys
import time

_STARTS_WORKER = "broadcast.worker.runtime"  # imported when the worker is monkey-patched


def _tick() -> None:
    import gevent

    while True:
        began = time.perf_counter()
        gevent.sleep(0.01)
        late = (time.perf_counter() - began - 0.01) * 1000
        if late > 2:
            with open(os.environ["TICKER"], "a") as ticks:
                ticks.write(f"{late:.1f}\n")


class _Loader(importlib.machinery.SourceFileLoader):
    def exec_module(self, module) -> None:
        super().exec_module(module)
        import gevent

        start = module.start_worker
        module.start_worker = lambda worker: (gevent.spawn(_tick), start(worker))[1]


class _Finder(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name != _STARTS_WORKER:
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path, target)
        spec.loader = _Loader(spec.loader.name, spec.loader.path)
        return spec


if "TICKER" in os.environ:
    open(os.environ["TICKER"], "a").close()
    sys.meta_path.insert(0, _Finder())
