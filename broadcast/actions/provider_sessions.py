"""End sessions that the identity provider has ended, also of users just signing in.

Implements OpenID Connect Back-Channel Logout 1.0.
"""

from datetime import datetime, timedelta

from sqlalchemy.exc import IntegrityError

from broadcast.actions import notify
from broadcast.actions.sessions import end_row
from broadcast.base.errors import Invalid
from broadcast.domain.actor import Actor
from broadcast.domain.external_identity import ProviderLogout
from broadcast.store import provider_sessions
from broadcast.store.transactions import write_transaction

_LOGOUT_TOKEN_RETENTION = timedelta(days=1)  # much longer than a logout token is valid, or a sign-in takes
_LOGOUT_TOKEN_REUSED = "This logout token has already been used."


def end_sessions(logout: ProviderLogout, *, now: datetime) -> int:
    """End the sessions named by the provider, and their streams; return how many.

    Raises Invalid for a repeated logout token.
    """
    by = Actor(None, logout.issuer[:200])
    try:
        with write_transaction() as session:
            if provider_sessions.is_known_logout(session, logout):
                raise Invalid({"logout_token": _LOGOUT_TOKEN_REUSED})
            provider_sessions.save_logout(session, logout)
            provider_sessions.delete_expired(session, before=now - _LOGOUT_TOKEN_RETENTION)
            session.flush()
            ended_sessions = provider_sessions.list_affected_sessions(session, logout)
            for row in ended_sessions:
                end_row(session, row, "person.session_ended", by=by, now=now, ended=row.id)
    except IntegrityError:  # the same logout token, twice at once
        raise Invalid({"logout_token": _LOGOUT_TOKEN_REUSED}) from None
    if ended_sessions:
        notify.notify_workers()
    return len(ended_sessions)
