"""The words of a text as search knows them: the same for what is stored, what is asked, and both databases.

Case, accents and width do not matter ("Ärger" is found by "arger"). Scripts written without spaces give one word for each
character, so that a part of a sentence finds it.
"""

import re
import unicodedata
from collections.abc import Iterable

MAX_TOKENS = 4000  # words of one text; a message of 16 KiB has fewer unless it is noise
_MAX_TOKEN_CHARACTERS = 64  # characters of a word that count: a word of 16 KiB is not looked up
# Characters unfolded at once. Marks in a row are sorted, which takes the square of their number. That a part may begin with
# marks of the one before does not matter, as they are all left away.
_BATCH_CHARACTERS = 256
_TOKEN = re.compile(r"[^\W_]+")
_ASCII_FOLDING = {code: chr(code).lower() if chr(code).isalnum() else " " for code in range(128)}
_UNSPACED_CHARACTER = re.compile(
    r"([\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\U00020000-\U0003ffff])"
)


def tokenize(text: str) -> list[str]:
    """The folded words of `text`, in order, letters and digits only."""
    return [word[:_MAX_TOKEN_CHARACTERS] for word in _split_tokens(text)]


def tokenize_distinct(text: str) -> Iterable[str]:
    """The same words, each once."""
    return dict.fromkeys(word[:_MAX_TOKEN_CHARACTERS] for word in dict.fromkeys(_split_tokens(text)))


def _split_tokens(text: str) -> list[str]:
    """The words of any length, at most MOST."""
    if text.isascii():  # nothing to unfold, and far quicker: thousands of messages a second may come from outside
        return text.translate(_ASCII_FOLDING).split()[:MAX_TOKENS]
    folded = text.casefold()
    parts = (folded[start : start + _BATCH_CHARACTERS] for start in range(0, len(folded), _BATCH_CHARACTERS))
    # once more: a sign that has no case, as those of formulas, may be unfolded into a capital letter
    unfolded = (unicodedata.normalize("NFKD", part).casefold() for part in parts)
    without_marks = "".join(sign for part in unfolded for sign in part if not unicodedata.combining(sign))
    return _TOKEN.findall(_UNSPACED_CHARACTER.sub(r" \1 ", without_marks))[:MAX_TOKENS]


def extract_literals(text: str) -> list[str]:
    """The space-separated parts of `text` that are not words alone ("100%", "a_b"): they are looked for as typed."""
    return [part for part in text.split() if re.search(r"[\W_]", part)]
