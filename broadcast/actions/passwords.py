"""Passwords: hash and verify them, and refuse new ones that are easy to guess.

Argon2id with the OWASP parameters (m = 19 MiB, t = 2, p = 1). One verification takes tens of milliseconds of pure C,
which would block every stream of the worker, so it runs in the thread pool of gevent's hub.

The rules for new ones (NIST SP 800-63B, section 5.1.1.2): long enough, and not among those attackers try first. Refused
are common passwords, also with digits appended; the user's own name; one character or one short text repeated; and runs
on the keyboard or in the alphabet. There are no composition rules: no digit or capital letter is required.
"""

import re
import unicodedata
from collections.abc import Iterable
from functools import cache
from pathlib import Path

import gevent
from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerifyMismatchError

from broadcast.base.errors import Invalid
from broadcast.config.settings import SETTINGS

_hasher = PasswordHasher(time_cost=2, memory_cost=19 * 1024, parallelism=1)
# verified for unknown usernames, so that they take as long as known ones; the hash of no known password
_DUMMY_HASH = (
    f"$argon2id$v=19$m={_hasher.memory_cost},t={_hasher.time_cost},p={_hasher.parallelism}${'A' * 22}${'A' * 43}"
)
MIN_LENGTH, MAX_LENGTH = 8, 200
MAX_TYPED_LENGTH = 1000  # characters considered before normalisation; one can become eighteen
_WORD_LIST_FILES = ("zxcvbn-4.5.0.txt", "more.txt")
_MIN_OWN_LETTERS = 4  # letters that must remain without the name
_SHORT_LENGTH = 12  # below this, a common word with digits and signs appended is refused too
_MAX_PERIOD_LENGTH = 7  # characters: repeating a text of up to this length counts as short
_MIN_DISTINCT_CHARACTERS = 4  # at least
_MIN_RUN_LENGTH = 3  # adjacent characters that make a run
_KEYBOARD_ROWS = (
    "01234567890", "qwertyuiop", "asdfghjkl", "zxcvbnm", "qwertzuiop", "yxcvbnm", "azertyuiop", "qsdfghjklm", "wxcvbn",
    "abcdefghijklmnopqrstuvwxyz", "1qaz2wsx3edc4rfv5tgb6yhn7ujm8ik9ol0p", "1q2w3e4r5t6y7u8i9o0p", "q1w2e3r4t5y6u7i8o9p0",
    "qazwsxedcrfvtgbyhnujmikolp",
)  # fmt: skip
_WORD_BEFORE_SUFFIX = re.compile(r"^(.*?[^\W\d_])[\W\d_]*$", re.DOTALL)


def _normalise(password: str) -> str:
    """Normalise a password, so that it matches however it was typed: ä is one character or two, by keyboard."""
    return unicodedata.normalize("NFKC", password[:MAX_TYPED_LENGTH])


def hash_password(password: str) -> str:
    return gevent.get_hub().threadpool.apply(_hasher.hash, (_normalise(password),))


def verify_password(password: str, password_hash: str | None) -> bool:
    """Whether the password matches. Takes the same time when there is no hash. Lets other greenlets run."""
    return gevent.get_hub().threadpool.apply(_verify_all_spellings, (password, password_hash or _DUMMY_HASH)) and bool(
        password_hash
    )


def _verify_all_spellings(password: str, password_hash: str) -> bool:
    """Verify the password normalised and as typed: older hashes are of the typed form, and stay valid while stored."""
    spellings = dict.fromkeys((_normalise(password)[:MAX_LENGTH], password[:MAX_LENGTH]))
    results = [_matches_hash(way, password_hash) for way in spellings]  # all of them, for constant time
    return any(results)


def _matches_hash(password: str, password_hash: str) -> bool:
    try:
        return _hasher.verify(password_hash, password)
    except (VerifyMismatchError, InvalidHashError, UnicodeEncodeError):
        return False


def check_password(password: str, *, username: str, name: str) -> None:
    """Raise Invalid when a new password is too easy to guess. `name` is that of the user."""
    text = _normalise(password)
    if len(password) > MAX_TYPED_LENGTH or not MIN_LENGTH <= len(text) <= MAX_LENGTH:
        raise Invalid({"password": f"Use a password of {MIN_LENGTH} to {MAX_LENGTH} characters."})
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise Invalid({"password": "This password contains an invalid character. Use another."})
    text = text.casefold()
    if _is_common(text):
        raise Invalid({"password": "This password is too common. Use another."})
    if _is_made_of_names(text, [username, name, SETTINGS.current.app_name]):
        raise Invalid({"password": "This password is based on your name, or on the name of this system. Use another."})
    if _is_repetition(text):
        raise Invalid({"password": "This password repeats the same few characters. Use another."})
    if _is_keyboard_run(text):
        raise Invalid({"password": "This password follows the order of the keyboard or the alphabet. Use another."})


def _is_common(text: str) -> bool:
    common_passwords = _load_common_passwords()
    word = _WORD_BEFORE_SUFFIX.match(text)
    return "".join(text.split()) in common_passwords or (
        len(text) < _SHORT_LENGTH and word is not None and word[1] in common_passwords
    )


@cache
def _load_common_passwords() -> frozenset[str]:
    folder = Path(__file__).with_name("common_passwords")
    return frozenset(word for name in _WORD_LIST_FILES for word in (folder / name).read_text().split())


def _is_made_of_names(text: str, names: Iterable[str]) -> bool:
    """Whether nearly every letter belongs to one of the names, forwards or backwards."""
    names = [_without_accents(name) for name in names]
    words = {word for name in names for word in (*re.split(r"[\W\d_]+", name), "".join(name.split())) if len(word) >= 3}
    text = remaining = _without_accents(text)
    for word in sorted(words, key=len, reverse=True):
        remaining = remaining.replace(word, " ").replace(word[::-1], " ")
    return remaining != text and sum(map(str.isalpha, remaining)) < _MIN_OWN_LETTERS


def _without_accents(text: str) -> str:
    letters = unicodedata.normalize("NFKD", text.casefold())
    return "".join(letter for letter in letters if not unicodedata.combining(letter))


def _is_repetition(text: str) -> bool:
    compact = "".join(text.split())
    period = (compact + compact).find(compact, 1) if compact else 0
    return len(set(compact)) < _MIN_DISTINCT_CHARACTERS or (period < len(compact) and period <= _MAX_PERIOD_LENGTH)


def _is_keyboard_run(text: str) -> bool:
    """Whether nearly every letter and digit belongs to a run of neighbours, in either direction, or of one sign."""
    rows, characters_outside_runs, index = [*_KEYBOARD_ROWS, *(row[::-1] for row in _KEYBOARD_ROWS)], 0, 0
    while index < len(text):
        run_length = max(
            *(_measure_run(text, index, row) for row in rows), len(text) - index - len(text[index:].lstrip(text[index]))
        )
        characters_outside_runs += text[index].isalnum() and run_length < _MIN_RUN_LENGTH
        index += run_length if run_length >= _MIN_RUN_LENGTH else 1
    return characters_outside_runs < _MIN_OWN_LETTERS


def _measure_run(text: str, index: int, row: str) -> int:
    row_index, length = row.find(text[index]), 0
    while (
        0 <= row_index + length < len(row)
        and index + length < len(text)
        and text[index + length] == row[row_index + length]
    ):
        length += 1
    return length if row_index >= 0 else 0
