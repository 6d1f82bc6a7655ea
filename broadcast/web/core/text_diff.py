"""What changed between two texts: lines, and words within changed lines, in a bounded number of comparisons.

The shortest edit script of Myers ("An O(ND) Difference Algorithm and Its Variations", 1986), whose cost grows with what is
different and not with the texts. When its comparisons are used up, changed lines are shown as replaced, and at last the whole
text: both are there to read, only not word by word.
"""

import re
from collections.abc import Iterator, Sequence
from itertools import zip_longest
from typing import Literal, NamedTuple

MOST_COMPARISONS = 30_000  # for two texts, some 15 ms: a text of 16 KiB in which eighty words were changed
MOST_CHARACTERS = 100_000  # of both texts; longer ones (pasted lists of people) are not compared
_WORDS = re.compile(r"\s+|[^\s]+")


class Part(NamedTuple):
    """A piece of text that both have, or only the old or the new one."""

    kind: Literal["same", "old", "new"]
    text: str


class Difference(NamedTuple):
    """`parts` in order: without those of kind "new" they are the old text, without "old" the new one.

    `is_coarse` when more of them is told as changed than is, as finding out would take too long.
    """

    parts: list[Part]
    is_coarse: bool


def compare(old: str, new: str) -> Difference:
    """What turns `old` into `new`. Keeps the loop for at most some 20 ms, whatever the texts."""
    if len(old) + len(new) > MOST_CHARACTERS:
        return Difference(_readable([Part("old", old), Part("new", new)]), is_coarse=True)
    comparisons = _Comparisons()
    parts = []
    for piece in _changes(old.splitlines(keepends=True), new.splitlines(keepends=True), comparisons):
        if piece.old == piece.new:
            parts.append(Part("same", "".join(piece.old)))
        else:
            parts += _words("".join(piece.old), "".join(piece.new), comparisons)
    return Difference(_readable(parts), is_coarse=comparisons.are_used_up)


class _Comparisons:
    """How many are left."""

    def __init__(self) -> None:
        self._left = MOST_COMPARISONS
        self.are_used_up = False

    def use(self, count: int) -> bool:
        """Whether there are so many left."""
        self._left -= count
        self.are_used_up = self.are_used_up or self._left < 0
        return not self.are_used_up


class _Piece(NamedTuple):
    """Items of both sequences that stand for each other: the same, or the old ones and what replaces them."""

    old: Sequence[str]
    new: Sequence[str]


def _words(old: str, new: str, comparisons: _Comparisons) -> Iterator[Part]:
    for piece in _changes(_WORDS.findall(old), _WORDS.findall(new), comparisons):
        before, after = "".join(piece.old), "".join(piece.new)
        if before == after:
            yield Part("same", before)
        else:
            yield Part("old", before)
            yield Part("new", after)


def _changes(old: Sequence[str], new: Sequence[str], comparisons: _Comparisons) -> Iterator[_Piece]:
    """The pieces in order. Without comparisons left, all between the common beginning and end is one."""
    start = _common(old, new)
    end = _common(old[: start - 1 if start else None : -1], new[: start - 1 if start else None : -1])
    comparisons.use(start + end)
    old_end, new_end = len(old) - end, len(new) - end
    yield _Piece(old[:start], new[:start])
    yield from _replaced(old[start:old_end], new[start:new_end], comparisons)
    yield _Piece(old[old_end:], new[new_end:])


def _common(old: Sequence[str], new: Sequence[str]) -> int:
    """How many items are the same from the beginning."""
    return next((n for n, (a, b) in enumerate(zip(old, new, strict=False)) if a != b), min(len(old), len(new)))


def _replaced(old: Sequence[str], new: Sequence[str], comparisons: _Comparisons) -> Iterator[_Piece]:
    reached = _reached(old, new, comparisons) if old and new else None
    x = y = 0
    for start, other_start, length in _runs(len(old), len(new), reached) if reached else ():
        yield _Piece(old[x:start], new[y:other_start])
        x, y = start + length, other_start + length
        yield _Piece(old[start:x], new[other_start:y])
    yield _Piece(old[x:], new[y:])


def _reached(old: Sequence[str], new: Sequence[str], comparisons: _Comparisons) -> list[dict[int, int]] | None:
    """For each number of edits the furthest place in `old`, by diagonal (place in `old` less place in `new`), until its end."""
    reached: list[dict[int, int]] = []
    furthest = {1: 0}
    for edits in range(len(old) + len(new) + 1):
        reached.append(dict(furthest))
        for diagonal in range(-edits, edits + 1, 2):
            x = _after_edit(furthest, diagonal, edits)
            first = x
            while x < len(old) and 0 <= x - diagonal < len(new) and old[x] == new[x - diagonal]:
                x += 1
            furthest[diagonal] = x
            if x >= len(old) and x - diagonal >= len(new):
                return reached
            if not comparisons.use(1 + x - first):
                return None
    return None


def _after_edit(furthest: dict[int, int], diagonal: int, edits: int) -> int:
    """The place in `old` after one more edit: an insertion comes from the diagonal above, a deletion from the one below."""
    if _is_insertion(furthest, diagonal, edits):
        return furthest[diagonal + 1]
    return furthest[diagonal - 1] + 1


def _is_insertion(furthest: dict[int, int], diagonal: int, edits: int) -> bool:
    return diagonal == -edits or (diagonal != edits and furthest[diagonal - 1] < furthest[diagonal + 1])


def _runs(x: int, y: int, reached: list[dict[int, int]]) -> list[tuple[int, int, int]]:
    """The common runs on the way back from the end: places in `old` and `new`, and length, in order."""
    runs = []
    for edits in range(len(reached) - 1, -1, -1):
        diagonal, furthest = x - y, reached[edits]
        start = _after_edit(furthest, diagonal, edits)
        if x > start:
            runs.append((start, start - diagonal, x - start))
        diagonal += 1 if _is_insertion(furthest, diagonal, edits) else -1
        x = furthest[diagonal]
        y = x - diagonal
    return runs[::-1]


def _readable(parts: list[Part]) -> list[Part]:
    """Neighbours of a kind as one; the spaces between two changed words belong to both."""
    parts = [part for part in parts if part.text]
    whole: list[Part] = []
    old = new = ""
    for part, after in zip_longest(parts, parts[1:]):
        is_between = (old or new) and after and after.kind != "same" and part.text.isspace() and "\n" not in part.text
        if part.kind == "old":
            old += part.text
        elif part.kind == "new":
            new += part.text
        elif is_between:
            old, new = old + part.text, new + part.text
        else:
            whole += _told(old, new)
            old = new = ""
            if whole and whole[-1].kind == "same":
                whole[-1] = Part("same", whole[-1].text + part.text)
            else:
                whole.append(part)
    return whole + _told(old, new)


def _told(old: str, new: str) -> list[Part]:
    return [part for part in (Part("old", old), Part("new", new)) if part.text]
