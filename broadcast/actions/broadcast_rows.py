"""Mapping a message to its database row: the columns, the audience rows, and the row lock under which they change."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from sqlalchemy.orm import Session

from broadcast.actions.audiences import MAX_SNAPSHOT_RECIPIENTS, resolve_audience
from broadcast.actions.escalation_policies import check_choice
from broadcast.base.errors import Invalid, NotFound, VersionConflict
from broadcast.config.settings import SETTINGS
from broadcast.content import markdown
from broadcast.domain.actor import Actor
from broadcast.domain.audience import Audience, EveryoneAudience, RoleAudience, UserAudience, split_exclusions
from broadcast.domain.lifecycle import Status
from broadcast.domain.message import Draft, Priority
from broadcast.domain.permissions import Permission
from broadcast.store import audiences, broadcasts
from broadcast.store.database import ROW_LOCK
from broadcast.store.fast.broadcast_row import NewBroadcast, RoleRow
from broadcast.store.models import Broadcast, BroadcastExceptRole, BroadcastExceptUser, BroadcastRole, BroadcastUser

_AUDIENCE_KINDS = {EveryoneAudience: "everyone", RoleAudience: "roles", UserAudience: "users"}


@dataclass(frozen=True, slots=True)
class PreparedMessage:
    """A draft with what is computed before the transaction, so that nobody waits for its lock meanwhile."""

    draft: Draft
    audience: Audience
    recipient_count: int
    html: str


def prepare_message(draft: Draft) -> PreparedMessage:
    """Resolve and count the audience, and render the text. Lets other greenlets run. Raises Invalid."""
    audience = resolve_audience(draft.target)
    check_choice(draft.escalation)
    return PreparedMessage(draft, audience, audiences.count(audience), markdown.render(draft.content))


def get_broadcast_for_update(session: Session, broadcast_id: int, *, version: str | None = None) -> Broadcast:
    """Return the locked row. Raises NotFound, or VersionConflict when it is no longer at `version` (None: any)."""
    broadcast = session.get(Broadcast, broadcast_id, with_for_update=ROW_LOCK)
    if broadcast is None:
        raise NotFound("There is no such broadcast.")
    if version is not None and version != broadcast.version:
        raise VersionConflict(broadcast.version)
    return broadcast


def build_draft_columns(by: Actor, now: datetime) -> dict[str, Any]:
    """The columns of an empty draft with an empty audience; the others have defaults."""
    return {
        "status": Status.DRAFT.value,
        "title": "",
        "content": "",
        "content_html": "",
        "priority": Priority.NORMAL.value,
        "audience_kind": "users",
        "sender_id": by.user_id,
        "sender_name": by.name,
        "created_at": now,
        "updated_at": now,
    }


def check_draft_quota(by: Actor) -> None:
    """Raise Invalid when `by` has reached the limit of drafts per user."""
    max_drafts = SETTINGS.current.drafts_per_user
    if by.user_id is not None and broadcasts.count_drafts(by.user_id) >= max_drafts:
        advice = "Send or delete some, then save this one."
        raise Invalid({"draft": f"You have reached the limit for drafts ({max_drafts:,}). {advice}"})


def check_may_send(message: Draft | Broadcast, by: Actor) -> None:
    """Raise Forbidden unless `by` may send this message; one that signs users out needs the permission for users."""
    by.require(Permission.WRITE)
    if message.close_sessions:
        by.require(Permission.PEOPLE)


def write_message(
    session: Session, broadcast: Broadcast, message: PreparedMessage, now: datetime, *, may_be_empty: bool
) -> None:
    """Write a message and its audience into a row. The caller sets the status. Raises Invalid, like `set_audience`."""
    fill_columns(broadcast, message.draft, now, html=message.html)
    recipient_count, is_snapshot = message.recipient_count, message.draft.target.snapshot
    set_audience(session, broadcast, message.audience, recipient_count, is_snapshot, may_be_empty=may_be_empty)


def fill_columns(broadcast: Broadcast | NewBroadcast, draft: Draft, now: datetime, *, html: str) -> None:
    """Copy a draft and its rendered text into the columns. `set_audience` sets the audience, the caller the status."""
    broadcast.title = draft.title
    broadcast.content = draft.content
    broadcast.content_html = html
    broadcast.priority = draft.priority.value
    broadcast.category = draft.category
    broadcast.actions = [asdict(link) for link in draft.actions]
    broadcast.requires_ack = draft.requires_ack
    if not broadcast.is_live:
        broadcast.close_sessions, broadcast.escalation = draft.close_sessions, draft.escalation
    broadcast.ack_due_at = draft.ack_due_at
    broadcast.scheduled_at = draft.scheduled_at
    broadcast.expires_at = draft.expires_at
    broadcast.updated_at = now


def set_audience(
    session: Session,
    broadcast: Broadcast,
    audience: Audience,
    recipient_count: int,
    is_snapshot: bool,
    *,
    may_be_empty: bool,
) -> None:
    """Replace the audience of a row, and store both. Raises Invalid when it reaches nobody or is too large."""
    if not recipient_count and not may_be_empty:
        raise Invalid({"targetIds": "There is nobody in this audience now. Choose another audience."})
    if is_snapshot and recipient_count > MAX_SNAPSHOT_RECIPIENTS:
        sentence = f"A snapshot holds at most {MAX_SNAPSHOT_RECIPIENTS:,} people. Turn the snapshot off."
        raise Invalid({"snapshot": sentence})
    if broadcast.id is not None:
        _clear_audience(session, broadcast)
    set_audience_columns(broadcast, audience)
    broadcast.is_snapshot, broadcast.audience_count = is_snapshot, recipient_count
    session.add(broadcast)
    session.flush()  # assigns the id of a new row
    add_named_recipients(session, broadcast, audience)
    session.flush()


def set_audience_columns(broadcast: Broadcast | NewBroadcast, audience: Audience) -> None:
    """Write an audience into the columns and roles of a row that has none; `add_named_recipients` adds the users."""
    base, excluded_roles, excluded_ids = split_exclusions(audience)
    broadcast.audience_kind = _AUDIENCE_KINDS[type(base)]
    broadcast.match_all = isinstance(base, RoleAudience) and base.match_all
    broadcast.has_exceptions = bool(excluded_roles or excluded_ids)
    if isinstance(base, RoleAudience):
        row_class = RoleRow if isinstance(broadcast, NewBroadcast) else BroadcastRole
        broadcast.role_rows = [row_class(role_name=name) for name in sorted(base.names)]
    if excluded_roles:
        row_class = RoleRow if isinstance(broadcast, NewBroadcast) else BroadcastExceptRole
        broadcast.except_role_rows = [row_class(role_name=name) for name in sorted(excluded_roles)]


def add_named_recipients(session: Session, broadcast: Broadcast | NewBroadcast, audience: Audience) -> None:
    """Store the users who are selected or excluded by name; the broadcast must have its id."""
    base, _, excluded_ids = split_exclusions(audience)
    if isinstance(base, UserAudience):
        audiences.add_named_users(session, BroadcastUser, broadcast.id, base.ids)
    audiences.add_named_users(session, BroadcastExceptUser, broadcast.id, excluded_ids)


def set_empty_audience(session: Session, broadcast: Broadcast) -> None:
    """Give a draft an empty audience until one is chosen: whatever goes wrong later, it reaches nobody."""
    _set_named_audience(session, broadcast, ())
    broadcast.audience_count = None


def freeze_audience(session: Session, broadcast: Broadcast, audience: Audience) -> Audience:
    """Resolve the audience to its current users when the broadcast asks for a snapshot."""
    if not broadcast.is_snapshot or broadcast.audience_kind == "users" and not broadcast.has_exceptions:
        return audience
    ids = audiences.list_user_ids(audience)
    _set_named_audience(session, broadcast, ids)
    broadcast.audience_count = len(ids)
    return UserAudience(frozenset(ids))


def _set_named_audience(session: Session, broadcast: Broadcast, user_ids: Iterable[int]) -> None:
    _clear_audience(session, broadcast)
    broadcast.audience_kind, broadcast.has_exceptions, broadcast.match_all = "users", False, False
    audiences.add_named_users(session, BroadcastUser, broadcast.id, user_ids)


def _clear_audience(session: Session, broadcast: Broadcast) -> None:
    broadcast.role_rows, broadcast.except_role_rows = [], []
    audiences.delete_named_users(session, broadcast.id)
    session.flush()
