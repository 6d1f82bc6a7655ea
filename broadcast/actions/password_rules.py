"""What a new password may be (NIST SP 800-63B, section 5.1.1.2): long enough, and none of those that are tried first.

Those are the ones that others use, with some digits behind them too; the person's own name; one sign or one short text again
and again; and what lies side by side on a keyboard or in the alphabet. Nothing else is asked for: no digit, no capital letter.
"""

import re
import unicodedata
from collections.abc import Iterable
from functools import cache
from pathlib import Path

from broadcast.base.errors import Invalid

LEAST, MOST = 8, 200
MOST_TYPED = 1000  # characters that are looked at before they are normalised; one can become eighteen
_LISTS = ("zxcvbn-4.5.0.txt", "more.txt")
_OWN_WORDS = 4  # letters that must be left when the name is taken out
_SHORT = 12  # below this a common word is one still with digits and signs behind it
_REPEATED = 7  # characters: a text of up to so many, again and again, is a short one
_DIFFERENT = 4  # characters, at least
_RUN = 3  # neighbours that make a run
_NEIGHBOURS = (
    "01234567890",
    "qwertyuiop",
    "asdfghjkl",
    "zxcvbnm",
    "qwertzuiop",
    "yxcvbnm",
    "azertyuiop",
    "qsdfghjklm",
    "wxcvbn",
    "abcdefghijklmnopqrstuvwxyz",
    "1qaz2wsx3edc4rfv5tgb6yhn7ujm8ik9ol0p",
    "1q2w3e4r5t6y7u8i9o0p",
    "q1w2e3r4t5y6u7i8o9p0",
    "qazwsxedcrfvtgbyhnujmikolp",
)
_BEFORE_SIGNS = re.compile(r"^(.*?[^\W\d_])[\W\d_]*$", re.DOTALL)


def normalise(password: str) -> str:
    """The same for the same password, however it was typed: ä is one character or two, depending on the keyboard."""
    return unicodedata.normalize("NFKC", password[:MOST_TYPED])


def check(password: str, *, username: str, names: Iterable[str] = ()) -> None:
    """Raise Invalid when a new password is too easy to guess. `names`: of the person, and of this system."""
    text = normalise(password)
    if len(password) > MOST_TYPED or not LEAST <= len(text) <= MOST:
        raise Invalid({"password": f"Use a password of {LEAST} to {MOST} characters."})
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise Invalid({"password": "This password has a character that is none. Use another."})
    text = text.casefold()
    if _is_common(text):
        raise Invalid({"password": "This password is one of the first that would be tried. Use another."})
    if _is_made_of(text, [username, *names]):
        raise Invalid({"password": "This password is made of a name that others know. Use another."})
    if _repeats(text):
        raise Invalid({"password": "This password is the same few characters again and again. Use another."})
    if _follows_a_row(text):
        raise Invalid({"password": "This password follows a row of the keyboard or the alphabet. Use another."})


def _is_common(text: str) -> bool:
    known = _common()
    word = _BEFORE_SIGNS.match(text)
    return "".join(text.split()) in known or (len(text) < _SHORT and word is not None and word[1] in known)


@cache
def _common() -> frozenset[str]:
    folder = Path(__file__).with_name("common_passwords")
    return frozenset(word for name in _LISTS for word in (folder / name).read_text().split())


def _is_made_of(text: str, names: Iterable[str]) -> bool:
    """Whether there is hardly a letter that is not of a name, forwards or backwards."""
    names = [_without_accents(name) for name in names]
    words = {word for name in names for word in (*re.split(r"[\W\d_]+", name), "".join(name.split())) if len(word) >= 3}
    text = left = _without_accents(text)
    for word in sorted(words, key=len, reverse=True):
        left = left.replace(word, " ").replace(word[::-1], " ")
    return left != text and sum(map(str.isalpha, left)) < _OWN_WORDS


def _without_accents(text: str) -> str:
    letters = unicodedata.normalize("NFKD", text.casefold())
    return "".join(letter for letter in letters if not unicodedata.combining(letter))


def _repeats(text: str) -> bool:
    seen = "".join(text.split())
    period = (seen + seen).find(seen, 1) if seen else 0
    return len(set(seen)) < _DIFFERENT or (period < len(seen) and period <= _REPEATED)


def _follows_a_row(text: str) -> bool:
    """Whether nearly every letter and digit belongs to a run of neighbours, in either direction, or of the same sign."""
    rows, left, at = [*_NEIGHBOURS, *(row[::-1] for row in _NEIGHBOURS)], 0, 0
    while at < len(text):
        run = max(*(_run_length(text, at, row) for row in rows), len(text) - at - len(text[at:].lstrip(text[at])))
        left += text[at].isalnum() and run < _RUN
        at += run if run >= _RUN else 1
    return left < _OWN_WORDS


def _run_length(text: str, at: int, row: str) -> int:
    place, length = row.find(text[at]), 0
    while 0 <= place + length < len(row) and at + length < len(text) and text[at + length] == row[place + length]:
        length += 1
    return length if place >= 0 else 0
