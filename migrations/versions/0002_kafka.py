"""dead letters and sources of events"""

import sqlalchemy as sa
from alembic import op

Number = sa.BigInteger().with_variant(sa.Integer(), "sqlite")

revision = "0002_kafka"
down_revision = "0001"


def upgrade() -> None:
    op.create_table(
        "dead_letters",
        sa.Column("id", Number, nullable=False),
        sa.Column("status", sa.String(length=16), nullable=False),
        sa.Column("topic", sa.String(length=249), nullable=False),
        sa.Column("partition", Number, nullable=False),
        sa.Column("offset", Number, nullable=False),
        sa.Column("timestamp_ms", Number, nullable=True),
        sa.Column("key", sa.LargeBinary(), nullable=True),
        sa.Column("value", sa.LargeBinary(), nullable=True),
        sa.Column("size", Number, nullable=False),
        sa.Column("headers", sa.JSON(), nullable=False),
        sa.Column("code", sa.String(length=40), nullable=False),
        sa.Column("reason", sa.String(length=2000), nullable=False),
        sa.Column("source", sa.String(length=200), nullable=True),
        sa.Column("source_id", sa.String(length=200), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("tries", Number, nullable=False),
        sa.Column("tried_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("broadcast_id", Number, nullable=True),
        sa.Column("forwarded_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("status IN ('WAITING','REDRIVEN','PURGED')", name=op.f("ck_dead_letters_status")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_dead_letters")),
        sa.UniqueConstraint("topic", "partition", "offset", name=op.f("uq_dead_letters_topic_partition_offset")),
    )
    with op.batch_alter_table("dead_letters", schema=None) as batch_op:
        batch_op.create_index("ix_dead_letters_status_id", ["status", "id"], unique=False)
    op.create_table(
        "event_sources",
        sa.Column("source", sa.String(length=260), nullable=False),
        sa.Column("published", Number, nullable=False),
        sa.Column("repeated", Number, nullable=False),
        sa.Column("cancelled", Number, nullable=False),
        sa.Column("rejected", Number, nullable=False),
        sa.Column("last_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("source", name=op.f("pk_event_sources")),
    )


def downgrade() -> None:
    raise NotImplementedError("Data is never dropped; restore a backup instead.")
