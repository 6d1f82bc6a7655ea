"""Users, their roles, and their credentials: sessions, linked identities, tokens."""

from datetime import datetime
from typing import Any

from sqlalchemy import JSON, ForeignKey, Index, String, select
from sqlalchemy.orm import Mapped, mapped_column, relationship

from broadcast.domain.audience import Viewer
from broadcast.store.database import SingleRow, db
from broadcast.store.models.activity import LogHead
from broadcast.store.types import partial_index

# byte order, or ranges mean nothing
_BYTE_ORDERED_STRING = String(64).with_variant(String(64, collation="C"), "postgresql")


class Role(db.Model):
    """A name that audiences and permissions refer to; lower case.

    A deleted role stays under a name that nobody can type (`domain.audience.make_retired_role_name`), for the
    broadcasts that name it.
    """

    __tablename__ = "roles"

    name: Mapped[str] = mapped_column(String(64), primary_key=True)
    deleted_at: Mapped[datetime | None]


class UserRole(db.Model):
    __tablename__ = "user_roles"

    user_id: Mapped[int] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"), primary_key=True)
    role_name: Mapped[str] = mapped_column(ForeignKey("roles.name"), primary_key=True, index=True)


class User(db.Model):
    """A user. `read_through_seq` is the watermark of "mark all read": everything up to it counts as read.

    `inbox_version` rises with every change of the user's receipts, in its transaction: a page that shows version 7 and
    receives 9 knows that it missed one. `first_sign_in_at` is None for a user who has never signed in, or never had to.

    `viewer_since` is when the user got their current roles, or the account was enabled, and `viewer_since_seq` the head
    of the log then; see `PastViewer`. None means since forever.
    """

    __tablename__ = "users"
    # the few disabled users, to be subtracted from counts without checking a million users one by one
    __table_args__ = (partial_index("ix_users_disabled_at", "disabled_at", where="disabled_at IS NOT NULL"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    username: Mapped[str] = mapped_column(String(64), unique=True)
    name: Mapped[str] = mapped_column(String(200))
    password_hash: Mapped[str | None] = mapped_column(String(200))
    created_at: Mapped[datetime]
    first_sign_in_at: Mapped[datetime | None]
    disabled_at: Mapped[datetime | None]
    deleted_at: Mapped[datetime | None]  # the row holds nothing personal; it stays for receipts and broadcasts
    read_through_seq: Mapped[int] = mapped_column(default=0, index=True)
    read_through_at: Mapped[datetime | None]
    preferences: Mapped[dict[str, Any]] = mapped_column(JSON, default=dict)
    inbox_version: Mapped[int] = mapped_column(default=0, server_default="0")
    inbox_changed_at: Mapped[datetime | None] = mapped_column(index=True)
    viewer_since: Mapped[datetime | None] = mapped_column(
        default=lambda context: context.get_current_parameters()["created_at"], index=True
    )
    viewer_since_seq: Mapped[int] = mapped_column(default=select(LogHead.seq).scalar_subquery(), server_default="0")

    role_rows: Mapped[list[UserRole]] = relationship(lazy="selectin", cascade="all, delete-orphan")

    @property
    def roles(self) -> frozenset[str]:
        return frozenset(row.role_name for row in self.role_rows)

    @property
    def is_admin(self) -> bool:
        return "admin" in self.roles

    @property
    def as_viewer(self) -> Viewer:
        return Viewer(self.id, self.roles)


class UserSearchToken(db.Model):
    """One word of a user's username or name."""

    __tablename__ = "person_words"

    word: Mapped[str] = mapped_column(_BYTE_ORDERED_STRING, primary_key=True)
    user_id: Mapped[int] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"), primary_key=True, index=True)


class Mute(db.Model):
    """A muted category or priority (`domain.preferences`): `what` is "category News" or "priority LOW"."""

    __tablename__ = "silences"

    user_id: Mapped[int] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"), primary_key=True)
    what: Mapped[str] = mapped_column(String(80), primary_key=True, index=True)


class PastViewer(db.Model):
    """A past period in which a user had exactly these roles and an enabled account (`store.past_viewers`).

    The seqs decide the order where two times are equal, or two clocks differ.
    """

    __tablename__ = "past_viewers"

    id: Mapped[int] = mapped_column(primary_key=True)
    user_id: Mapped[int] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"), index=True)
    since: Mapped[datetime | None]
    since_seq: Mapped[int]
    until: Mapped[datetime] = mapped_column(index=True)
    until_seq: Mapped[int]


class PastViewerRole(db.Model):
    """`role_name` is no foreign key: the role may have been deleted since."""

    __tablename__ = "past_viewer_roles"

    past_viewer_id: Mapped[int] = mapped_column(ForeignKey("past_viewers.id", ondelete="CASCADE"), primary_key=True)
    role_name: Mapped[str] = mapped_column(String(64), primary_key=True)


class MembershipVersion(SingleRow, db.Model):
    """One row: a new value after every change of users or their roles. Counts made before it are stale."""

    __tablename__ = "people_version"

    version: Mapped[str] = mapped_column(String(16))


class UserSession(db.Model):
    """A sign-in. The cookie holds a random token; only its SHA-256 is stored: a copy of the table opens nothing.

    With an `origin` it is an inbox embedded in that site's pages, created with the site's token `token_id`; no cookie
    opens it. `issuer` is the provider that authenticated it, `provider_session` the session id there.
    """

    __tablename__ = "sessions"

    id: Mapped[int] = mapped_column(primary_key=True)
    token_hash: Mapped[str] = mapped_column(String(64), unique=True)
    user_id: Mapped[int] = mapped_column(ForeignKey("users.id"), index=True)
    created_at: Mapped[datetime]
    seen_at: Mapped[datetime]
    ended_at: Mapped[datetime | None]
    address: Mapped[str | None] = mapped_column(String(64))
    agent: Mapped[str | None] = mapped_column(String(200))
    origin: Mapped[str | None] = mapped_column(String(200))
    token_id: Mapped[int | None] = mapped_column(index=True)
    issuer: Mapped[str | None] = mapped_column(String(255))
    provider_session: Mapped[str | None] = mapped_column(String(255), index=True)


class ProviderLogoutRow(db.Model):
    """A provider's logout token, kept while it may be repeated, or a sign-in from before it may be in progress."""

    __tablename__ = "provider_logouts"

    issuer: Mapped[str] = mapped_column(String(255), primary_key=True)
    token_id: Mapped[str] = mapped_column(String(255), primary_key=True)
    subject: Mapped[str | None] = mapped_column(String(255))
    provider_session: Mapped[str | None] = mapped_column(String(255))
    at: Mapped[datetime] = mapped_column(index=True)


class LinkedIdentity(db.Model):
    """An account at an OpenID provider, linked to a user. Issuer and subject never change and are never reused; a
    username may be (OpenID Connect Core 1.0, section 5.7).
    """

    __tablename__ = "identities"
    __table_args__ = (Index("ix_identities_user_id_issuer", "user_id", "issuer", unique=True),)

    issuer: Mapped[str] = mapped_column(String(255), primary_key=True)
    subject: Mapped[str] = mapped_column(String(255), primary_key=True)
    user_id: Mapped[int] = mapped_column(ForeignKey("users.id"))
    created_at: Mapped[datetime]


class Invitation(db.Model):
    """A link with which a user without a password chooses one; a newer one replaces it, and using it deletes it.

    Only the SHA-256 of its token is stored.
    """

    __tablename__ = "invitations"

    user_id: Mapped[int] = mapped_column(
        ForeignKey("users.id", ondelete="CASCADE"), primary_key=True, autoincrement=False
    )
    token_hash: Mapped[str] = mapped_column(String(64), unique=True)
    created_at: Mapped[datetime]
    expires_at: Mapped[datetime]
    created_by: Mapped[int | None]


class SetupCode(SingleRow, db.Model):
    """The code that allows creating the first administrator, until it is used. Only its SHA-256 is stored."""

    __tablename__ = "setup_codes"

    code_hash: Mapped[str] = mapped_column(String(64))
    created_at: Mapped[datetime]


class ApiToken(db.Model):
    """A key for programs, acting as its user within `scopes` (space-separated)."""

    __tablename__ = "api_tokens"

    id: Mapped[int] = mapped_column(primary_key=True)
    token_hash: Mapped[str] = mapped_column(String(64), unique=True)
    user_id: Mapped[int] = mapped_column(ForeignKey("users.id"), index=True)
    label: Mapped[str] = mapped_column(String(100))
    scopes: Mapped[str] = mapped_column(String(100))
    created_at: Mapped[datetime]
    expires_at: Mapped[datetime | None]
    used_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]
