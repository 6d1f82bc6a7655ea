"""The comparer of /readyz with the truth is tried on answers that say too little, too much, or for too long."""

import pytest

from tests.chaos.readiness import FORGOTTEN_SECONDS, NOTICED_SECONDS, Said, Trouble, judge

REDIS = {"redis": "No link."}
SOON, LATER = 100 + NOTICED_SECONDS + 1, 200 + FORGOTTEN_SECONDS + 1
DOWN = Trouble(("redis",), True, "link", 100.0, 200.0)


def said(at: float, named: dict[str, str] | None = None) -> Said:
    return Said(at, at, 200, named or {})


@pytest.mark.parametrize(
    "answers",
    [
        [said(99), said(101), said(SOON, REDIS), said(199, REDIS), said(201, REDIS), said(202), said(LATER)],
        [said(102, REDIS | {"scheduler": "It failed."})],
    ],
)
def test_truth_is_accepted(answers):
    assert list(judge(answers, [DOWN])) == []


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
    assert len(list(judge([answer], [DOWN]))) == 1


def test_what_only_may_be_named_need_not_be():
    assert list(judge([said(SOON), said(SOON, REDIS)], [Trouble(("redis",), False, "", 100.0, 200.0)])) == []
