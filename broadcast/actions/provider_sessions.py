"""A session does not outlive what the organisation's provider said: what is ended there ends here (OpenID Connect Back-Channel
Logout 1.0), also for whoever was signing in just then.
"""

from datetime import datetime, timedelta

from sqlalchemy.exc import IntegrityError

from broadcast.actions import audit, notify
from broadcast.actions.users import append_sessions_ended, session_name
from broadcast.base.errors import Invalid
from broadcast.domain.actor import Actor
from broadcast.domain.external_identity import ProviderLogout
from broadcast.store import provider_sessions
from broadcast.store.database import writing

_REMEMBERED = timedelta(days=1)  # much longer than a notice is good, and than a sign-in takes
_KNOWN = "This logout token was used before."


def end(logout: ProviderLogout, *, now: datetime) -> int:
    """End the sessions that the provider says are over, and their streams; return how many. Raises Invalid for a notice that
    came before, Busy.
    """
    try:
        with writing() as session:
            if provider_sessions.is_known(session, logout):
                raise Invalid({"logout_token": _KNOWN})
            provider_sessions.remember(session, logout)
            provider_sessions.forget(session, before=now - _REMEMBERED)
            session.flush()
            ended = provider_sessions.concerned(session, logout)
            for row in ended:
                row.ended_at = now
                by = Actor(None, logout.by[:200])
                audit.record(session, by, "person.session_ended", "person", row.user_id, now=now, ended=row.id)
                append_sessions_ended(session, row.user_id, [session_name(row.id)], now)
    except IntegrityError:  # the same notice, twice at once
        raise Invalid({"logout_token": _KNOWN}) from None
    if ended:
        notify.ring()
    return len(ended)
