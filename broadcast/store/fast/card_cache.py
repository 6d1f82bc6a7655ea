"""Each worker's cache of message cards: the newest are in everybody's inbox.

Reading 200 messages and building their cards took eight of the 14 ms of a list of them. The database still decides on
each read what a user may see; it returns keys, and only cards whose keys are not cached are read.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterable
from datetime import datetime
from typing import NamedTuple

from broadcast.base.app_parts import AppPart
from broadcast.domain.card import Card

_MAX_CARDS = 1000  # of 3 KB as a rule and 40 at most; least recently used go first


class CardKey(NamedTuple):
    """The cache key of a card. Every edit raises the revision; `updated_at` tells rows of a restored database apart."""

    id: int
    revision: int
    updated_at: datetime


class CardCache:
    """One worker's cards."""

    def __init__(self) -> None:
        self._cards: OrderedDict[CardKey, Card] = OrderedDict()

    def get_many(
        self, keys: Iterable[CardKey], load: Callable[[list[int]], Iterable[tuple[CardKey, Card]]]
    ) -> dict[int, Card]:
        """Cards by id. `load` is called once, with the ids that are not cached.

        It returns what is stored by then: the newer card of a message edited meanwhile, and nothing for one that has
        ended.
        """
        cards, missing_ids = {}, []
        for key in keys:
            if key in self._cards:
                self._cards.move_to_end(key)
                cards[key.id] = self._cards[key]
            else:
                missing_ids.append(key.id)
        if missing_ids:
            for key, card in load(missing_ids):
                self._cards[key] = cards[key.id] = card
            while len(self._cards) > _MAX_CARDS:
                self._cards.popitem(last=False)
        return cards


CARD_CACHE = AppPart[CardCache]("cards")
