"""A fail-over that lost commits excuses what was lost in it, and nothing else."""

import pytest

from tests.chaos.checker import check_history
from tests.chaos.history import HistoryEvent
from tests.chaos.lost_commits import exclude_lost_events, find_lost_keys, find_streams_without_reset

EVERYONE = {"kind": "everyone"}


def history(*, lost_at: float = 15.0, is_told: bool = True) -> list[HistoryEvent]:
    """`a` is kept; `b` is answered at `lost_at` and lost between 14 and 18; `c` then has the number and the id that `b` had."""
    stream = {"stream": "bob/0", "user": "bob"}

    def published(at: float, key: str, id: int) -> HistoryEvent:
        return {"kind": "publish", "at": at, "began": at, "key": key, "audience": EVERYONE, "result": "ok", "id": id}

    def frame(at: float, event: str, id: str, broadcast: int | None = None) -> HistoryEvent:
        return stream | {"kind": "frame", "at": at, "turn": 1, "event": event, "id": id, "broadcast": broadcast}

    def reload(at: float, cards: list[int], cursor: str) -> HistoryEvent:
        return stream | {"kind": "reload", "at": at, "began": at, "cards": cards, "cursor": cursor}

    def inbox(at: float, cards: list[int], *, final: bool) -> HistoryEvent:
        return {"kind": "inbox", "user": "bob", "began": at, "at": at, "cards": cards, "read": [], "final": final}

    told = [frame(19, "RESET", "f-1"), reload(19.1, [1], "f-1")] if is_told else []
    return sorted(
        [
            {"kind": "person", "at": 9, "user": "bob", "roles": []},
            reload(10, [], "e-0"),
            stream | {"kind": "connect", "at": 11, "cursor": "e-0", "honest": True},
            published(12, "a", 1),
            frame(12.1, "MESSAGE", "e-1", 1),
            published(lost_at, "b", 2),
            frame(15.1, "MESSAGE", "e-2", 2),
            inbox(16, [2, 1], final=False),
            {"kind": "history_lost", "at": 18, "began": 14, "ended": 18, "epoch": "e", "seq": 1, "broadcast": 1},
            *told,
            published(20, "c", 2),
            frame(20.1, "MESSAGE", "f-2", 2),
            {"kind": "fault", "at": 21, "name": "F31", "phase": "heal"},
            {"kind": "current", "at": 21.1, "stream": "bob/0"},
            inbox(22, [2, 1], final=True),
            {"kind": "log", "at": 23, "rows": [[1, 1, "a"], [2, 2, "c"]]},
        ],
        key=lambda event: event["at"],
    )


def test_what_was_lost_in_the_fail_over_is_excused():
    assert check_history(history())
    assert check_history(exclude_lost_events(history())) == []
    assert find_lost_keys(history(), {"a", "c"}) == {"b"}


@pytest.mark.parametrize("lost_at", [13.0, 19.5])
def test_what_was_lost_before_or_after_it_is_a_loss(lost_at: float):
    assert "I1" in {violation.rule for violation in check_history(exclude_lost_events(history(lost_at=lost_at)))}


def test_page_that_is_not_told_is_a_violation():
    assert find_streams_without_reset(history()) == []
    assert [violation.rule for violation in find_streams_without_reset(history(is_told=False))] == ["I8"]


def test_history_without_a_loss_is_left_as_it_is():
    events = [event for event in history() if event["kind"] != "history_lost"]
    assert exclude_lost_events(events) == events
