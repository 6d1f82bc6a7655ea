"""inbox: states of a message for one person, the version of an inbox, undo, full-text search"""

import sqlalchemy as sa
from alembic import op

from broadcast.domain.search_tokens import tokenize

Number = sa.BigInteger().with_variant(sa.Integer(), "sqlite")

revision = "0004_inbox"
down_revision = "0003_console"

_TRIGGERS = {
    "INSERT": "INSERT INTO broadcast_search(rowid, search_words) VALUES (new.id, new.search_words);",
    "DELETE": "INSERT INTO broadcast_search(broadcast_search, rowid, search_words) "
    "VALUES ('delete', old.id, old.search_words);",
}


def upgrade() -> None:
    with op.batch_alter_table("receipts", schema=None) as batch_op:
        batch_op.add_column(sa.Column("unread_at", sa.DateTime(timezone=True), nullable=True))
        batch_op.add_column(sa.Column("returned_at", sa.DateTime(timezone=True), nullable=True))
        batch_op.create_index(batch_op.f("ix_receipts_snoozed_until"), ["snoozed_until"], unique=False)
    with op.batch_alter_table("users", schema=None) as batch_op:
        batch_op.add_column(sa.Column("inbox_version", Number, server_default="0", nullable=False))
        batch_op.add_column(sa.Column("inbox_changed_at", sa.DateTime(timezone=True), nullable=True))
        batch_op.create_index(batch_op.f("ix_users_inbox_changed_at"), ["inbox_changed_at"], unique=False)
    with op.batch_alter_table("broadcasts", schema=None) as batch_op:
        batch_op.add_column(sa.Column("search_words", sa.Text(), server_default="", nullable=False))
        batch_op.drop_index("ix_broadcasts_status_seq")
        counting = ["status", "seq", "expires_at", "audience_kind", "category"]
        batch_op.create_index("ix_broadcasts_counting", counting, unique=False)
        batch_op.create_index("ix_broadcasts_requires_ack_status", ["requires_ack", "status"], unique=False)
    op.create_table(
        "undo_steps",
        sa.Column("user_id", Number, nullable=False),
        sa.Column("key", sa.String(length=32), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("before", sa.JSON(), nullable=False),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name=op.f("fk_undo_steps_user_id")),
        sa.PrimaryKeyConstraint("user_id", name=op.f("pk_undo_steps")),
    )
    _fill_in_words()
    if op.get_bind().dialect.name == "sqlite":
        _index_on_sqlite()
    else:
        op.execute(
            "CREATE INDEX ix_broadcasts_search ON broadcasts "
            "USING gin (array_to_tsvector(string_to_array(search_words, ' ')))"
        )


def _fill_in_words() -> None:
    names = ("id", "title", "content", "category", "sender_name", "search_words")
    table = sa.table("broadcasts", *map(sa.column, names))
    connection = op.get_bind()
    for row in connection.execute(sa.select(table)).all():
        found = " ".join(tokenize(f"{row.title} {row.content} {row.category or ''} {row.sender_name}"))
        connection.execute(table.update().where(table.c.id == row.id).values(search_words=found))


def _index_on_sqlite() -> None:
    op.execute(
        "CREATE VIRTUAL TABLE broadcast_search USING fts5(search_words, content='broadcasts', content_rowid='id', "
        "tokenize='unicode61 remove_diacritics 0', prefix='2 3')"
    )
    op.execute("INSERT INTO broadcast_search(broadcast_search) VALUES ('rebuild')")
    op.execute(f"CREATE TRIGGER broadcast_search_insert AFTER INSERT ON broadcasts BEGIN {_TRIGGERS['INSERT']} END")
    op.execute(f"CREATE TRIGGER broadcast_search_delete AFTER DELETE ON broadcasts BEGIN {_TRIGGERS['DELETE']} END")
    op.execute(
        "CREATE TRIGGER broadcast_search_update AFTER UPDATE OF search_words ON broadcasts "
        f"BEGIN {_TRIGGERS['DELETE']} {_TRIGGERS['INSERT']} END"
    )


def downgrade() -> None:
    raise NotImplementedError("Data is never dropped; restore a backup instead.")
