"""Invitations: a link of one's own with which somebody who has no password yet chooses one.

The token is random, kept as a hash, good once and for some days, and only as long as the person has no password.
"""

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from broadcast.actions import audit, passwords
from broadcast.actions.users import check_password, get_user_for_update, hash_token
from broadcast.base.cooperative import Yielder
from broadcast.base.errors import Invalid, NotFound
from broadcast.domain.actor import Actor
from broadcast.domain.permissions import Permission
from broadcast.store import invitations
from broadcast.store.database import write_transaction
from broadcast.store.models import User

MAX_INVITATIONS = 50_000  # as many as one import makes
_BATCH_SIZE = 100  # people of one transaction: it holds SQLite's only write lock for some milliseconds
_LINK_INVALID = "This link is no longer valid. Ask the person who sent it for a new one."


@dataclass(frozen=True, slots=True)
class IssuedInvitation:
    """Who is invited, and the token, which is shown this once."""

    user_id: int
    username: str
    name: str
    token: str
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class Invitee:
    """Whom an invitation is for."""

    username: str
    name: str


def invite_users(user_ids: Sequence[int], *, valid_for: timedelta, by: Actor, now: datetime) -> list[IssuedInvitation]:
    """Make an invitation for each of these people who has an open account and no password; earlier ones of theirs are void.

    Lets other greenlets run; a batch that is committed stays when a later one fails. Raises Forbidden, Invalid (nobody of
    them can be invited, or they are too many), TemporarilyUnavailable.
    """
    by.require(Permission.PEOPLE)
    ids = sorted(set(user_ids))
    if len(ids) > MAX_INVITATIONS:
        raise Invalid({"ids": f"At most {MAX_INVITATIONS:,} users can be invited at once."})
    issued: list[IssuedInvitation] = []
    for start in range(0, len(ids), _BATCH_SIZE):
        issued += _invite_batch(ids[start : start + _BATCH_SIZE], now + valid_for, by, now)
    if not issued:
        raise Invalid({"ids": "Nobody to invite: these users already have a password."})
    return issued


def _invite_batch(ids: Sequence[int], expires_at: datetime, by: Actor, now: datetime) -> list[IssuedInvitation]:
    issued, rows, yielder = [], [], Yielder()
    with write_transaction() as session:
        for user in invitations.lock_invitable_users(session, ids):
            token = secrets.token_urlsafe(32)
            issued.append(IssuedInvitation(user.id, user.username, user.name, token, expires_at))
            values = {"user_id": user.id, "token_hash": hash_token(token), "created_by": by.user_id}
            rows.append(values | {"created_at": now, "expires_at": expires_at})
            audit.record(session, by, "person.invited", "person", user.id, now=now, until=expires_at.isoformat())
        if rows:
            invitations.replace_for_users(session, rows)
    yielder.maybe_yield()
    return issued


def revoke_invitation(user_id: int, *, by: Actor, now: datetime) -> None:
    """Make a person's invitation void; there may be none. Raises Forbidden, NotFound, TemporarilyUnavailable."""
    by.require(Permission.PEOPLE)
    with write_transaction() as session:
        user = get_user_for_update(session, user_id)
        if invitations.delete_for_users(session, [user.id]):
            audit.record(session, by, "person.invitation_revoked", "person", user.id, now=now)


def get_invitee(token: str, *, now: datetime) -> Invitee:
    """Whom an invitation is for. Raises NotFound for one that is no longer good, whatever the reason."""
    user = _get_invited_user(token, now)
    return Invitee(user.username, user.name)


def accept_invitation(token: str, password: str, *, now: datetime) -> str:
    """Use an invitation up: its person gets this password. Return the username.

    Raises NotFound (no longer good), Invalid, TemporarilyUnavailable. Lets other greenlets run.
    """
    invitee = get_invitee(token, now=now)
    check_password(password, username=invitee.username, name=invitee.name)
    password_hash = passwords.hash_password(password)
    with write_transaction() as session:
        user = get_user_for_update(session, _get_invited_user(token, now).id)
        user = _get_invited_user(token, now)  # nobody else can use it any more
        user.password_hash = password_hash
        invitations.delete_for_users(session, [user.id])
        by = Actor(user.id, user.name)
        audit.record(session, by, "person.invitation_accepted", "person", user.id, now=now)
        return user.username


def _get_invited_user(token: str, now: datetime) -> User:
    open_invitation = invitations.get_by_token_hash(hash_token(token))
    if (
        open_invitation is None
        or open_invitation.invitation.expires_at <= now
        or open_invitation.user.disabled_at
        or open_invitation.user.password_hash
    ):
        raise NotFound(_LINK_INVALID)
    return open_invitation.user
