"""Invitations: a link of one's own with which somebody who has no password yet chooses one.

The token is random, kept as a hash, good once and for some days, and only as long as the person has no password.
"""

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from broadcast.actions import audit, passwords
from broadcast.actions.users import check_password, hash_token, locked
from broadcast.base.cooperative import Breath
from broadcast.base.errors import Invalid, NotFound
from broadcast.domain.actor import Actor
from broadcast.domain.permissions import Permission
from broadcast.store import invitations
from broadcast.store.database import writing
from broadcast.store.models import User

MOST_AT_ONCE = 50_000  # as many as one import makes
_BATCH = 100  # people of one transaction: it holds SQLite's only write lock for some milliseconds
_VOID = "This link is no longer good. Ask whoever sent it to you for a new one."


@dataclass(frozen=True, slots=True)
class Invited:
    """Who is invited, and the token, which is shown this once."""

    user_id: int
    username: str
    name: str
    token: str
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class Guest:
    """Whom an invitation is for."""

    username: str
    name: str


def invite(user_ids: Sequence[int], *, valid_for: timedelta, by: Actor, now: datetime) -> list[Invited]:
    """Make an invitation for each of these people who has an open account and no password; earlier ones of theirs are void.

    Lets other greenlets run; a batch that is committed stays when a later one fails. Raises Forbidden, Invalid (nobody of
    them can be invited, or they are too many), Busy.
    """
    by.require(Permission.PEOPLE)
    ids = sorted(set(user_ids))
    if len(ids) > MOST_AT_ONCE:
        raise Invalid({"ids": f"At most {MOST_AT_ONCE:,} people are invited at once."})
    made: list[Invited] = []
    for start in range(0, len(ids), _BATCH):
        made += _invite_some(ids[start : start + _BATCH], now + valid_for, by, now)
    if not made:
        raise Invalid({"ids": "Nobody to invite: those who have a password sign in with it."})
    return made


def _invite_some(ids: Sequence[int], expires_at: datetime, by: Actor, now: datetime) -> list[Invited]:
    made, rows, breath = [], [], Breath()
    with writing() as session:
        for user in invitations.invitable(session, ids):
            token = secrets.token_urlsafe(32)
            made.append(Invited(user.id, user.username, user.name, token, expires_at))
            values = {"user_id": user.id, "token_hash": hash_token(token), "created_by": by.user_id}
            rows.append(values | {"created_at": now, "expires_at": expires_at})
            audit.record(session, by, "person.invited", "person", user.id, now=now, until=expires_at.isoformat())
        if rows:
            invitations.put(session, rows)
    breath.take()
    return made


def revoke(user_id: int, *, by: Actor, now: datetime) -> None:
    """Make a person's invitation void; there may be none. Raises Forbidden, NotFound, Busy."""
    by.require(Permission.PEOPLE)
    with writing() as session:
        user = locked(session, user_id)
        if invitations.take_away(session, [user.id]):
            audit.record(session, by, "person.invitation_revoked", "person", user.id, now=now)


def look_up(token: str, *, now: datetime) -> Guest:
    """Whom an invitation is for. Raises NotFound for one that is no longer good, whatever the reason."""
    user = _good(token, now)
    return Guest(user.username, user.name)


def accept(token: str, password: str, *, now: datetime) -> str:
    """Use an invitation up: its person gets this password. Return the username.

    Raises NotFound (no longer good), Invalid, Busy. Lets other greenlets run.
    """
    guest = look_up(token, now=now)
    check_password(password, username=guest.username, name=guest.name)
    password_hash = passwords.make_hash(password)
    with writing() as session:
        user = locked(session, _good(token, now).id)
        user = _good(token, now)  # nobody else can use it any more
        user.password_hash = password_hash
        invitations.take_away(session, [user.id])
        by = Actor(user.id, user.name)
        audit.record(session, by, "person.invitation_accepted", "person", user.id, now=now)
        return user.username


def _good(token: str, now: datetime) -> User:
    found = invitations.by_hash(hash_token(token))
    if found is None or found.invitation.expires_at <= now or found.user.disabled_at or found.user.password_hash:
        raise NotFound(_VOID)
    return found.user
