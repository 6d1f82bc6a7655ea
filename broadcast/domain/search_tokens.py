"""The words of a text for search: the same for stored texts, queries, and both databases.

Case, accents and width do not matter ("Ärger" is found by "arger"). In scripts written without spaces each character is
a word, so that a part of a sentence is found.
"""

import re
import unicodedata
from collections.abc import Iterable

MAX_TOKENS = 4000  # per text; a message of 16 KiB has fewer unless it is noise
_MAX_TOKEN_CHARACTERS = 64  # of a word; the rest is ignored, as nobody searches for a word of 16 KiB
# Characters normalized at once: combining marks in a row are sorted in quadratic time. A batch may begin with marks
# that belong to the one before; that is harmless, as all marks are removed.
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
    """The words at full length, at most MAX_TOKENS."""
    if text.isascii():  # nothing to normalize, and far quicker: thousands of inbound events may come per second
        return text.translate(_ASCII_FOLDING).split()[:MAX_TOKENS]
    folded = text.casefold()
    parts = (folded[start : start + _BATCH_CHARACTERS] for start in range(0, len(folded), _BATCH_CHARACTERS))
    # fold again: NFKD can turn a caseless symbol, as in formulas, into a capital letter
    unfolded = (unicodedata.normalize("NFKD", part).casefold() for part in parts)
    without_marks = "".join(sign for part in unfolded for sign in part if not unicodedata.combining(sign))
    return _TOKEN.findall(_UNSPACED_CHARACTER.sub(r" \1 ", without_marks))[:MAX_TOKENS]


def extract_literals(text: str) -> list[str]:
    """The space-separated parts of `text` that are not only words ("100%", "a_b"); they are searched as typed."""
    return [part for part in text.split() if re.search(r"[\W_]", part)]
