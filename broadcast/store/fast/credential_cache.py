"""The sessions and tokens that opened streams in this worker, so that their next stream asks no database.

What could make one untrue is an event of the log (roles, disabled, session ended, token revoked), which every worker
gets in order; the hub passes it to `apply` as it delivers it. So a remembered credential is as true as this worker's
streams, and `streams.opening` accepts it only when the log has nothing that the hub has not delivered yet. Idle time and
age are compared with the clock by the caller.
"""

from collections.abc import Callable
from typing import TypeVar

from broadcast.base.app_parts import AppPart
from broadcast.domain import clock
from broadcast.domain.events import Event, EventType
from broadcast.store import credentials
from broadcast.store.credentials import Credential
from broadcast.store.fast.last_used_buffer import is_use_noteworthy

MAX_CREDENTIALS = 10_000  # about 1.6 KB each, with all that Python keeps for one; the oldest makes room
K = TypeVar("K", str, int)


class CredentialCache:
    """Answers as `store.credentials` does, from memory where it can."""

    def __init__(self, *, max_credentials: int = MAX_CREDENTIALS):
        self._max_credentials = max_credentials
        self._credentials: dict[str, Credential] = {}
        self._keys_by_user: dict[int, tuple[str, ...]] = {}
        self._change_count = 0  # so that what was read before a change is not remembered after it

    def __len__(self) -> int:
        return len(self._credentials)

    def find_by_session_token(self, token_hash: str) -> Credential | None:
        return self._find("session", token_hash, credentials.find_by_session_token)

    def find_by_embedded_session(self, session_id: int) -> Credential | None:
        return self._find("embedded", session_id, credentials.find_by_embedded_session)

    def find_by_api_token(self, token_hash: str) -> Credential | None:
        return self._find("token", token_hash, credentials.find_by_api_token)

    def apply(self, event: Event) -> None:
        """Forget what this control event of the log may have changed."""
        if event.type not in (EventType.VIEWER_CHANGED, EventType.SESSION_ENDED):
            self.clear()
            return
        self._change_count += 1
        for user_id in event.audience.ids:
            for key in self._keys_by_user.pop(user_id, ()):
                del self._credentials[key]

    def clear(self) -> None:
        self._change_count += 1
        self._credentials.clear()
        self._keys_by_user.clear()

    def _find(self, kind: str, value: K, read: Callable[[K], Credential | None]) -> Credential | None:
        key = f"{kind} {value}"
        credential = self._credentials.get(key)
        if credential is not None and not is_use_noteworthy(credential.used_at, clock.now()):
            return credential
        count_before = self._change_count
        credential = read(value)
        self._forget(key)
        is_valid = credential is not None and credential.ended_at is None and credential.disabled_at is None
        if is_valid and count_before == self._change_count:
            self._remember(key, credential)
        return credential

    def _remember(self, key: str, credential: Credential) -> None:
        if len(self._credentials) >= self._max_credentials:
            self._forget(next(iter(self._credentials)))
        self._credentials[key] = credential
        self._keys_by_user[credential.user_id] = (*self._keys_by_user.get(credential.user_id, ()), key)

    def _forget(self, key: str) -> None:
        if credential := self._credentials.pop(key, None):
            others = tuple(other for other in self._keys_by_user.pop(credential.user_id) if other != key)
            if others:
                self._keys_by_user[credential.user_id] = others


CREDENTIAL_CACHE = AppPart[CredentialCache]("credential_cache")
