"""A user's e-mail address: asking for another, confirming it, removing it, and no more e-mail."""

from dataclasses import replace
from datetime import datetime, timedelta

from broadcast.actions import notify
from broadcast.actions.users import get_user_for_update
from broadcast.base.errors import Conflict, Invalid
from broadcast.domain.actor import Actor
from broadcast.domain.email_address import normalize_address
from broadcast.domain.permissions import Permission
from broadcast.store import audit, digests, email_addresses, receipts, users
from broadcast.store.models import EmailAddress
from broadcast.store.transactions import write_transaction

REQUEST_INTERVAL = timedelta(minutes=1)  # between mails to addresses that nobody has confirmed


def request_change(text: str, *, by: Actor, now: datetime) -> str:
    """Note that a user wants e-mail at another address; return the address, to which a link must be sent.

    Nothing else is sent there until it is confirmed. Raises Invalid, Conflict (asked a moment ago),
    TemporarilyUnavailable.
    """
    try:
        address = normalize_address(text)
    except ValueError as problem:
        raise Invalid({"email": str(problem)}) from None
    with write_transaction() as session:
        row = email_addresses.get_or_add(session, by.user_id)
        if row.pending_since and now - row.pending_since < REQUEST_INTERVAL:
            raise Conflict("A link was sent less than a minute ago. Wait a moment, then try again.")
        row.pending_address, row.pending_since = address, now
    return address


def confirm(user_id: int, address: str, *, now: datetime) -> bool:
    """Store the address whose link the user followed. False if they have asked for another one since, or are gone.

    Raises TemporarilyUnavailable.
    """
    with write_transaction() as session:
        row, user = session.get(EmailAddress, user_id), users.get(user_id)
        if row is None or user is None or user.disabled_at or address not in (row.pending_address, row.address):
            return False
        if row.pending_address == address:
            email_addresses.set_verified(session, user_id, address, at=now, is_from_provider=False)
            actor = Actor(user_id, user.name)
            audit.record(session, actor, "person.email_confirmed", "person", user_id, now=now)
    return True


def remove(*, by: Actor, now: datetime) -> None:
    """Forget a user's addresses. Raises TemporarilyUnavailable."""
    with write_transaction() as session:
        row = session.get(EmailAddress, by.user_id)
        if row is not None:
            session.delete(row)
            audit.record(session, by, "person.email_removed", "person", by.user_id, now=now)


def set_by_administrator(user_id: int, text: str, *, by: Actor, now: datetime) -> None:
    """Store a user's address, which counts as verified by the administrator's word; nothing typed removes it.

    Raises Forbidden, Invalid, NotFound, TemporarilyUnavailable.
    """
    by.require(Permission.PEOPLE)
    try:
        address = normalize_address(text) if text.strip() else None
    except ValueError as problem:
        raise Invalid({"email": str(problem)}) from None
    with write_transaction() as session:
        user = get_user_for_update(session, user_id)
        row = session.get(EmailAddress, user.id)
        before = row and row.address
        if address:
            email_addresses.set_verified(session, user.id, address, at=now, is_from_provider=False)
        elif row:
            session.delete(row)
        if address != before:
            audit.record(session, by, "person.email_set", "person", user.id, now=now, before=before, after=address)


def unsubscribe(user_id: int, what: str, *, now: datetime) -> None:
    """Set the user's preference to no e-mail, or to no digest if `what` is "digest"; nothing for a user who is gone.

    Raises TemporarilyUnavailable.
    """
    with write_transaction() as session:
        user = users.get(user_id)
        if user is None or user.deleted_at:
            return
        preferences = users.get_preferences(user_id)
        changed = replace(preferences, **{"digest": "off"} if what == "digest" else {"email": None})
        if changed == preferences:
            return
        users.set_preferences(session, user_id, changed)
        digests.schedule(session, user_id, changed, now=now)
        version = receipts.increment_inbox_version(session, user_id, at=now)
    notify.notify_receipt(user_id, "preferences", [], version)
