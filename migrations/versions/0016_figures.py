"""figures: of which revision an acknowledgement is, the texts of those revisions, and who was in an audience before"""

import hashlib
import json
from collections.abc import Iterator

import sqlalchemy as sa
from alembic import op

Number = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
Time = sa.DateTime(timezone=True)

revision = "0016_figures"
down_revision = "0015_plans"
oldest_code = "0011_counting"

_TEXT_EVENTS = ("MESSAGE", "MESSAGE_UPDATED")


def upgrade() -> None:
    op.add_column("receipts", sa.Column("acked_revision", Number, nullable=True))
    op.add_column("receipts", sa.Column("acked_hash", sa.String(64), nullable=True))
    op.add_column("broadcasts", sa.Column("ack_revision", Number, server_default="1", nullable=False))
    op.add_column("users", sa.Column("viewer_since", Time, nullable=True))
    op.add_column("users", sa.Column("viewer_since_seq", Number, server_default="0", nullable=False))
    op.create_index("ix_users_viewer_since", "users", ["viewer_since"])
    _create_tables()
    op.execute("UPDATE users SET viewer_since = created_at WHERE disabled_at IS NULL")
    _remember_the_disabled()
    _name_acknowledged_revisions()


def _create_tables() -> None:
    op.create_table(
        "revision_texts",
        sa.Column("broadcast_id", Number, nullable=False),
        sa.Column("revision", Number, autoincrement=False, nullable=False),
        sa.Column("hash", sa.String(64), nullable=False),
        sa.Column("title", sa.String(200), nullable=False),
        sa.Column("content", sa.Text(), nullable=False),
        sa.Column("actions", sa.JSON(), nullable=False),
        sa.Column("is_acknowledged", sa.Boolean(), nullable=False),
        sa.ForeignKeyConstraint(["broadcast_id"], ["broadcasts.id"], name=op.f("fk_revision_texts_broadcast_id")),
        sa.PrimaryKeyConstraint("broadcast_id", "revision", name=op.f("pk_revision_texts")),
    )
    op.create_table(
        "earlier_acknowledgements",
        sa.Column("broadcast_id", Number, nullable=False),
        sa.Column("user_id", Number, nullable=False),
        sa.Column("revision", Number, autoincrement=False, nullable=False),
        sa.Column("hash", sa.String(64), nullable=True),
        sa.Column("at", Time, nullable=False),
        sa.ForeignKeyConstraint(
            ["broadcast_id"], ["broadcasts.id"], name=op.f("fk_earlier_acknowledgements_broadcast_id")
        ),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name=op.f("fk_earlier_acknowledgements_user_id")),
        sa.PrimaryKeyConstraint("broadcast_id", "user_id", "revision", name=op.f("pk_earlier_acknowledgements")),
    )
    op.create_index(op.f("ix_earlier_acknowledgements_user_id"), "earlier_acknowledgements", ["user_id"])
    op.create_table(
        "past_viewers",
        sa.Column("id", Number, nullable=False),
        sa.Column("user_id", Number, nullable=False),
        sa.Column("since", Time, nullable=True),
        sa.Column("since_seq", Number, nullable=False),
        sa.Column("until", Time, nullable=False),
        sa.Column("until_seq", Number, nullable=False),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name=op.f("fk_past_viewers_user_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_past_viewers")),
    )
    op.create_index(op.f("ix_past_viewers_user_id"), "past_viewers", ["user_id"])
    op.create_index(op.f("ix_past_viewers_until"), "past_viewers", ["until"])
    op.create_table(
        "past_viewer_roles",
        sa.Column("past_viewer_id", Number, nullable=False),
        sa.Column("role_name", sa.String(64), nullable=False),
        sa.ForeignKeyConstraint(
            ["past_viewer_id"],
            ["past_viewers.id"],
            name=op.f("fk_past_viewer_roles_past_viewer_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("past_viewer_id", "role_name", name=op.f("pk_past_viewer_roles")),
    )


def _remember_the_disabled() -> None:
    """Whoever is disabled had their roles until then. What roles others had before is not known."""
    op.execute(
        "INSERT INTO past_viewers (user_id, since, since_seq, until, until_seq) "
        "SELECT id, created_at, 0, disabled_at, 0 FROM users WHERE disabled_at > created_at"
    )
    op.execute(
        "INSERT INTO past_viewer_roles (past_viewer_id, role_name) "
        "SELECT past_viewers.id, user_roles.role_name FROM past_viewers "
        "JOIN user_roles ON user_roles.user_id = past_viewers.user_id"
    )


def _name_acknowledged_revisions() -> None:
    """Which revision was on the screen at each acknowledgement, and its text: from the log as far as it reaches back."""
    connection = op.get_bind()
    broadcasts = _table("broadcasts", "id", "revision", "title", "content", "actions", "edited_at", "repeated_at")
    receipts = _table("receipts", "broadcast_id", "acked_at", "acked_revision", "acked_hash")
    acknowledged = sa.select(receipts.c.broadcast_id).where(receipts.c.acked_at.is_not(None)).distinct()
    for (broadcast_id,) in connection.execute(acknowledged.order_by(receipts.c.broadcast_id)).all():
        row = connection.execute(sa.select(broadcasts).where(broadcasts.c.id == broadcast_id)).one()
        texts = list(_texts(connection, row))
        for (since, number, title, content, actions), (until, *_) in zip(texts, [*texts[1:], (None,)], strict=True):
            digest = _hash(title, content, actions)
            meant = (receipts.c.broadcast_id == broadcast_id) & receipts.c.acked_at.is_not(None)
            meant &= (receipts.c.acked_at >= since) if since is not None else sa.true()
            meant &= (receipts.c.acked_at < until) if until is not None else sa.true()
            done = connection.execute(
                receipts.update().where(meant).values(acked_revision=number, acked_hash=digest)
            ).rowcount
            if done:
                connection.execute(
                    _texts_table.insert().values(
                        broadcast_id=broadcast_id, revision=number, hash=digest, title=title, content=content,
                        actions=actions, is_acknowledged=True,
                    )
                )  # fmt: skip


def _texts(connection: sa.Connection, row: sa.Row) -> Iterator[tuple]:
    """(since, revision, title, content, actions) of a broadcast, in order; what the log has, and what it says now.

    `since` is None for a text that was there from the start.
    """
    events = _table("events", "seq", "broadcast_id", "type", "payload", "at")
    logged = sa.select(events.c.type, events.c.at, events.c.payload).where(
        events.c.broadcast_id == row.id, events.c.type.in_(_TEXT_EVENTS)
    )
    known = 0
    for kind, at, payload in connection.execute(logged.order_by(events.c.seq)).all():
        if payload["revision"] > known:
            known = payload["revision"]
            since = None if kind == "MESSAGE" else at
            yield since, known, payload["title"], payload["content"], payload.get("actions") or []
    if row.revision > known:
        changed_at = [moment for moment in (row.edited_at, row.repeated_at) if moment is not None]
        yield max(changed_at, default=None), row.revision, row.title, row.content, row.actions or []


def _hash(title: str, content: str, actions: list) -> str:
    """As `broadcast.domain.revisions.text_hash` was when this migration was written."""
    links = [{"label": link["label"], "url": link["url"]} for link in actions]
    whole = {"actions": links, "content": content, "title": title}
    return hashlib.sha256(
        json.dumps(whole, ensure_ascii=False, separators=(",", ":"), sort_keys=True).encode()
    ).hexdigest()


_TYPES = {"actions": sa.JSON(), "payload": sa.JSON()} | dict.fromkeys(
    ("acked_at", "edited_at", "repeated_at", "at"), Time
)
_TYPES |= dict.fromkeys(("id", "broadcast_id", "revision", "acked_revision", "seq"), Number)


def _table(name: str, *columns: str) -> sa.TableClause:
    return sa.table(name, *(sa.column(column, _TYPES.get(column, sa.String())) for column in columns))


_texts_table = sa.table(
    "revision_texts",
    *(sa.column(name, Number) for name in ("broadcast_id", "revision")),
    *(sa.column(name, sa.String()) for name in ("hash", "title", "content")),
    sa.column("actions", sa.JSON()),
    sa.column("is_acknowledged", sa.Boolean()),
)


def downgrade() -> None:
    raise NotImplementedError("Data is never dropped; restore a backup instead.")
