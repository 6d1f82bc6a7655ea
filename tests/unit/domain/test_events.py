"""Cursors: valid ones are parsed, anything else is None."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from broadcast.domain.events import Cursor, parse_cursor

_epochs = st.text("0123456789abcdefghijklmnopqrstuvwxyz", min_size=1, max_size=16)


@given(epoch=_epochs, seq=st.integers(0, 10**18 - 1))
def test_written_cursor_is_read_back(epoch, seq):
    assert parse_cursor(str(Cursor(epoch, seq))) == Cursor(epoch, seq)


@given(text=st.none() | st.text(st.characters()))
@example("a-1\n")
@example("a-" + "9" * 10_000)
@example("a-１")
def test_any_text_is_the_one_spelling_of_a_cursor_or_none(text):
    cursor = parse_cursor(text)
    assert cursor is None or str(cursor) == text


@pytest.mark.parametrize(
    "text",
    [None, "", "1", "-1", "a-", "a--1", "a-01", "a-1 ", " a-1", "A-1", "a-1-1", "a-1.0", "a-+1", "é-1", "a-" + "9" * 19,
     "a" * 17 + "-1", "a-1\n", "x" * 10_240, "\ud800-1", "a-1\0"],
)  # fmt: skip
def test_what_this_system_never_wrote_is_none(text):
    assert parse_cursor(text) is None
