"""Renaming and deleting accounts."""

from datetime import datetime

from broadcast.actions import notify
from broadcast.actions.tokens import end_token_streams
from broadcast.actions.user_fields import clean_display_name
from broadcast.actions.users import append_viewer_changed_event, ensure_admin_remains, get_user_for_update
from broadcast.base.errors import Invalid
from broadcast.domain.actor import Actor
from broadcast.domain.permissions import Permission
from broadcast.store import accounts, audit, past_viewers, users
from broadcast.store.models import User
from broadcast.store.transactions import write_transaction


def rename(user_id: int, name: str, *, by: Actor, now: datetime) -> None:
    """Correct a user's name. Broadcasts already sent keep the old name. Raises Invalid, NotFound."""
    by.require(Permission.PEOPLE)
    name = clean_display_name(name)
    with write_transaction() as session:
        user = get_user_for_update(session, user_id)
        if user.name == name:
            return
        audit.record(session, by, "person.renamed", "person", user.id, now=now, before=user.name, after=name)
        accounts.rename(session, user, name)


def delete(user_id: int, *, typed_username: str, by: Actor, now: datetime) -> None:
    """Delete an account for good, after the caller has typed its username.

    Personal data is removed, except in the audit and in the sender names of sent broadcasts. Receipts stay, as those of
    a former user. Drafts and scheduled broadcasts stay for others to continue; a scheduled one that falls due waits for
    a decision. The username becomes available again.

    Raises Invalid, NotFound, Conflict (the last administrator).
    """
    by.require(Permission.PEOPLE)
    with write_transaction() as session:
        user = get_user_for_update(session, user_id)
        if typed_username.strip().lower() != user.username:
            raise Invalid({"typedUsername": f"Type {user.username} to confirm."})
        ensure_admin_remains(session, user)
        user_details = {"username": user.username, "name": user.name}
        audit.record(session, by, "person.deleted", "person", user.id, now=now, **user_details)
        for token in users.list_user_tokens(session, user.id):
            end_token_streams(session, token, now)
        past_viewers.close_current_periods(session, User.id == user.id, at=now)
        users.bump_membership_version(session)
        accounts.anonymize(session, user, at=now)
        append_viewer_changed_event(session, user, now)
    notify.notify_workers()
