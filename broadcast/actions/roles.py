"""Create, rename and delete roles, with everything that refers to them by name.

One event of the log informs every open stream, whatever roles its user has: its page reloads its list.
"""

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime

from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from broadcast.actions import notify
from broadcast.actions.users import read_role_names
from broadcast.base.errors import Conflict, Invalid, NotFound
from broadcast.domain.actor import Actor
from broadcast.domain.audience import EveryoneAudience, make_retired_role_name
from broadcast.domain.events import EventType
from broadcast.domain.lifecycle import Status, transition
from broadcast.domain.permissions import CONSOLE_ROLES, Permission
from broadcast.store import audit, log, roles, users
from broadcast.store.models import Broadcast, Role
from broadcast.store.transactions import write_transaction

_MAX_AUDITED_BROADCASTS = 100  # broadcasts named in one audit row


def create(name: str, *, by: Actor, now: datetime) -> str:
    """Create a role without members; return its name. Raises Invalid (also for a taken name)."""
    by.require(Permission.PEOPLE)
    name = _clean_unused_name(name)
    try:
        with write_transaction() as session:
            session.add(Role(name=name))
            users.bump_membership_version(session)
            session.flush()
            audit.record(session, by, "role.created", "role", name, now=now)
    except IntegrityError:  # created concurrently
        raise Invalid({"name": f"There is a role {name} already."}) from None
    return name


def rename(name: str, new_name: str, *, by: Actor, now: datetime) -> str:
    """Rename a role wherever it is named; return the name. Raises Invalid, NotFound, Conflict (built in, or in use)."""
    by.require(Permission.PEOPLE)
    _refuse_built_in(name)
    new_name = _read_role_name(new_name)
    if new_name == name:
        return name
    _clean_unused_name(new_name)
    with _change_role(name) as (session, role):
        audit.record(session, by, "role.renamed", "role", new_name, now=now, before=name, after=new_name)
        roles.rename(session, role, new_name)
        _append_role_changed_event(session, name, new_name, now)
    notify.notify_workers()
    return new_name


def delete(name: str, *, by: Actor, now: datetime) -> None:
    """Remove a role from all users and delete it.

    A live broadcast to it disappears for those who received it through this role alone; a scheduled one that would
    reach nobody becomes a draft. Users whom a broadcast excludes by this role stay excluded, by name. Raises NotFound,
    Conflict (a console role, or a concurrent reference to it).
    """
    by.require(Permission.PEOPLE)
    _refuse_built_in(name)
    with _change_role(name) as (session, role):
        role_broadcasts = roles.list_broadcasts(name)
        for broadcast in role_broadcasts:
            if broadcast.status == Status.SCHEDULED and would_reach_nobody(broadcast, name):
                _return_to_draft(session, broadcast, by, now)
        live_ids = [broadcast.id for broadcast in role_broadcasts if broadcast.is_live][:_MAX_AUDITED_BROADCASTS]
        member_count = roles.count_users(session, name)
        audit.record(session, by, "role.deleted", "role", name, now=now, people=member_count, live=live_ids)
        roles.retire(session, role, make_retired_role_name(name, secrets.token_hex(4)), at=now)
        _append_role_changed_event(session, name, None, now)
    notify.notify_workers()


def would_reach_nobody(broadcast: Broadcast, name: str) -> bool:
    """Whether a broadcast reaches nobody once nobody has this role."""
    names = broadcast.role_names if broadcast.audience_kind == "roles" else []
    return name in names and (broadcast.match_all or len(names) == 1)


def _return_to_draft(session: Session, broadcast: Broadcast, by: Actor, now: datetime) -> None:
    broadcast.status = transition(broadcast.status, "withdrawn").value
    broadcast.is_held, broadcast.updated_at = False, now
    audit.record(session, by, "broadcast.withdrawn", "broadcast", broadcast.id, now=now)
    session.flush()


def _append_role_changed_event(session: Session, name: str, new_name: str | None, now: datetime) -> None:
    users.bump_membership_version(session)
    session.flush()
    payload = {"role": name, "to": new_name}
    log.append(session, [log.NewEvent(EventType.ROLE_CHANGED, None, EveryoneAudience(), payload)], at=now)


@contextmanager
def _change_role(name: str) -> Iterator[tuple[Session, Role]]:
    """A write transaction with this role, locked. Raises NotFound, and Conflict for a concurrent reference to it."""
    try:
        with write_transaction() as session:
            role = roles.get_for_update(session, name)
            if role is None:
                raise NotFound("There is no such role.")
            yield session, role
    except IntegrityError:
        raise Conflict(
            "Somebody else used this role at the same time. Nothing has changed. Please try again."
        ) from None


def _clean_unused_name(name: str) -> str:
    name = _read_role_name(name)
    if name in CONSOLE_ROLES or roles.get(name):
        raise Invalid({"name": f"There is a role {name} already."})
    return name


def _read_role_name(name: str) -> str:
    try:
        [name] = read_role_names([name])
    except Invalid as invalid:
        raise Invalid({"name": invalid.fields["roles"]}) from None
    return name


def _refuse_built_in(name: str) -> None:
    if name in CONSOLE_ROLES:
        raise Conflict(f"The role {name} is built in and cannot be renamed or deleted.")
