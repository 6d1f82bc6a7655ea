"""Sessions: sign in, sign out, and end sessions with their streams.

The end of a session is an event of the log, not a signal of the bus: open streams must follow it even while Redis is
away.
"""

import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy.orm import Session

from broadcast.actions import notify, passwords
from broadcast.actions.tokens import hash_token
from broadcast.actions.users import get_user_for_update
from broadcast.base.errors import Forbidden, Invalid, NotFound, SignInRefused
from broadcast.config.settings import SETTINGS
from broadcast.domain.actor import Actor
from broadcast.domain.audience import make_user_audience
from broadcast.domain.events import ALL_SESSIONS, EventType
from broadcast.domain.permissions import Permission
from broadcast.store import audit, log
from broadcast.store import users as people
from broadcast.store.database import ROW_LOCK
from broadcast.store.models import ApiToken, User, UserSession
from broadcast.store.transactions import write_transaction

RECENT_SIGN_IN = timedelta(minutes=10)  # lets users without a password here confirm something


@dataclass(frozen=True, slots=True)
class SignInClient:
    """The browser that signs in. `replaced_token` is the token of its previous session, which ends."""

    address: str | None = None
    user_agent: str | None = None
    replaced_token: str | None = None


def sign_in(
    username: str, password: str, *, client: SignInClient, now: datetime, is_admin_only: bool = False
) -> tuple[str, int]:
    """Check a password and start a session; return its token and the user id. Raises SignInRefused.

    Unknown names, disabled accounts, wrong passwords, and (with `is_admin_only`) users who are not administrators get
    the same answer after the same time.
    """
    user = people.get_by_username(username)
    password_hash = user.password_hash if user and not user.disabled_at else None
    if not passwords.verify_password(password, password_hash):
        raise SignInRefused()
    user_id = user.id
    with write_transaction() as session:
        user = get_user_for_update(session, user_id)
        # check again what changed during verification: somebody else may know the old password
        if user.password_hash != password_hash or user.disabled_at or (is_admin_only and not user.is_admin):
            raise SignInRefused()
        has_ended_session = end_replaced_session(session, client, now)
        token = begin_session(session, user, client, now)
    if has_ended_session:
        notify.notify_workers()
    return token, user_id


def begin_session(
    session: Session,
    user: User,
    client: SignInClient,
    now: datetime,
    *,
    issuer: str | None = None,
    provider_session: str | None = None,
    **detail: str,
) -> str:
    """Create a session in this transaction; return its token, which is stored nowhere. `detail` goes into the audit.
    `issuer` is the provider that authenticated it, and may end it.
    """
    values = {"address": client.address, "agent": client.user_agent and client.user_agent[:200]}
    _, token = _add_row(session, user, now, **values, issuer=issuer, provider_session=provider_session)
    by = Actor(user.id, user.name)
    audit.record(session, by, "person.signed_in", "person", user.id, now=now, address=client.address, **detail)
    return token


def _add_row(session: Session, user: User, now: datetime, **values: Any) -> tuple[UserSession, str]:
    """A new session in this transaction, and its token."""
    token = secrets.token_urlsafe(32)
    user.first_sign_in_at = user.first_sign_in_at or now
    row = UserSession(token_hash=hash_token(token), user_id=user.id, created_at=now, seen_at=now, **values)
    session.add(row)
    return row, token


def end_replaced_session(session: Session, client: SignInClient, now: datetime) -> bool:
    """End the previous session of this browser: the old cookie may be copied. False when there is no open one."""
    row = client.replaced_token and people.get_open_session(session, hash_token(client.replaced_token))
    if not row:
        return False
    user = session.get(User, row.user_id)
    end_row(session, row, "person.signed_out", by=Actor(user.id, user.name), now=now)
    return True


def begin_embedded_session(username: str, *, origin: str, token_id: int, now: datetime) -> tuple[int, datetime]:
    """The id of the user's open session in another site's pages (`origin`), or of a new one, and its latest end.

    No cookie opens it. It is a session and not only a signature, so that whatever ends sessions ends it too. `token_id`
    is the token of the pages' server. Raises Forbidden when that may no longer do this, Invalid.
    """
    # a name that is merely compatible (Unicode) may be another user's name at the site
    user = people.get_by_username(username) if username.isascii() else None
    if user is None or user.disabled_at:
        raise Invalid({"username": "There is no user with this username, or the account is disabled."})
    return _find_embedded_session(user.id, origin, token_id, now) or _create_embedded_session(
        user.id, origin, token_id, now
    )


def _find_embedded_session(user_id: int, origin: str, token_id: int, now: datetime) -> tuple[int, datetime] | None:
    row = people.get_embedded_session(user_id, origin=origin, token_id=token_id)
    if row is None or now - row.seen_at > timedelta(hours=SETTINGS.current.session_idle_hours):
        return None
    ends_at = row.created_at + timedelta(hours=SETTINGS.current.session_max_hours)
    return (row.id, ends_at) if now < ends_at else None


def _create_embedded_session(user_id: int, origin: str, token_id: int, now: datetime) -> tuple[int, datetime]:
    with write_transaction() as session:
        token = session.get(ApiToken, token_id, with_for_update=ROW_LOCK, populate_existing=True)
        if token is None or token.revoked_at or "embed" not in token.scopes.split():
            raise Forbidden()
        user = session.get(User, user_id, with_for_update=ROW_LOCK | {"of": User}, populate_existing=True)
        if user.disabled_at:
            raise Invalid({"username": "The account is disabled."})
        if open_session := _find_embedded_session(user_id, origin, token_id, now):  # another tab of the user was faster
            return open_session
        row, _ = _add_row(session, user, now, agent=f"Inbox in {origin}", origin=origin, token_id=token_id)
        session.flush()
        by = Actor(user.id, user.name)
        audit.record(session, by, "person.embedded", "person", user.id, now=now, origin=origin, site=token.label)
        return row.id, now + timedelta(hours=SETTINGS.current.session_max_hours)


def sign_out(session_id: int, *, by: Actor, now: datetime) -> None:
    """End one session and its streams; idempotent."""
    with write_transaction() as session:
        row = session.get(UserSession, session_id)
        if row is None or row.user_id != by.user_id or row.ended_at:
            return
        end_row(session, row, "person.signed_out", by=by, now=now)
    notify.notify_workers()


def end_session(session_id: int, *, by: Actor, now: datetime) -> None:
    """End one session of a user and its streams; idempotent. Raises NotFound."""
    with write_transaction() as session:
        row = session.get(UserSession, session_id)
        if row is None or (row.user_id != by.user_id and not by.may(Permission.PEOPLE)):
            raise NotFound("There is no such session.")
        if row.ended_at:
            return
        end_row(session, row, "person.session_ended", by=by, now=now, ended=row.id)
    notify.notify_workers()


def end_sessions(user_id: int, *, by: Actor, now: datetime, kept_session_id: int | None = None) -> None:
    """Sign a user out everywhere and close their streams on every worker. Users may do that to themselves.

    `kept_session_id` is a session to keep; without it the streams of tokens end too (a program reconnects, as its token
    stays valid). Raises NotFound.
    """
    if by.user_id != user_id:
        by.require(Permission.PEOPLE)
    with write_transaction() as session:
        user = get_user_for_update(session, user_id)
        ended_ids = people.end_sessions(session, [user.id], at=now, kept_session_id=kept_session_id)
        audit.record(session, by, "person.sessions_ended", "person", user.id, now=now, sessions=len(ended_ids))
        append_session_ended_events(
            session, user.id, [ALL_SESSIONS] if kept_session_id is None else map(format_session_key, ended_ids), now
        )
    notify.notify_workers()


def end_row(session: Session, row: UserSession, action: str, *, by: Actor, now: datetime, **detail: Any) -> None:
    """End one session and its streams in this transaction; `action` and `detail` go into the audit."""
    row.ended_at = now
    audit.record(session, by, action, "person", row.user_id, now=now, **detail)
    append_session_ended_events(session, row.user_id, [format_session_key(row.id)], now)


def append_session_ended_events(session: Session, user_id: int, session_keys: Iterable[str], now: datetime) -> None:
    """Append the events that make every worker close the streams of these sessions."""
    audience = make_user_audience([user_id])
    session.flush()
    entries = [log.NewEvent(EventType.SESSION_ENDED, None, audience, {"session": name}) for name in session_keys]
    log.append(session, entries, at=now)


def format_session_key(session_id: int) -> str:
    """The key of a session in the hub and in the log."""
    return f"session:{session_id}"
