"""Fixtures for tests of real processes: systems of one's own, and streams that are closed whatever happens.

`system` (in `tests.conftest`) is shared by all tests that end nothing; a test that kills asks for `own_system`.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from tests.databases import DATABASE_URL, SECOND_REDIS_URL, database_of_its_own
from tests.streams import Stream
from tests.system import System, wait_for
from tests.visitor import Visitor


@pytest.fixture
def own_system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., System]]:
    """Starts systems that only this test uses: `own_system(redis_url=…, SOME_SETTING="…")`. Each has the cast."""
    with ExitStack() as stack:

        def start(*, redis_url: str | None = SECOND_REDIS_URL, **settings: str) -> System:
            database = stack.enter_context(database_of_its_own(DATABASE_URL))
            folder = tmp_path_factory.mktemp("own")
            return stack.enter_context(System(folder, database_url=database, redis_url=redis_url, **settings))

        yield start


class Streams:
    """Opens streams that begin now: what was published before is not replayed."""

    def __init__(self) -> None:
        self.opened: list[Stream] = []

    def open(self, system: System, username: str, *, path: str = "/api/sse/connect") -> Stream:
        """A stream by token, once it is CONNECTED."""
        token = system.token(username)
        return self._open(system, {"Authorization": f"Bearer {token}"}, _now(system, token), path)

    def open_signed_in(self, system: System, visitor: Visitor, *, path: str = "/api/sse/connect") -> Stream:
        """A stream of that visitor's session, once it is CONNECTED."""
        return self._open(
            system, {"Cookie": visitor.headers["Cookie"]}, visitor.get("/inbox/count").json["cursor"], path
        )

    def resume(self, system: System, username: str, cursor: str | None) -> Stream:
        """A stream that goes on at `cursor`, once it is CONNECTED."""
        return self._open(system, {"Authorization": f"Bearer {system.token(username)}"}, cursor, "/api/sse/connect")

    def open_many(self, system: System, username: str, count: int) -> list[Stream]:
        headers, after = {"Authorization": f"Bearer {system.token(username)}"}, _now(system, system.token(username))
        streams = [Stream(system.url, headers=headers, after=after) for _ in range(count)]
        self.opened += streams
        for stream in streams:
            stream.wait_for("CONNECTED", seconds=20)
        return streams

    def open_at(self, worker: int, open_one: Callable[[], Stream]) -> Stream:
        """Call `open_one` until that worker serves the stream."""
        for _ in range(200):
            stream = open_one()
            if stream.worker == worker:
                return stream
            stream.close()
        raise AssertionError(f"200 streams, and none was served by worker {worker}")

    def one_at_each_worker(self, system: System, open_one: Callable[[], Stream]) -> list[Stream]:
        return [self.open_at(worker, open_one) for worker in wait_for_workers(system)]

    def close(self) -> None:
        for stream in self.opened:
            stream.close()

    def _open(self, system: System, headers: dict[str, str], after: str | None, path: str) -> Stream:
        stream = Stream(system.url, headers=headers, path=path, after=after)
        self.opened.append(stream)
        stream.wait_for("CONNECTED")
        return stream


@pytest.fixture
def streams() -> Iterator[Streams]:
    streams = Streams()
    yield streams
    streams.close()


def wait_for_workers(system: System, *, other_than: int = 0) -> list[int]:
    """Both workers, once both answer; with `other_than`, once that one was replaced."""

    def both() -> list[int] | None:
        workers = system.workers()
        if len(workers) != 2 or other_than in workers:
            return None
        return workers if system.answering() >= set(workers) else None

    return wait_for(both, seconds=60, what="two workers that answer")


def _now(system: System, token: str) -> str:
    status, listed = system.call("GET", "/api/user/messages?limit=1", token=token)
    assert status == 200, listed
    return listed["cursor"]
