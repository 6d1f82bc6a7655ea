"""the console: richer audiences, drafts as typed, holding, showing again, archiving, saved audiences, templates"""

import sqlalchemy as sa
from alembic import op

Number = sa.BigInteger().with_variant(sa.Integer(), "sqlite")  # SQLite gives out row ids only for INTEGER

revision = "0003_console"
down_revision = "0002_kafka"

_FLAGS = ("match_all", "has_exceptions", "is_snapshot", "is_held")


def upgrade() -> None:
    for name in _FLAGS:
        op.add_column("broadcasts", sa.Column(name, sa.Boolean(), nullable=False, server_default=sa.false()))
    op.add_column("broadcasts", sa.Column("typed", sa.JSON(), nullable=True))
    op.add_column("broadcasts", sa.Column("renewed_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column("broadcasts", sa.Column("archived_at", sa.DateTime(timezone=True), nullable=True))
    for table, column, kind, target in (
        ("broadcast_except_roles", "role_name", sa.String(length=64), "roles.name"),
        ("broadcast_except_users", "user_id", Number, "users.id"),
    ):
        op.create_table(
            table,
            sa.Column("broadcast_id", Number, nullable=False),
            sa.Column(column, kind, nullable=False),
            sa.ForeignKeyConstraint(["broadcast_id"], ["broadcasts.id"], name=op.f(f"fk_{table}_broadcast_id")),
            sa.ForeignKeyConstraint([column], [target], name=op.f(f"fk_{table}_{column}")),
            sa.PrimaryKeyConstraint("broadcast_id", column, name=op.f(f"pk_{table}")),
        )
    op.create_table(
        "saved_audiences",
        sa.Column("id", Number, nullable=False),
        sa.Column("name", sa.String(length=80), nullable=False),
        sa.Column("target", sa.JSON(), nullable=False),
        sa.Column("created_by", Number, nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["created_by"], ["users.id"], name=op.f("fk_saved_audiences_created_by")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_saved_audiences")),
        sa.UniqueConstraint("name", name=op.f("uq_saved_audiences_name")),
    )
    op.create_table(
        "message_templates",
        sa.Column("id", Number, nullable=False),
        sa.Column("name", sa.String(length=80), nullable=False),
        sa.Column("title", sa.String(length=400), nullable=False),
        sa.Column("content", sa.Text(), nullable=False),
        sa.Column("priority", sa.String(length=16), nullable=False),
        sa.Column("category", sa.String(length=40), nullable=True),
        sa.Column("created_by", Number, nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["created_by"], ["users.id"], name=op.f("fk_message_templates_created_by")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_message_templates")),
        sa.UniqueConstraint("name", name=op.f("uq_message_templates_name")),
    )


def downgrade() -> None:
    raise NotImplementedError("Data is never dropped; restore a backup instead.")
