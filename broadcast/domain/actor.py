"""Who performs an action. Built from a session, a token or the command line, never from what a request claims."""

from dataclasses import dataclass
from datetime import datetime

from broadcast.base.errors import Forbidden
from broadcast.domain.audience import Viewer
from broadcast.domain.permissions import Permission


@dataclass(frozen=True, slots=True)
class Actor:
    """A user, a program, or the system itself (`user_id` None).

    `may_administer` gives every permission, `permissions` gives some; both already account for a token's scopes.
    `may_ingest_events` is the scope `events`: sending inbound events. `signed_in_at` is the start of a user's session;
    None for a program, which is never asked to confirm (`domain.confirmation`).
    """

    user_id: int | None
    name: str
    roles: frozenset[str] = frozenset()
    may_administer: bool = False
    may_ingest_events: bool = False
    permissions: frozenset[Permission] = frozenset()
    signed_in_at: datetime | None = None

    @property
    def viewer(self) -> Viewer:
        assert self.user_id is not None, "the system has no inbox"
        return Viewer(self.user_id, self.roles)

    def may(self, permission: Permission) -> bool:
        return self.may_administer or permission in self.permissions

    def require(self, permission: Permission) -> None:
        """Raises Forbidden unless this actor has the permission."""
        if not self.may(permission):
            raise Forbidden()


SYSTEM = Actor(None, "system", may_administer=True)
