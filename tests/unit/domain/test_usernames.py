"""Usernames as users type them."""

import pytest

from broadcast.domain.usernames import normalize_username


@pytest.mark.parametrize("typed", ["bob", " bob", "bob\t", "BOB", "\u3000Bob\u2003", "ｂｏｂ", " " * 1000 + "bob"])
def test_one_name_is_read_however_it_is_typed(typed):
    assert normalize_username(typed) == "bob"


def test_normalizing_is_done_once_and_for_all():
    for typed in ("ﬀ", "K", "ſ", "İ", "ß", "bob\u200b", "a" * 10_000):
        assert normalize_username(normalize_username(typed)) == normalize_username(typed)
