"""Disclosure of totals: no number reveals whether one person has read a message."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broadcast.domain.stats import (
    FUNNEL_STEPS,
    MIN_GROUP_SIZE,
    BroadcastStats,
    BroadcastTotals,
    FunnelCounts,
    disclose_stats,
    round_to_group,
)


def figures(
    *counts: int, gone: FunnelCounts | None = None, per_person: bool = True, asks_ack: bool = False, sent_to=None
) -> BroadcastStats:
    whole = FunnelCounts(*counts)
    totals = BroadcastTotals(
        whole, gone or FunnelCounts(), asks_ack, whole.recipients if sent_to is None else sent_to, None
    )
    return disclose_stats(totals, per_recipient=per_person)


def test_targeted_are_the_done_the_missing_and_those_no_longer_here():
    told = figures(13, 12, 10, 8, 4, gone=FunnelCounts(2, 1, 1, 1, 1), asks_ack=True, sent_to=11)
    assert (told.remaining, told.remaining_done, told.missing, told.gone, told.gone_done, told.joined_later) == (
        11,
        3,
        8,
        2,
        1,
        2,
    )
    assert told.remaining_done + told.missing + told.gone == told.targeted
    assert not told.is_complete


def test_complete_when_nobody_who_is_here_is_missing():
    assert figures(3, 2, 2, 2, 2, gone=FunnelCounts(1), asks_ack=True).is_complete
    assert not figures(3, 3, 3, 3, 2, asks_ack=True).is_complete
    assert not figures(1, 0, 0, 0, 0, gone=FunnelCounts(1), asks_ack=True).is_complete, "of nobody nothing is complete"


def test_rate_of_nobody_is_zero():
    assert figures(0, 0, 0, 0, 0).rate("read") == 0
    assert figures(3, 2, 1, 1, 0).rate("read") == pytest.approx(1 / 3)


@given(people=st.integers(0, 200))
def test_each_coarse_figure_stands_for_a_group_of_counts(people):
    """Neither nobody nor everybody, nor any number of less than a group: each answer fits at least GROUP different counts."""
    answers = [round_to_group(count, people) for count in range(people + 1)]
    if people < 2 * MIN_GROUP_SIZE:
        assert set(answers) == {None}
        return
    for answer in set(answers):
        assert answers.count(answer) >= MIN_GROUP_SIZE
        assert answer <= answers.index(answer), "it is a lower bound"


@given(counts=st.lists(st.integers(0, 60), min_size=5, max_size=5), left=st.integers(0, 60))
def test_without_persons_nothing_is_told_of_who_is_missing_or_gone(counts, left):
    counts = sorted(counts, reverse=True)
    gone = FunnelCounts(min(left, counts[0]))
    told = figures(*counts, gone=gone, per_person=False)
    assert (told.missing, told.remaining_done, told.gone_done, told.is_complete) == (None, None, None, False)
    assert {told.rate(step) for step in FUNNEL_STEPS} == {None}
    assert [getattr(told, step) for step in FUNNEL_STEPS] == [round_to_group(count, counts[0]) for count in counts[1:]]
    assert told.targeted == counts[0]


def test_what_was_never_sent_would_reach():
    told = disclose_stats(BroadcastTotals(FunnelCounts(), FunnelCounts(), False, None, 12), per_recipient=True)
    assert (told.is_sent, told.would_reach, told.targeted, told.joined_later) == (False, 12, 0, 0)
