"""Fixtures for tests of real processes: systems for one test, and streams that are always closed.

`system` (in `tests.conftest`) is shared by all tests that stop nothing; a test that kills processes uses `own_system`.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from tests.support.http_session import HttpSession
from tests.support.stream_client import StreamClient
from tests.support.system import System, run_system, wait_for


@pytest.fixture
def own_system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., System]]:
    """Starts systems that only this test uses: `own_system(redis_url=…, SOME_SETTING="…")`. Each has the test users."""
    with ExitStack() as stack:
        yield lambda **settings: stack.enter_context(run_system(tmp_path_factory.mktemp("own"), **settings))


class StreamOpener:
    """Opens streams at the head of the log: earlier messages are not replayed."""

    def __init__(self) -> None:
        self.opened: list[StreamClient] = []

    def open(self, system: System, username: str, *, path: str = "/api/sse/connect") -> StreamClient:
        """Open a stream by token; returns once it is CONNECTED."""
        token = system.get_token(username)
        return self._open(system, {"Authorization": f"Bearer {token}"}, _get_current_cursor(system, token), path)

    def open_with_session(
        self, system: System, session: HttpSession, *, path: str = "/api/sse/connect"
    ) -> StreamClient:
        """Open a stream of that session; returns once it is CONNECTED."""
        return self._open(
            system, {"Cookie": session.headers["Cookie"]}, session.get("/inbox/count").json["cursor"], path
        )

    def resume(self, system: System, username: str, cursor: str | None) -> StreamClient:
        """Open a stream that resumes at `cursor`; returns once it is CONNECTED."""
        return self._open(system, {"Authorization": f"Bearer {system.get_token(username)}"}, cursor, "/api/sse/connect")

    def open_many(self, system: System, username: str, count: int) -> list[StreamClient]:
        headers, cursor = (
            {"Authorization": f"Bearer {system.get_token(username)}"},
            _get_current_cursor(system, system.get_token(username)),
        )
        streams = [StreamClient(system.url, headers=headers, after=cursor) for _ in range(count)]
        self.opened += streams
        for stream in streams:
            stream.wait_for("CONNECTED", seconds=20)
        return streams

    def open_at_worker(self, worker: int, open_stream: Callable[[], StreamClient]) -> StreamClient:
        """Call `open_stream` until that worker serves the stream; return the stream."""
        for _ in range(200):
            stream = open_stream()
            if stream.worker == worker:
                return stream
            stream.close()
        raise AssertionError(f"200 streams, and none was served by worker {worker}")

    def open_at_each_worker(self, system: System, open_stream: Callable[[], StreamClient]) -> list[StreamClient]:
        return [self.open_at_worker(worker, open_stream) for worker in wait_for_workers(system)]

    def close(self) -> None:
        for stream in self.opened:
            stream.close()

    def _open(self, system: System, headers: dict[str, str], cursor: str | None, path: str) -> StreamClient:
        stream = StreamClient(system.url, headers=headers, path=path, after=cursor)
        self.opened.append(stream)
        stream.wait_for("CONNECTED")
        return stream


@pytest.fixture
def streams() -> Iterator[StreamOpener]:
    streams = StreamOpener()
    yield streams
    streams.close()


def wait_for_workers(system: System, *, excluded: int = 0) -> list[int]:
    """Return both workers once both answer; with `excluded`, once that one was replaced."""

    def get_answering_workers() -> list[int] | None:
        workers = system.get_worker_pids()
        if len(workers) != 2 or excluded in workers:
            return None
        return workers if system.find_answering_workers() >= set(workers) else None

    return wait_for(get_answering_workers, seconds=60, description="two workers that answer")


def _get_current_cursor(system: System, token: str) -> str:
    status, body = system.call("GET", "/api/user/messages?limit=1", token=token)
    assert status == 200, body
    return body["cursor"]
