"""Who acts. Built from a session, a token or the command line; never from what a request says about itself."""

from dataclasses import dataclass
from datetime import datetime

from broadcast.base.errors import Forbidden
from broadcast.domain.audience import Viewer
from broadcast.domain.permissions import Permission


@dataclass(frozen=True, slots=True)
class Actor:
    """A person, a program, or the system itself (`user_id` None).

    `may_administer` gives every permission, `permissions` gives some; both already account for a token's scopes.
    `may_ingest_events` is the scope `events`: to send what happens outside. `signed_in_at` is when the session began by which a
    person acts; None for a program, whom nothing is asked (`domain.pop_confirmation`).
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

    def require_event_ingestion(self) -> None:
        """Raises Forbidden unless this actor may hand in events from outside."""
        if not self.may_ingest_events:
            raise Forbidden()


SYSTEM = Actor(None, "system", may_administer=True)
