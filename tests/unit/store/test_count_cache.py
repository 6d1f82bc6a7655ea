"""Counts are cached for twenty times their cost, and cheap ones not at all."""

import pytest

from broadcast.store.fast.count_cache import CountCache


class Clock:
    def __init__(self):
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def costing(clock: Clock, seconds: float, asked: list):
    def count() -> int:
        clock.now += seconds
        asked.append(clock.now)
        return len(asked)

    return count


def test_expensive_count_is_kept_for_what_it_is_worth(clock):
    counted, asked = CountCache(clock), []
    assert [counted.get("a", costing(clock, 1, asked)) for _ in range(3)] == [1, 1, 1]
    clock.now += 19
    assert counted.get("a", costing(clock, 1, asked)) == 1
    clock.now += 2
    assert counted.get("a", costing(clock, 1, asked)) == 2
    assert counted.get("b", costing(clock, 1, asked)) == 3


def test_cheap_count_is_never_kept(clock):
    counted, asked = CountCache(clock), []
    assert [counted.get("a", costing(clock, 0.001, asked)) for _ in range(3)] == [1, 2, 3]


def test_count_that_fails_is_not_kept(clock):
    def fail():
        raise ZeroDivisionError

    counted = CountCache(clock)
    with pytest.raises(ZeroDivisionError):
        counted.get("a", fail)
    assert counted.get("a", lambda: 5) == 5


def test_longest_unused_counts_go_first(clock, monkeypatch):
    monkeypatch.setattr("broadcast.store.fast.count_cache._MAX_ENTRIES", 2)
    counted, asked = CountCache(clock), []
    for key in ("a", "b", "a", "c"):
        counted.get(key, costing(clock, 1, asked))
    assert [counted.get(key, costing(clock, 1, asked)) for key in ("a", "b")] == [1, 4]


def test_many_are_counted_together_and_the_large_ones_are_kept(clock):
    counted, asked = CountCache(clock), []

    def count(keys) -> dict[str, int]:
        asked.append(list(keys))
        clock.now += 1
        return {key: 1000 if key == "large" else 1 for key in keys}

    def look(*keys) -> dict[str, int]:
        return counted.get_many(keys, count, weigh=lambda number: number)

    assert look("large", "a", "b") == {"large": 1000, "a": 1, "b": 1}
    assert look("a", "large", "c") == {"large": 1000, "a": 1, "c": 1}
    assert look("large") == {"large": 1000}
    clock.now += 21
    look("large")
    assert asked == [["large", "a", "b"], ["a", "c"], ["large"]]


def test_many_of_no_weight_are_counted(clock):
    assert CountCache(clock).get_many(["a", "b"], lambda keys: dict.fromkeys(keys, 0), weigh=float) == {"a": 0, "b": 0}
