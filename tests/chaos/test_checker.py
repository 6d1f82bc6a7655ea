"""The checker accepts a healthy run and flags every spoilt one: one delivery dropped, doubled, swapped, leaked or late."""

import copy
import json
import random
from collections.abc import Callable

import pytest

from tests.chaos.checker import check_history
from tests.chaos.healthy_history import HealthyHistory
from tests.chaos.history import History, HistoryEvent, is_in_audience, read_history

SEEDS = range(40)
Spoil = Callable[[list[HistoryEvent], random.Random], None]


def messages(events: list[HistoryEvent]) -> list[int]:
    return [n for n, event in enumerate(events) if event.get("event") == "MESSAGE"]


def dropped(events: list[HistoryEvent], choose: random.Random) -> None:
    """One frame of a message that stays never came."""
    del events[choose.choice(lasting(events))]


def lasting(events: list[HistoryEvent]) -> list[int]:
    ended = {event["id"] for event in events if event["kind"] == "end"}
    return [n for n in messages(events) if events[n]["broadcast"] not in ended]


def skipped(events: list[HistoryEvent], choose: random.Random) -> None:
    """The same, and something later came: a hole."""
    newest = {event["stream"]: n for n, event in enumerate(events) if event["kind"] == "frame"}
    del events[choose.choice([n for n in lasting(events) if n < newest[events[n]["stream"]]])]


def doubled(events: list[HistoryEvent], choose: random.Random) -> None:
    n = choose.choice(messages(events))
    events.insert(n + 1, dict(events[n]))


def swapped(events: list[HistoryEvent], choose: random.Random) -> None:
    """Two messages that follow each other on one connection came the other way round."""
    pairs = []
    last: dict[tuple, int] = {}
    for n in messages(events):
        place = events[n]["stream"], events[n]["turn"]
        if place in last:
            pairs.append((last[place], n))
        last[place] = n
    one, other = choose.choice(pairs)
    for field in ("id", "broadcast"):
        events[one][field], events[other][field] = events[other][field], events[one][field]


def leaked(events: list[HistoryEvent], choose: random.Random) -> None:
    """One person outside the audience got a message too."""
    audiences = {event["id"]: event["audience"] for event in events if event["kind"] == "publish" and event["id"]}
    roles = {event["user"]: event["roles"] for event in events if event["kind"] == "person"}
    told = [
        (n, place)
        for n in messages(events)
        for place in {(e["stream"], e["user"]) for e in events if e["kind"] == "connect"}
        if not is_in_audience(audiences[events[n]["broadcast"]], place[1], roles[place[1]])
    ]
    n, (stream, user) = choose.choice(sorted(told))
    events.insert(n + 1, events[n] | {"stream": stream, "user": user, "turn": 1})


def late(events: list[HistoryEvent], choose: random.Random) -> None:
    """One message was committed under a number below one that a client had seen."""
    n = choose.choice([n for n in messages(events) if events[n]["id"] != "e-1"])
    seq = int(events[n]["id"].removeprefix("e-"))
    id = events[n]["broadcast"]
    for event in events:
        if event.get("broadcast") == id and event.get("event") == "MESSAGE":
            event["id"] = f"e-{max(1, seq - 2)}"
        for row in event.get("rows", []):
            if row[1] == id:
                row[0] = max(1, seq - 2)


@pytest.mark.parametrize("seed", SEEDS)
def test_run_without_a_fault_is_accepted(seed: int):
    assert check_history(HealthyHistory(seed).events) == []


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(
    ("spoil", "rules"),
    [
        (dropped, {"I1", "I11"}),
        (skipped, {"I1", "I6", "I11"}),
        (doubled, {"I4", "I5"}),
        (swapped, {"I5"}),
        (leaked, {"I3"}),
        (late, {"I5"}),
    ],
    ids=["dropped", "skipped", "doubled", "swapped", "leaked", "late"],
)
def test_one_spoilt_delivery_is_flagged(spoil: Spoil, rules: set[str], seed: int):
    events = copy.deepcopy(HealthyHistory(seed).events)
    spoil(events, random.Random(seed))
    found = {violation.rule for violation in check_history(events)}
    assert found >= rules


def spoilt(change: Callable[[list[HistoryEvent]], None]) -> set[str]:
    events = copy.deepcopy(HealthyHistory(7).events)
    change(events)
    return {violation.rule for violation in check_history(events)}


def first(events: list[HistoryEvent], **fields) -> HistoryEvent:
    return next(event for event in events if fields.items() <= event.items())


def test_message_missing_from_the_final_inbox_is_a_loss():
    assert "I1" in spoilt(lambda events: [event["cards"].clear() for event in events if event["kind"] == "inbox"])


def test_message_that_nobody_published_is_a_phantom():
    assert "I2" in spoilt(lambda events: events[-1]["rows"].append([10_000, 10_000, "nobody's key"]))


def test_message_that_was_refused_is_a_phantom():
    def refuse(events):
        first(events, kind="publish", result="ok")["result"] = "fail"

    assert "I2" in spoilt(refuse)


def test_two_broadcasts_for_one_key_are_flagged():
    assert "I7" in spoilt(lambda events: events[-1]["rows"].append([10_000, 10_000, "key 1"]))


def test_silence_where_reset_was_due_is_flagged():
    assert "I8" in spoilt(lambda events: first(events, kind="connect").update(honest=False))


def test_read_message_that_turns_unread_is_flagged():
    def forget(events):
        second = [event for event in events if event["kind"] == "inbox" and event["cards"]][1]
        second["read"] = []

    assert "I9" in spoilt(forget)


def test_message_shown_after_its_recall_is_flagged():
    def show(events):
        end = first(events, kind="end")
        [event["cards"].append(end["id"]) for event in events if event["kind"] == "inbox"]

    assert "I9" in spoilt(show)


def test_stream_that_never_became_current_is_flagged():
    assert "I10" in spoilt(lambda events: events.remove(first(events, kind="current")))


def test_page_that_differs_from_its_reload_is_flagged():
    assert "I11" in spoilt(lambda events: first(events, kind="reload")["cards"].append(10_000))


def test_role_taken_away_is_followed_by_order_not_by_time():
    """Published after the role was gone: a leak however soon it came; before: not one within the time allowed."""
    base = [
        {"kind": "person", "user": "bob", "roles": ["ops"], "at": 0.0},
        {"kind": "roles", "user": "bob", "roles": [], "began": 10.0, "at": 10.1},
        {"kind": "log", "rows": [[1, 1, "k"]], "at": 99.0},
    ]
    to_ops = {"kind": "publish", "key": "k", "audience": {"kind": "roles", "roles": ["ops"]}, "result": "ok", "id": 1}
    frame = {"kind": "frame", "stream": "s", "user": "bob", "turn": 1, "event": "MESSAGE", "id": "e-1", "broadcast": 1}

    def leaks(published: float, at: float) -> bool:
        events = [*base, to_ops | {"began": published, "at": published}, frame | {"at": at}]
        return any(violation.rule == "I3" for violation in check_history(events))

    assert not leaks(published=9.0, at=9.1)
    assert not leaks(published=9.0, at=10.5)
    assert leaks(published=10.2, at=10.3)
    assert leaks(published=9.0, at=12.0)


def test_history_is_read_back_as_it_was_noted(tmp_path):
    history = History(tmp_path / "history.jsonl")
    history.record_event("person", user="bob", roles=["ops"])
    history.record_event("fault", name="F01", phase="begin")
    history.close()
    assert read_history(tmp_path / "history.jsonl") == history.events
    assert json.loads((tmp_path / "history.jsonl").read_text().splitlines()[0])["user"] == "bob"
