"""The state transitions of a broadcast, cell by cell."""

import pytest

from broadcast.base.errors import Conflict, IllegalTransition
from broadcast.domain import lifecycle
from broadcast.domain.lifecycle import Status

ACTIONS = [
    "saved", "edited", "scheduled", "held", "withdrawn", "published", "expired", "cancelled", "discarded", "archived",
]  # fmt: skip
LEGAL = {
    ("DRAFT", "saved"): "DRAFT",
    ("DRAFT", "edited"): "DRAFT",
    ("DRAFT", "scheduled"): "SCHEDULED",
    ("DRAFT", "held"): "SCHEDULED",
    ("DRAFT", "published"): "ACTIVE",
    ("DRAFT", "cancelled"): "CANCELLED",
    ("DRAFT", "discarded"): "CANCELLED",
    ("SCHEDULED", "edited"): "SCHEDULED",
    ("SCHEDULED", "scheduled"): "SCHEDULED",
    ("SCHEDULED", "held"): "SCHEDULED",
    ("SCHEDULED", "withdrawn"): "DRAFT",
    ("SCHEDULED", "published"): "ACTIVE",
    ("SCHEDULED", "cancelled"): "CANCELLED",
    ("SCHEDULED", "expired"): "EXPIRED",
    ("ACTIVE", "edited"): "ACTIVE",
    ("ACTIVE", "cancelled"): "CANCELLED",
    ("ACTIVE", "expired"): "EXPIRED",
    ("EXPIRED", "archived"): "EXPIRED",
    ("CANCELLED", "archived"): "CANCELLED",
}


@pytest.mark.parametrize("action", ACTIONS)
@pytest.mark.parametrize("status", list(Status))
def test_table(status, action):
    expected = LEGAL.get((status.value, action))
    assert lifecycle.can_transition(status, action) == (expected is not None)
    if expected:
        assert lifecycle.transition(status, action) == expected
        return
    with pytest.raises(IllegalTransition) as caught:
        lifecycle.transition(status, action)
    assert (caught.value.current_status, caught.value.action) == (status, action)
    assert caught.value.status == Conflict.status == 409


@pytest.mark.parametrize("ended", [Status.EXPIRED, Status.CANCELLED])
def test_what_has_ended_stays_ended(ended):
    assert [action for action in ACTIONS if lifecycle.can_transition(ended, action)] == ["archived"]
    assert lifecycle.transition(ended, "archived") is ended


def test_status_is_read_from_what_the_database_holds():
    assert lifecycle.transition("DRAFT", "published") is Status.ACTIVE


def test_unknown_action_is_illegal():
    with pytest.raises(IllegalTransition):
        lifecycle.transition(Status.ACTIVE, "deleted")


@pytest.mark.parametrize("action", ACTIONS)
def test_refusal_is_a_sentence_for_people(action):
    for status in Status:
        if not lifecycle.can_transition(status, action):
            sentence = str(IllegalTransition(status, action))
            assert sentence.endswith(".")
            assert status.value not in sentence
