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

_MOST = 1000  # cards kept, of 3 KB as a rule and 40 at most; the longest unused go first


class CardKey(NamedTuple):
    """What a card is kept by. Every edit raises the revision; `updated_at` tells rows of a restored database apart."""

    id: int
    revision: int
    updated_at: datetime


class Cards:
    """One worker's cards."""

    def __init__(self) -> None:
        self._kept: OrderedDict[CardKey, Card] = OrderedDict()

    def of(
        self, keys: Iterable[CardKey], read: Callable[[list[int]], Iterable[tuple[CardKey, Card]]]
    ) -> dict[int, Card]:
        """Cards by id. `read` is called once, with the ids of those that are not kept.

        It answers with what is stored by then: the newer card of a message edited meanwhile, and nothing for one that ended.
        """
        found, missing = {}, []
        for key in keys:
            if key in self._kept:
                self._kept.move_to_end(key)
                found[key.id] = self._kept[key]
            else:
                missing.append(key.id)
        if missing:
            for key, card in read(missing):
                self._keep(key, card)
                found[key.id] = card
        return found

    def _keep(self, key: CardKey, card: Card) -> None:
        self._kept[key] = card
        self._kept.move_to_end(key)
        if len(self._kept) > _MOST:
            self._kept.popitem(last=False)


CARD_CACHE = AppPart[Cards]("cards")
