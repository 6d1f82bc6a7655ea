"""Hashing and judging passwords.

Argon2id with the OWASP parameters (m = 19 MiB, t = 2, p = 1). One verification takes tens of milliseconds of pure C, which
would stop every stream of the worker, so it runs in the threads of gevent's hub.
"""

from pathlib import Path

import gevent
from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerifyMismatchError

from broadcast.errors import Invalid

_hasher = PasswordHasher(time_cost=2, memory_cost=19 * 1024, parallelism=1)
_COMMON = frozenset(Path(__file__).with_name("common_passwords.txt").read_text().split())
# verified for unknown names, so that they take as long as known ones; of no known password
_NOBODY = f"$argon2id$v=19$m={_hasher.memory_cost},t={_hasher.time_cost},p={_hasher.parallelism}${'A' * 22}${'A' * 43}"
LEAST, MOST = 8, 200


def check(password: str, *, username: str) -> None:
    """Raise Invalid when a new password is too easy to guess."""
    if not LEAST <= len(password) <= MOST:
        raise Invalid({"password": f"Use a password of {LEAST} to {MOST} characters."})
    if password.lower() in _COMMON or password.lower() == username.lower():
        raise Invalid({"password": "This password is one of the first that would be tried. Use another."})


def make_hash(password: str) -> str:
    return gevent.get_hub().threadpool.apply(_hasher.hash, (password,))


def matches(password: str, password_hash: str | None) -> bool:
    """True if they go together. Takes the same time when there is no hash. Lets other greenlets run."""
    return gevent.get_hub().threadpool.apply(_verify, (password[:MOST], password_hash or _NOBODY)) and bool(
        password_hash
    )


def _verify(password: str, password_hash: str) -> bool:
    try:
        return _hasher.verify(password_hash, password)
    except (VerifyMismatchError, InvalidHashError):
        return False
