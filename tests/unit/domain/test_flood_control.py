"""The decision alone: what becomes of an event, from what its source has shown and what waits already."""

from datetime import UTC, datetime

import pytest

from broadcast.domain import flood_control
from broadcast.domain.audience import EveryoneAudience, RoleAudience
from broadcast.domain.flood_control import Candidate, FloodState, Verdict
from broadcast.domain.inbound import PublishCommand, RateCap
from broadcast.domain.lifecycle import Status
from broadcast.domain.message import parse_draft
from tests.support.builders import build_message

EVERYONE, OPS = EveryoneAudience(), RoleAudience(frozenset({"ops"}))
CAP = RateCap(limit=3, window_seconds=60, rule="r")
CARD, CHANGED_CARD = Candidate("card", EVERYONE), Candidate("card", EVERYONE, is_changed=True)
DRAFT = Candidate("draft", EVERYONE)


def decide(status: Status = Status.ACTIVE, *, audience=EVERYONE, cap: RateCap = CAP, **known) -> Verdict:
    draft = parse_draft(build_message(), now=datetime(2026, 11, 4, tzinfo=UTC))
    command = PublishCommand("s", "1", draft, "S", owner="topic:t", source_as_written="s", rate_cap=cap)
    return flood_control.decide(command, audience, status, FloodState(**known))


@pytest.mark.parametrize("remaining", [None, 1])
def test_event_with_room_is_published_and_counted(remaining):
    assert decide(remaining=remaining) == Verdict("published", is_shown=True)


def test_event_joins_the_live_card_with_its_key_and_shows_it_again():
    assert decide(cards=[CARD], remaining=1) == Verdict("collapsed", CARD, is_shown=True)


def test_card_above_the_cap_is_changed_quietly():
    assert decide(cards=[CARD], remaining=0) == Verdict("collapsed", CARD, is_shown=False)


def test_card_that_the_batch_has_changed_is_not_counted_a_second_time():
    assert decide(cards=[CHANGED_CARD], remaining=1) == Verdict("collapsed", CHANGED_CARD, is_shown=False)


def test_newest_card_of_the_same_audience_is_joined():
    newest, oldest = Candidate("newest", OPS), Candidate("oldest", OPS)
    assert decide(audience=OPS, cards=[CARD, newest, oldest]).joined is newest


def test_card_or_draft_for_others_is_never_joined():
    """What is for administrators must not be read by everybody who has the card."""
    assert decide(audience=OPS, cards=[CARD]).joined is None
    assert decide(audience=OPS, drafts=[DRAFT], remaining=0).joined is None


def test_scheduled_event_joins_no_card_and_counts_towards_the_cap():
    assert decide(Status.SCHEDULED, cards=[CARD], remaining=1) == Verdict("published", is_shown=True)
    assert decide(Status.SCHEDULED, cards=[CARD], remaining=0).kind == "quarantined"


def test_draft_is_kept_whatever_the_cap_says_and_does_not_count():
    assert decide(Status.DRAFT, cards=[CARD], drafts=[DRAFT], remaining=0) == Verdict("published")


def test_event_above_the_cap_is_counted_on_an_equal_draft_even_when_quarantine_is_full():
    full = flood_control.MAX_QUARANTINED_PER_SOURCE
    assert decide(drafts=[DRAFT], remaining=0, quarantined_of_source=full) == Verdict("quarantined", DRAFT)


def test_event_above_the_cap_waits_with_the_reason():
    assert decide(remaining=0) == Verdict(
        "quarantined",
        reason="Its source sent more than 3 broadcasts in 60 s. This came on top, so it waits here, and nobody has seen it.",
    )


def test_reason_names_both_limits_of_a_cap():
    reason = decide(remaining=0, cap=RateCap(1, 3600, "r", sender_limit=1000)).reason
    assert reason.startswith(
        "Its source sent more than 1 broadcast, or whoever sent it more than 1,000, in 3,600 s. This"
    )


@pytest.mark.parametrize(
    ("full", "sentence"),
    [
        ({"quarantined_of_source": 100}, "100 drafts of this source"),
        ({"quarantined_of_source": 99, "quarantined_of_owner": 300}, "300 drafts of whoever sent this"),
    ],
)
def test_full_quarantine_rejects(full, sentence):
    assert decide(remaining=0, **full) == Verdict(
        "rejected",
        reason=f"Its source sent more than 3 broadcasts in 60 s, and {sentence} wait in quarantine already. "
        "Send or delete those, then hand this in again.",
    )


def test_quarantine_with_room_for_one_takes_it():
    assert decide(remaining=0, quarantined_of_source=99, quarantined_of_owner=299).kind == "quarantined"
