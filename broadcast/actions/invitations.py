"""Invitations: a personal link with which a user without a password chooses one.

The token is random, stored as a hash, usable once and for some days, and only while the user has no password.
"""

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from broadcast.actions import passwords
from broadcast.actions.tokens import hash_token
from broadcast.actions.users import get_user_for_update
from broadcast.base.cooperative import split_into_chunks
from broadcast.base.errors import Invalid, NotFound
from broadcast.domain.actor import Actor
from broadcast.domain.permissions import Permission
from broadcast.store import audit, invitations
from broadcast.store.models import User
from broadcast.store.transactions import write_transaction

MAX_INVITATIONS = 50_000  # as many as one import creates
_BATCH_SIZE = 100  # users per transaction: it holds SQLite's only write lock for some milliseconds


@dataclass(frozen=True, slots=True)
class IssuedInvitation:
    """The invited user, and the token, which is shown only once."""

    user_id: int
    username: str
    name: str
    token: str
    expires_at: datetime


def invite_users(user_ids: Sequence[int], *, valid_for: timedelta, by: Actor, now: datetime) -> list[IssuedInvitation]:
    """Invite those of these users who are enabled and have no password; their earlier invitations become void.

    Lets other greenlets run; a committed batch stays when a later one fails. Raises Invalid (nobody, or too many).
    """
    by.require(Permission.PEOPLE)
    ids = sorted(set(user_ids))
    if len(ids) > MAX_INVITATIONS:
        raise Invalid({"ids": f"At most {MAX_INVITATIONS:,} users can be invited at once."})
    issued: list[IssuedInvitation] = []
    for chunk in split_into_chunks(ids, _BATCH_SIZE):
        issued += _invite_batch(chunk, now + valid_for, by, now)
    if not issued:
        raise Invalid({"ids": "Nobody to invite: these users already have a password."})
    return issued


def _invite_batch(ids: Sequence[int], expires_at: datetime, by: Actor, now: datetime) -> list[IssuedInvitation]:
    issued, rows = [], []
    with write_transaction() as session:
        for user in invitations.lock_invitable_users(session, ids):
            token = secrets.token_urlsafe(32)
            issued.append(IssuedInvitation(user.id, user.username, user.name, token, expires_at))
            values = {"user_id": user.id, "token_hash": hash_token(token), "created_by": by.user_id}
            rows.append(values | {"created_at": now, "expires_at": expires_at})
            audit.record(session, by, "person.invited", "person", user.id, now=now, until=expires_at.isoformat())
        if rows:
            invitations.replace_for_users(session, rows)
    return issued


def revoke_invitation(user_id: int, *, by: Actor, now: datetime) -> None:
    """Revoke a user's invitation, if there is one. Raises NotFound."""
    by.require(Permission.PEOPLE)
    with write_transaction() as session:
        user = get_user_for_update(session, user_id)
        if invitations.delete_for_users(session, [user.id]):
            audit.record(session, by, "person.invitation_revoked", "person", user.id, now=now)


def get_invitee(token: str, *, now: datetime) -> User:
    """The invited user. Raises NotFound for an invitation that is no longer valid, whatever the reason."""
    row = invitations.get_by_token_hash(hash_token(token))
    if row is None or row.invitation.expires_at <= now or row.user.disabled_at or row.user.password_hash:
        raise NotFound("This link is no longer valid. Ask the person who sent it for a new one.")
    return row.user


def accept_invitation(token: str, password: str, *, now: datetime) -> str:
    """Set the password of an invited user; return the username. Raises NotFound (no longer valid), Invalid."""
    invitee = get_invitee(token, now=now)
    passwords.check_password(password, username=invitee.username, name=invitee.name)
    password_hash = passwords.hash_password(password)
    with write_transaction() as session:
        user = get_user_for_update(session, get_invitee(token, now=now).id)
        user = get_invitee(token, now=now)  # nobody else can use it any more
        user.password_hash = password_hash
        invitations.delete_for_users(session, [user.id])
        by = Actor(user.id, user.name)
        audit.record(session, by, "person.invitation_accepted", "person", user.id, now=now)
        return user.username
