"""What happens to an account as a whole: the person's name is corrected, the account is deleted."""

from datetime import datetime

from broadcast.actions import audit, notify
from broadcast.actions.user_fields import read_name
from broadcast.actions.users import append_viewer_changed, end_streams_of_token, keep_an_admin, locked
from broadcast.base.errors import Invalid
from broadcast.domain.actor import Actor
from broadcast.domain.permissions import Permission
from broadcast.store import accounts, past_viewers, users
from broadcast.store.database import writing
from broadcast.store.models import User


def rename(user_id: int, name: str, *, by: Actor, now: datetime) -> None:
    """Correct a person's name. What they have sent keeps the name it was sent with.

    Raises Forbidden, Invalid, NotFound, Busy.
    """
    by.require(Permission.PEOPLE)
    name = read_name(name)
    with writing() as session:
        user = locked(session, user_id)
        if user.name == name:
            return
        audit.record(session, by, "person.renamed", "person", user.id, now=now, before=user.name, after=name)
        accounts.rename(session, user, name)


def delete(user_id: int, *, typed_username: str, by: Actor, now: datetime) -> None:
    """Delete an account for good; whoever does it types its username.

    Nothing personal stays but the audit and the names on what was sent. Receipts stay, as those of a former user. Drafts and
    plans stay for others to go on with; a plan that falls due waits for somebody to decide. The username is free again.

    Raises Forbidden, Invalid, NotFound, Conflict (the last administrator), Busy.
    """
    by.require(Permission.PEOPLE)
    with writing() as session:
        user = locked(session, user_id)
        if typed_username.strip().lower() != user.username:
            raise Invalid({"typedUsername": f"Type {user.username}, to say that you mean this account."})
        keep_an_admin(session, user)
        who = {"username": user.username, "name": user.name}
        audit.record(session, by, "person.deleted", "person", user.id, now=now, **who)
        for token in users.tokens_of(session, user.id):
            end_streams_of_token(session, token, now)
        past_viewers.remember(session, User.id == user.id, at=now)
        users.changed(session)
        accounts.forget(session, user, at=now)
        append_viewer_changed(session, user, now)
    notify.ring()
