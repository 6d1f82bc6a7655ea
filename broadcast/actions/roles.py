"""Roles: made, renamed and deleted, with everything that refers to them by name.

An open stream hears of it by one event of the log, whoever has the role: its page loads its list anew.
"""

import secrets
from datetime import datetime

from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from broadcast.actions import audit, notify
from broadcast.actions.user_fields import read_roles
from broadcast.base.errors import Conflict, Invalid, NotFound
from broadcast.domain import lifecycle
from broadcast.domain.actor import Actor
from broadcast.domain.audience import Everyone, retired_name
from broadcast.domain.events import EventType
from broadcast.domain.lifecycle import Status
from broadcast.domain.permissions import CONSOLE_ROLES, Permission
from broadcast.store import log, roles, users
from broadcast.store.database import writing
from broadcast.store.models import Broadcast, Role

_BUILT_IN = "The role {} belongs to the console: it is always there, under this name."
_TOLD = 100  # broadcasts named in one row of the audit


def create(name: str, *, by: Actor, now: datetime) -> str:
    """Make a role that nobody has yet; return its name. Raises Forbidden, Invalid (also for a taken name), Busy."""
    by.require(Permission.PEOPLE)
    name = _free_name(name)
    try:
        with writing() as session:
            session.add(Role(name=name))
            users.changed(session)
            session.flush()
            audit.record(session, by, "role.created", "role", name, now=now)
    except IntegrityError:  # somebody else was making the same
        raise Invalid({"name": f"There is a role {name} already."}) from None
    return name


def rename(name: str, to: str, *, by: Actor, now: datetime) -> str:
    """Give a role another name wherever it is named: people, broadcasts, saved audiences, drafts. Return the name.

    Raises Forbidden, Invalid, NotFound, Conflict (a role of the console, or something referred to it just now), Busy.
    """
    by.require(Permission.PEOPLE)
    _refuse_built_in(name)
    to = _only_name(to)
    if to == name:
        return name
    _free_name(to)
    try:
        with writing() as session:
            role = _locked(session, name)
            audit.record(session, by, "role.renamed", "role", to, now=now, before=name, after=to)
            roles.rename(session, role, to)
            _tell(session, name, to, now)
    except IntegrityError:
        raise Conflict("This role was used at the same moment. Nothing has changed; please try again.") from None
    notify.ring()
    return to


def delete(name: str, *, by: Actor, now: datetime) -> None:
    """Take a role from everybody and delete it.

    A live broadcast to it leaves the inboxes of those who had it through the role alone; a plan that would reach nobody any
    more becomes a draft. Whom a broadcast leaves out by the role stays left out, by name.

    Raises Forbidden, NotFound, Conflict (a role of the console, or something referred to it just now), Busy.
    """
    by.require(Permission.PEOPLE)
    _refuse_built_in(name)
    try:
        with writing() as session:
            role = _locked(session, name)
            named = roles.broadcasts_of(name)
            for broadcast in named:
                if broadcast.status == Status.SCHEDULED and would_reach_nobody(broadcast, name):
                    _back_to_draft(session, broadcast, by, now)
            live = [broadcast.id for broadcast in named if broadcast.is_live][:_TOLD]
            count = roles.people_of(session, name)
            audit.record(session, by, "role.deleted", "role", name, now=now, people=count, live=live)
            roles.retire(session, role, retired_name(name, secrets.token_hex(4)), at=now)
            _tell(session, name, None, now)
    except IntegrityError:
        raise Conflict("This role was used at the same moment. Nothing has changed; please try again.") from None
    notify.ring()


def would_reach_nobody(broadcast: Broadcast, name: str) -> bool:
    """Whether a broadcast addresses nobody any more once nobody has this role."""
    names = broadcast.role_names if broadcast.audience_kind == "roles" else []
    return name in names and (broadcast.match_all or len(names) == 1)


def _back_to_draft(session: Session, broadcast: Broadcast, by: Actor, now: datetime) -> None:
    broadcast.status = lifecycle.after(broadcast.status, "withdrawn").value
    broadcast.is_held, broadcast.updated_at = False, now
    audit.record(session, by, "broadcast.withdrawn", "broadcast", broadcast.id, now=now)
    session.flush()


def _tell(session: Session, name: str, to: str | None, now: datetime) -> None:
    users.changed(session)
    session.flush()
    log.append(session, [log.Entry(EventType.ROLE_CHANGED, None, Everyone(), {"role": name, "to": to})], at=now)


def _locked(session: Session, name: str) -> Role:
    role = roles.locked(session, name)
    if role is None:
        raise NotFound("There is no such role.")
    return role


def _free_name(name: str) -> str:
    name = _only_name(name)
    if name in CONSOLE_ROLES or roles.by_name(name):
        raise Invalid({"name": f"There is a role {name} already."})
    return name


def _only_name(name: str) -> str:
    try:
        [name] = read_roles([name])
    except Invalid as invalid:
        raise Invalid({"name": invalid.fields["roles"]}) from None
    return name


def _refuse_built_in(name: str) -> None:
    if name in CONSOLE_ROLES:
        raise Conflict(_BUILT_IN.format(name))
