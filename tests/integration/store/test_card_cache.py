"""The card cache: changes show at once, and what ended in between is neither shown nor missed."""

from flask import Flask

from broadcast.actions import broadcasts, edits
from broadcast.domain import clock
from broadcast.store.fast import card_cache
from broadcast.store.fast.card_cache import CARD_CACHE, CardCache
from broadcast.store.inbox import Inbox, InboxFilters
from tests.support.builders import build_message, build_role_message, publish_message

NOW = clock.now()


def titles(by, **options) -> list[str]:
    return [item.card.title for item in Inbox(by.viewer, clock.now()).list_page(InboxFilters(), **options)]


class Interrupted(CardCache):
    """Something happens between the reading of rows and of their cards, once."""

    def __init__(self, happens):
        super().__init__()
        self._happens = [happens]

    def get_many(self, keys, read):
        while self._happens:
            self._happens.pop()()
        return super().get_many(keys, read)


def test_a_kept_card_is_not_read_again(cast, monkeypatch):
    publish_message(cast["alice"], build_message(title="one"))
    assert titles(cast["bob"]) == ["one"]
    monkeypatch.setattr(Inbox, "_broadcast_query", None)
    assert titles(cast["charlie"]) == ["one"]


def test_an_edit_is_seen_at_the_next_look(cast):
    one = publish_message(cast["alice"], build_message(title="before"))
    assert titles(cast["bob"]) == ["before"]
    edits.edit(one, {"title": "after"}, version=None, by=cast["alice"], now=clock.now())
    assert titles(cast["bob"]) == ["after"]


def test_a_kept_card_opens_nothing_to_those_it_is_not_for(cast):
    one = publish_message(cast["alice"], build_role_message("ops"))
    assert titles(cast["bob"])
    assert titles(cast["charlie"]) == []
    assert Inbox(cast["charlie"].viewer, NOW).find(one) is None


def test_a_message_that_ends_between_row_and_card_makes_no_page_short(in_app: Flask, cast):
    for n in range(4):
        newest = publish_message(cast["alice"], build_message(title=str(n)))
    recall = lambda: broadcasts.cancel(newest, reason="wrong", by=cast["alice"], now=clock.now())  # noqa: E731
    CARD_CACHE.attach(in_app, Interrupted(recall))
    assert titles(cast["bob"], limit=3) == ["2", "1", "0"]


def test_a_message_edited_between_row_and_card_is_shown_as_it_is_now(in_app: Flask, cast):
    one = publish_message(cast["alice"], build_message(title="before"))
    change = lambda: edits.edit(one, {"title": "after"}, version=None, by=cast["alice"], now=clock.now())  # noqa: E731
    CARD_CACHE.attach(in_app, Interrupted(change))
    assert titles(cast["bob"]) == ["after"]


def test_the_longest_unused_cards_go(in_app: Flask, cast, monkeypatch):
    monkeypatch.setattr(card_cache, "_MAX_CARDS", 2)
    first, second, third = (
        publish_message(cast["alice"], build_message(title=title)) for title in ("first", "second", "third")
    )
    for one in (first, second, first, third):
        assert Inbox(cast["bob"].viewer, NOW).find(one)
    assert {key.id for key in CARD_CACHE.of(in_app)._cards} == {first, third}
