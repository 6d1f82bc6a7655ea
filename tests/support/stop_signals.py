"""The launcher's signal handlers in the process of a test."""

import signal
from collections.abc import Iterator

import pytest

from broadcast.launcher.children import StopSignals


@pytest.fixture
def stop_signals() -> Iterator[StopSignals]:
    """The real handlers; pytest's own are back afterwards. Child processes that end wake whoever waits on them."""
    replaced = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD)
    handlers = {number: signal.getsignal(number) for number in replaced}
    yield StopSignals.install()
    signal.set_wakeup_fd(-1)
    for number, handler in handlers.items():
        signal.signal(number, handler)
