"""Hash and verify passwords; `password_rules` says which are allowed.

Argon2id with the OWASP parameters (m = 19 MiB, t = 2, p = 1). One verification takes tens of milliseconds of pure C,
which would block every stream of the worker, so it runs in the thread pool of gevent's hub.
"""

import gevent
from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerifyMismatchError

from broadcast.actions.password_rules import MAX_LENGTH, normalise

_hasher = PasswordHasher(time_cost=2, memory_cost=19 * 1024, parallelism=1)
# verified for unknown usernames, so that they take as long as known ones; the hash of no known password
_DUMMY_HASH = (
    f"$argon2id$v=19$m={_hasher.memory_cost},t={_hasher.time_cost},p={_hasher.parallelism}${'A' * 22}${'A' * 43}"
)


def hash_password(password: str) -> str:
    return gevent.get_hub().threadpool.apply(_hasher.hash, (normalise(password),))


def verify_password(password: str, password_hash: str | None) -> bool:
    """Whether the password matches. Takes the same time when there is no hash. Lets other greenlets run."""
    return gevent.get_hub().threadpool.apply(_verify_all_spellings, (password, password_hash or _DUMMY_HASH)) and bool(
        password_hash
    )


def _verify_all_spellings(password: str, password_hash: str) -> bool:
    """Verify the password normalised and as typed: older hashes are of the typed form, and stay valid while stored."""
    spellings = dict.fromkeys((normalise(password)[:MAX_LENGTH], password[:MAX_LENGTH]))
    results = [_matches_hash(way, password_hash) for way in spellings]  # all of them, for constant time
    return any(results)


def _matches_hash(password: str, password_hash: str) -> bool:
    try:
        return _hasher.verify(password_hash, password)
    except (VerifyMismatchError, InvalidHashError, UnicodeEncodeError):
        return False
