"""The comparer of /readyz with the truth is tried on answers that say too little, too much, or for too long."""

import pytest

from tests.chaos.readiness import (
    MAX_DETECTION_SECONDS,
    MAX_RECOVERY_SECONDS,
    ExpectedProblem,
    ReadinessAnswer,
    check_answers,
)

REDIS = {"redis": "No link."}
SOON, LATER = 100 + MAX_DETECTION_SECONDS + 1, 200 + MAX_RECOVERY_SECONDS + 1
DOWN = ExpectedProblem(("redis",), True, "link", 100.0, 200.0)


def said(at: float, named: dict[str, str] | None = None) -> ReadinessAnswer:
    return ReadinessAnswer(at, at, 200, named or {})


@pytest.mark.parametrize(
    "answers",
    [
        [said(99), said(101), said(SOON, REDIS), said(199, REDIS), said(201, REDIS), said(202), said(LATER)],
        [said(102, REDIS | {"scheduler": "It failed."})],
    ],
)
def test_truth_is_accepted(answers):
    assert list(check_answers(answers, [DOWN])) == []


@pytest.mark.parametrize(
    "answer",
    [
        said(SOON),
        said(SOON, {"redis": "Something else."}),
        said(SOON, REDIS | {"database": "It does not answer."}),
        said(99, REDIS),
        said(LATER, REDIS),
        said(LATER, {"scheduler": "It failed."}),
    ],
)
def test_every_untruth_is_flagged(answer):
    assert len(list(check_answers([answer], [DOWN]))) == 1


def test_what_only_may_be_named_need_not_be():
    assert (
        list(check_answers([said(SOON), said(SOON, REDIS)], [ExpectedProblem(("redis",), False, "", 100.0, 200.0)]))
        == []
    )
