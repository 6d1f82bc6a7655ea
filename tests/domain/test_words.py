"""Words of a text: the same for what is stored and what is asked."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broadcast.domain.words import MOST, signs, words


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Lifts, STAND still.", ["lifts", "stand", "still"]),
        ("Ärger Straße café", ["arger", "strasse", "cafe"]),
        ("a_b 100% x-y", ["a", "b", "100", "x", "y"]),
        ("東京タワー", ["東", "京", "タ", "ワ", "ー"]),
        ("ｆｕｌｌ ﬁne", ["full", "fine"]),
        ("\0 \u202e '\" * : & | !", []),
        ("w" * 200, ["w" * 64]),
        ("", []),
    ],
)
def test_words_are_folded_letters_and_digits(text, found):
    assert words(text) == found


def test_noise_is_cut_short():
    assert len(words("x " * 9000)) == MOST


def test_signs_are_the_parts_that_words_do_not_tell():
    assert signs("100% of a_b plain") == ["100%", "a_b"]


@given(st.text(alphabet=st.characters(max_codepoint=127)))
def test_ascii_is_folded_as_every_other_text(text):
    assert words(text + " \u00e9") == [*words(text), "e"]
