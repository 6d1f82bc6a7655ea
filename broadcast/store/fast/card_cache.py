"""The cards of messages that are looked at, kept by each worker: the newest are in everybody's inbox.

To read 200 messages and make cards of them was eight of the 14 ms that a list of them took. What a person may see is asked of
the database at each read, as ever; it answers with keys, and only cards whose keys are not kept are read.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterable
from datetime import datetime
from typing import NamedTuple

from broadcast.base.app_parts import AppPart
from broadcast.domain.card import Card

_MAX_CARDS = 1000  # cards kept, of 3 KB as a rule and 40 at most; the longest unused go first


class CardKey(NamedTuple):
    """What a card is kept by. Every edit raises the revision; `updated_at` tells rows of a restored database apart."""

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
        """Cards by id. `load` is called once, with the ids of those that are not kept.

        It answers with what is stored by then: the newer card of a message edited meanwhile, and nothing for one that ended.
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
                self._store(key, card)
                cards[key.id] = card
        return cards

    def _store(self, key: CardKey, card: Card) -> None:
        self._cards[key] = card
        self._cards.move_to_end(key)
        if len(self._cards) > _MAX_CARDS:
            self._cards.popitem(last=False)


CARD_CACHE = AppPart[CardCache]("cards")
