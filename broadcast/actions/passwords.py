"""Hashing passwords, and comparing them; `password_rules` says which may be used.

Argon2id with the OWASP parameters (m = 19 MiB, t = 2, p = 1). One verification takes tens of milliseconds of pure C, which
would stop every stream of the worker, so it runs in the threads of gevent's hub.
"""

import gevent
from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerifyMismatchError

from broadcast.actions.password_rules import MOST, normalise

_hasher = PasswordHasher(time_cost=2, memory_cost=19 * 1024, parallelism=1)
# verified for unknown names, so that they take as long as known ones; of no known password
_NOBODY = f"$argon2id$v=19$m={_hasher.memory_cost},t={_hasher.time_cost},p={_hasher.parallelism}${'A' * 22}${'A' * 43}"


def make_hash(password: str) -> str:
    return gevent.get_hub().threadpool.apply(_hasher.hash, (normalise(password),))


def matches(password: str, password_hash: str | None) -> bool:
    """True if they go together. Takes the same time when there is no hash. Lets other greenlets run."""
    return gevent.get_hub().threadpool.apply(_verify, (password, password_hash or _NOBODY)) and bool(password_hash)


def _verify(password: str, password_hash: str) -> bool:
    """As it is normalised, and as it was typed: so it was hashed once, and such passwords are good as long as they are kept."""
    ways = dict.fromkeys((normalise(password)[:MOST], password[:MOST]))
    answers = [_is_hash_of(way, password_hash) for way in ways]  # of all, so that it takes the same time
    return any(answers)


def _is_hash_of(password: str, password_hash: str) -> bool:
    try:
        return _hasher.verify(password_hash, password)
    except (VerifyMismatchError, InvalidHashError, UnicodeEncodeError):
        return False
