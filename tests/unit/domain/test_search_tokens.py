"""Search tokens: the same for stored text and queries."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broadcast.domain.search_tokens import MAX_TOKENS, extract_literals, tokenize


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
    assert tokenize(text) == found


def test_noise_is_cut_short():
    assert len(tokenize("x " * 9000)) == MAX_TOKENS


def test_signs_are_the_parts_that_words_do_not_tell():
    assert extract_literals("100% of a_b plain") == ["100%", "a_b"]


@given(st.text(alphabet=st.characters(max_codepoint=127)))
def test_ascii_is_folded_as_every_other_text(text):
    assert tokenize(text + " \u00e9") == [*tokenize(text), "e"]


@given(st.text(max_size=600) | st.text(alphabet="a\u0301\u0316\u0334\ufdfaé한", max_size=900))
def test_text_unfolded_in_parts_is_the_whole_unfolded(text):
    folded = unicodedata.normalize("NFKD", text.casefold())
    bare = "".join(character for character in folded if not unicodedata.combining(character))
    assert tokenize(text) == tokenize(bare)


def test_thousands_of_marks_in_a_row_are_not_sorted_together(monkeypatch):
    """Sorting them takes the square of their number, in one call that no other greenlet can interrupt."""
    sizes = []
    normalize = unicodedata.normalize
    monkeypatch.setattr(unicodedata, "normalize", lambda form, text: sizes.append(len(text)) or normalize(form, text))
    assert tokenize("a" + "\u0301\u0316" * 4000 + "b") == ["ab"]
    assert max(sizes) <= 256


def test_capital_letter_of_a_formula_is_a_letter_like_any_other():
    assert tokenize("\U0001d400 \u2102") == tokenize("a c")
