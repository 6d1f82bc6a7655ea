"""How soon a run converged is judged by what its pages say of themselves: since when they have shown what they show."""

from collections import Counter
from types import SimpleNamespace

from tests.chaos.history import History
from tests.chaos.page_client import InboxPage


class Fed(InboxPage):
    """A page without a server: `chunks` are read as its stream, and `told` is what `since` was after each."""

    def __init__(self):
        system = SimpleNamespace(url="http://127.0.0.1:1", port=1)
        super().__init__(
            system, History(), name="bob/0", user="bob", token="", baseline=0, path="/", status_counts=Counter()
        )
        self.told: list[float | None] = []

    def _run(self) -> None:
        """Nothing is opened."""

    def read(self, *chunks: str) -> None:
        left = [chunk.encode() + b"\n\n" for chunk in chunks]

        def read1(_size: int) -> bytes:
            self.told.append(self.current_since)
            return left.pop(0) if left else b""

        self._read_frames(SimpleNamespace(read1=read1), worker=1)


def test_what_changes_a_page_or_connects_it_sets_the_moment_and_nothing_else_does():
    page = Fed()
    page.read(
        'event: CONNECTED\nid: e-1\ndata: {"unread": 0}',
        "event: HEARTBEAT\ndata: {}",
        'event: MESSAGE\nid: e-2\ndata: {"id": 7}',
        'event: READ_RECEIPT\ndata: {"ids": [7]}',
        'event: MESSAGE_REMOVED\nid: e-3\ndata: {"id": 7, "reason": "recalled"}',
    )
    before, connected, after_heartbeat, shown, after_receipt, removed = page.told
    assert before is None
    assert connected == after_heartbeat < shown == after_receipt < removed
    assert page.card_ids == set()


def test_page_whose_stream_ended_is_not_current():
    page = Fed()
    page.read('event: CONNECTED\nid: e-1\ndata: {"unread": 0}')
    assert page.told[-1] is not None
    assert page.current_since is None
