"""Which streams a control event of the log affects."""

from broadcast.domain.events import ALL_SESSIONS, Event, EventType


def invalidates_identity(event: Event, user_id: int, session: str) -> bool:
    """Whether this event may outdate what was read about this user or session before it."""
    if event.type in (EventType.ROLE_CHANGED, EventType.UNKNOWN):
        return True
    if event.type not in (EventType.VIEWER_CHANGED, EventType.SESSION_ENDED) or user_id not in event.audience.ids:
        return False
    return event.type is EventType.VIEWER_CHANGED or matches_session(session, event.payload["session"])


def ends_stream(event: Event, session_names: str) -> bool:
    """Whether a change of a user or session closes this stream of that user."""
    if event.type is EventType.VIEWER_CHANGED:
        return event.payload["disabled"]
    return matches_session(session_names, event.payload["session"])


def matches_session(session_names: str, ended_session: str) -> bool:
    """Whether the session or token that ended is one of a stream's."""
    return ended_session == ALL_SESSIONS or ended_session in session_names.split()
