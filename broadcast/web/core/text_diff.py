"""Diffs two texts: by line, and by word within changed lines, with a bounded number of comparisons.

Myers' shortest edit script ("An O(ND) Difference Algorithm and Its Variations", 1986), whose cost grows with the
differences and not with the texts. When the comparisons run out, changed lines are shown as replaced, and finally the
whole text: both versions are still complete, only not compared by word.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import zip_longest
from typing import Literal, NamedTuple

from broadcast.base.cooperative import Yielder

MAX_COMPARISONS = 30_000  # some 15 ms for two texts: 16 KiB with eighty changed words
MAX_CHARACTERS = 100_000  # of both texts; longer ones (pasted lists of users) are not compared
_WORD_PATTERN = re.compile(r"\s+|[^\s]+")


class DiffPart(NamedTuple):
    """A piece of text that is in both versions, or only in the old or the new one."""

    kind: Literal["same", "old", "new"]
    text: str


class TextDiff(NamedTuple):
    """`parts` are in order: without those of kind "new" they are the old text, without "old" the new one.

    `is_coarse`: more is marked as changed than differs, because an exact diff would take too long.
    """

    parts: list[DiffPart]
    is_coarse: bool


class FieldDiff(NamedTuple):
    """The diff of one field of two versions."""

    name: str
    parts: list[DiffPart]
    is_coarse: bool


def compare(old: str, new: str) -> TextDiff:
    """Diff `old` and `new`. Blocks the loop for at most some 20 ms, whatever the texts."""
    if len(old) + len(new) > MAX_CHARACTERS:
        return TextDiff(_merge_parts([DiffPart("old", old), DiffPart("new", new)]), is_coarse=True)
    budget = _ComparisonBudget()
    parts = []
    for piece in _diff_sequences(old.splitlines(keepends=True), new.splitlines(keepends=True), budget):
        if piece.old == piece.new:
            parts.append(DiffPart("same", "".join(piece.old)))
        else:
            parts += _diff_words("".join(piece.old), "".join(piece.new), budget)
    return TextDiff(_merge_parts(parts), is_coarse=budget.is_exhausted)


def compare_fields(versions: Iterable[tuple[str, str, str]]) -> list[FieldDiff]:
    """The fields whose old and new text differ, given as name, old and new. Lets other greenlets run."""
    diffs, yielder = [], Yielder()
    for name, old, new in versions:
        if old != new:
            diffs.append(FieldDiff(name, *compare(old, new)))
            yielder.maybe_yield()
    return diffs


class _ComparisonBudget:
    """How many comparisons are left."""

    def __init__(self) -> None:
        self._remaining = MAX_COMPARISONS
        self.is_exhausted = False

    def spend(self, count: int) -> bool:
        """Use up `count` comparisons; false when not so many are left."""
        self._remaining -= count
        self.is_exhausted = self.is_exhausted or self._remaining < 0
        return not self.is_exhausted


class _AlignedPiece(NamedTuple):
    """Items of both sequences that correspond: equal ones, or old ones and their replacement."""

    old: Sequence[str]
    new: Sequence[str]


def _diff_words(old: str, new: str, budget: _ComparisonBudget) -> Iterator[DiffPart]:
    for piece in _diff_sequences(_WORD_PATTERN.findall(old), _WORD_PATTERN.findall(new), budget):
        before, after = "".join(piece.old), "".join(piece.new)
        if before == after:
            yield DiffPart("same", before)
        else:
            yield DiffPart("old", before)
            yield DiffPart("new", after)


def _diff_sequences(old: Sequence[str], new: Sequence[str], budget: _ComparisonBudget) -> Iterator[_AlignedPiece]:
    """The pieces in order. Without comparisons left, all between the common prefix and suffix is one piece."""
    start = _count_common_prefix(old, new)
    end = _count_common_prefix(old[: start - 1 if start else None : -1], new[: start - 1 if start else None : -1])
    budget.spend(start + end)
    old_end, new_end = len(old) - end, len(new) - end
    yield _AlignedPiece(old[:start], new[:start])
    yield from _diff_replaced(old[start:old_end], new[start:new_end], budget)
    yield _AlignedPiece(old[old_end:], new[new_end:])


def _count_common_prefix(old: Sequence[str], new: Sequence[str]) -> int:
    return next((n for n, (a, b) in enumerate(zip(old, new, strict=False)) if a != b), min(len(old), len(new)))


def _diff_replaced(old: Sequence[str], new: Sequence[str], budget: _ComparisonBudget) -> Iterator[_AlignedPiece]:
    trace = _trace_edits(old, new, budget) if old and new else None
    x = y = 0
    for start, other_start, length in _backtrack_runs(len(old), len(new), trace) if trace else ():
        yield _AlignedPiece(old[x:start], new[y:other_start])
        x, y = start + length, other_start + length
        yield _AlignedPiece(old[start:x], new[other_start:y])
    yield _AlignedPiece(old[x:], new[y:])


def _trace_edits(old: Sequence[str], new: Sequence[str], budget: _ComparisonBudget) -> list[dict[int, int]] | None:
    """For each number of edits, the furthest `old` position by diagonal (`old` position less `new` position)."""
    trace: list[dict[int, int]] = []
    furthest = {1: 0}
    for edits in range(len(old) + len(new) + 1):
        trace.append(dict(furthest))
        for diagonal in range(-edits, edits + 1, 2):
            x = _advance_edit(furthest, diagonal, edits)
            run_start = x
            while x < len(old) and 0 <= x - diagonal < len(new) and old[x] == new[x - diagonal]:
                x += 1
            furthest[diagonal] = x
            if x >= len(old) and x - diagonal >= len(new):
                return trace
            if not budget.spend(1 + x - run_start):
                return None
    return None


def _advance_edit(furthest: dict[int, int], diagonal: int, edits: int) -> int:
    """The position in `old` after one more edit: an insertion is from the diagonal above, a deletion from below."""
    if _is_insertion(furthest, diagonal, edits):
        return furthest[diagonal + 1]
    return furthest[diagonal - 1] + 1


def _is_insertion(furthest: dict[int, int], diagonal: int, edits: int) -> bool:
    return diagonal == -edits or (diagonal != edits and furthest[diagonal - 1] < furthest[diagonal + 1])


def _backtrack_runs(x: int, y: int, trace: list[dict[int, int]]) -> list[tuple[int, int, int]]:
    """The common runs, traced back from the end, in order: positions in `old` and `new`, and length."""
    runs = []
    for edits in range(len(trace) - 1, -1, -1):
        diagonal, furthest = x - y, trace[edits]
        start = _advance_edit(furthest, diagonal, edits)
        if x > start:
            runs.append((start, start - diagonal, x - start))
        diagonal += 1 if _is_insertion(furthest, diagonal, edits) else -1
        x = furthest[diagonal]
        y = x - diagonal
    return runs[::-1]


def _merge_parts(parts: list[DiffPart]) -> list[DiffPart]:
    """Merge neighbours of one kind. Spaces between two changed words belong to both."""
    parts = [part for part in parts if part.text]
    merged: list[DiffPart] = []
    old = new = ""
    for part, next_part in zip_longest(parts, parts[1:]):
        is_between = (
            (old or new) and next_part and next_part.kind != "same" and part.text.isspace() and "\n" not in part.text
        )
        if part.kind == "old":
            old += part.text
        elif part.kind == "new":
            new += part.text
        elif is_between:
            old, new = old + part.text, new + part.text
        else:
            merged += _make_changed_parts(old, new)
            old = new = ""
            if merged and merged[-1].kind == "same":
                merged[-1] = DiffPart("same", merged[-1].text + part.text)
            else:
                merged.append(part)
    return merged + _make_changed_parts(old, new)


def _make_changed_parts(old: str, new: str) -> list[DiffPart]:
    return [part for part in (DiffPart("old", old), DiffPart("new", new)) if part.text]
