"""mail: how fast e-mail may go, digests, and corrections after a recall"""

import sqlalchemy as sa
from alembic import op

Number = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
Moment = sa.DateTime(timezone=True)

revision = "0026_mail"
down_revision = "0025_webhooks"
oldest_code = "0011_counting"


def upgrade() -> None:
    pace = op.create_table(
        "email_pace",
        sa.Column("id", Number, autoincrement=False, nullable=False),
        sa.Column("next_at", Moment),
        sa.CheckConstraint("id = 1", name=op.f("ck_email_pace_single")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_email_pace")),
    )
    op.bulk_insert(pace, [{"id": 1}])
    op.create_table(
        "digests",
        sa.Column("user_id", Number, autoincrement=False, nullable=False),
        sa.Column("period_at", Moment, nullable=False),
        sa.Column("due_at", Moment, nullable=False),
        sa.Column("attempts", Number, nullable=False, server_default="0"),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name=op.f("fk_digests_user_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("user_id", name=op.f("pk_digests")),
    )
    op.create_index(op.f("ix_digests_due_at"), "digests", ["due_at"])
    op.create_table(
        "recall_corrections",
        sa.Column("broadcast_id", Number, autoincrement=False, nullable=False),
        sa.Column("recalled_at", Moment, nullable=False),
        sa.Column("planned_at", Moment),
        sa.Column("finished_at", Moment),
        sa.ForeignKeyConstraint(
            ["broadcast_id"], ["broadcasts.id"], name=op.f("fk_recall_corrections_broadcast_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("broadcast_id", name=op.f("pk_recall_corrections")),
    )
    is_unfinished = sa.text("finished_at IS NULL")
    op.create_index(
        op.f("ix_recall_corrections_unfinished"), "recall_corrections", ["recalled_at"],
        sqlite_where=is_unfinished, postgresql_where=is_unfinished,
    )  # fmt: skip


def downgrade() -> None:
    for table in ("recall_corrections", "digests", "email_pace"):
        op.drop_table(table)
