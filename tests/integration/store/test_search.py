"""Full-text search on either database: the same words find the same messages."""

import pytest

from broadcast.actions import broadcasts as actions
from broadcast.domain import clock
from broadcast.store.inbox import Inbox, InboxFilters
from broadcast.store.models import Broadcast
from broadcast.store.transactions import write_transaction
from tests.support.builders import build_message, publish_message

NOW = clock.now()


def found(by, q: str) -> set[str]:
    return {item.card.title for item in Inbox(by.viewer, NOW).list_page(InboxFilters(q=q))}


@pytest.mark.parametrize(
    ("q", "titles"),
    [
        ("lift", {"Lifts", "Both"}),
        ("LIFT floor", {"Both"}),
        ("floor lift", {"Both"}),
        ("arger", {"Ärger"}),
        ("京タ", {"東京タワー"}),
        ("ifts", set()),
        ("maint", {"Lifts"}),
        ("ali", {"Lifts", "Both", "Ärger", "東京タワー"}),
        ("lift OR floor", set()),
        ('"lift" NEAR(x)', set()),
        ("lift* AND (", set()),
        ("'", set()),
        ("", {"Lifts", "Both", "Ärger", "東京タワー"}),
        ("a " * 100, {"Lifts", "Both", "Ärger", "東京タワー"}),
    ],
)
def test_every_word_begins_a_word_of_the_message(cast, q, titles):
    """Of title, text, category or sender; what a query language would take for an operator is a word like any other."""
    alice = cast["alice"]
    publish_message(alice, build_message(title="Lifts", content="stand still", category="Maintenance"))
    publish_message(alice, build_message(title="Both", content="The lift to the fifth floor"))
    publish_message(alice, build_message(title="Ärger", content="viel"))
    publish_message(alice, build_message(title="東京タワー", content="x"))
    assert found(cast["bob"], q) == titles


def test_edited_text_is_found_by_its_new_words_only(cast):
    broadcast_id = publish_message(cast["alice"], build_message(title="Lifts"))
    with write_transaction() as session:
        session.get(Broadcast, broadcast_id).title = "Stairs"
    assert found(cast["bob"], "stairs") == {"Stairs"}
    assert found(cast["bob"], "lifts") == {"Stairs"}  # the text still says so
    with write_transaction() as session:
        session.get(Broadcast, broadcast_id).content = "Take them."
    assert found(cast["bob"], "lifts") == set()


def test_what_has_ended_or_is_not_theirs_is_not_found(cast):
    """I3"""
    publish_message(cast["alice"], build_message(title="Secret", targetType="ROLE", targetIds=["admin"]))
    ended = publish_message(cast["alice"], build_message(title="Ended secret"))
    actions.cancel(ended, reason="x", by=cast["alice"], now=NOW)
    assert found(cast["bob"], "secret") == set()


def test_long_words_and_noise_can_be_stored_and_asked(cast):
    publish_message(cast["alice"], build_message(title="Noise", content="w" * 16_000))
    publish_message(cast["alice"], build_message(title="Many", content=" ".join(map(str, range(3000)))))
    assert found(cast["bob"], "w" * 200) == {"Noise"}
    assert found(cast["bob"], "2999") == {"Many"}
