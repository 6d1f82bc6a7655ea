"""Text diffs: correct for any two texts, with a bounded number of comparisons per page."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broadcast.web.core import text_diff
from broadcast.web.core.text_diff import DiffPart, compare
from tests.support.pathological_texts import MAX_TEXT_BYTES, count_lines, pathological_texts

MOST_LINES_AT_ONCE = 450_000  # of Python, some 20 ms

_few = st.lists(st.sampled_from(["a", "b", "c d", " ", "\n", "word ", "e\n"]), max_size=40).map("".join)


@given(_few, _few)
def test_parts_make_both_texts(old, new):
    parts = compare(old, new).parts
    assert "".join(part.text for part in parts if part.kind != "new") == old
    assert "".join(part.text for part in parts if part.kind != "old") == new
    assert all(part.text for part in parts)


@pytest.mark.parametrize(
    ("old", "new", "parts"),
    [
        ("First", "Second", [DiffPart("old", "First"), DiffPart("new", "Second")]),
        ("one two three", "one 2 three", [DiffPart("same", "one "), DiffPart("old", "two"), DiffPart("new", "2"),
        DiffPart("same", " three")]),
        ("a b", "c d", [DiffPart("old", "a b"), DiffPart("new", "c d")]),
        ("a\nb\nc\n", "a\nc\n", [DiffPart("same", "a\n"), DiffPart("old", "b\n"), DiffPart("same", "c\n")]),
        ("", "new", [DiffPart("new", "new")]),
        ("same", "same", [DiffPart("same", "same")]),
    ],
)  # fmt: skip
def test_words_are_told_apart(old, new, parts):
    assert compare(old, new) == (parts, False)


def test_long_text_with_many_changed_words_is_shown_word_by_word():
    old = [f"word{n}" for n in range(2000)]
    new = [f"{word}!" if n % 25 == 0 else word for n, word in enumerate(old)]
    parts, is_coarse = compare(" ".join(old), " ".join(new))
    assert not is_coarse
    assert sum(part.kind == "new" for part in parts) == 80


def test_texts_without_anything_in_common_are_shown_whole():
    old, new = (" ".join(f"{name}{n}" for n in range(2000)) for name in "ab")
    assert compare(old, new) == ([DiffPart("old", old), DiffPart("new", new)], True)


def test_pasted_lists_are_not_compared():
    old, new = "\n".join(map(str, range(50_000))), "\n".join(map(str, range(1, 50_000)))
    assert compare(old, new).is_coarse


SLOW = {
    "one letter lines": ("a\n" * 8000, "b\na\n" * 4000),
    "words in turn": ("a b " * 4000, "b a " * 4000),
    "half of it": ("a " * 8000, "a " * 4000 + "b " * 4000),
    "backwards": (" ".join(map(str, range(3000))), " ".join(map(str, range(2999, -1, -1)))),
    "two letters": (
        " ".join("ab"[n * n % 7 % 2] for n in range(8000)),
        " ".join("ab"[n * n % 5 % 2] for n in range(8000)),
    ),
    "spaces": (" x" * 8000, "\u3000x" * 5000),
}


@pytest.mark.parametrize("name", SLOW)
def test_slow_pair_ends_within_its_comparisons(name):
    old, new = (text[:MAX_TEXT_BYTES] for text in SLOW[name])
    assert count_lines(lambda: compare(old, new)).total <= MOST_LINES_AT_ONCE


@settings(max_examples=30)
@given(pathological_texts, pathological_texts)
def test_any_pair_ends_within_its_comparisons(old, new):
    assert count_lines(lambda: text_diff.compare(old, new)).total <= MOST_LINES_AT_ONCE
