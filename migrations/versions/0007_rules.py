"""rules of sources: caps and quarantine, cards that count repeats, the newest events for a dry run"""

import sqlalchemy as sa
from alembic import op

Number = sa.BigInteger().with_variant(sa.Integer(), "sqlite")

revision = "0007_rules"
down_revision = "0006_deploy"


def upgrade() -> None:
    op.add_column("broadcasts", sa.Column("times", Number, nullable=False, server_default="1"))
    op.add_column("broadcasts", sa.Column("repeated_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column("broadcasts", sa.Column("quarantine_reason", sa.String(500), nullable=True))
    keyed = sa.text("collapse_key IS NOT NULL")
    op.create_index(
        "ix_broadcasts_source_collapse_key",
        "broadcasts",
        ["source", "collapse_key"],
        sqlite_where=keyed,
        postgresql_where=keyed,
    )
    for name in ("collapsed", "quarantined"):
        op.add_column("event_sources", sa.Column(name, Number, nullable=False, server_default="0"))
    op.create_table(
        "collapsed_events",
        sa.Column("source", sa.String(length=200), nullable=False),
        sa.Column("source_id", sa.String(length=200), nullable=False),
        sa.Column("broadcast_id", Number, nullable=False),
        sa.ForeignKeyConstraint(
            ["broadcast_id"], ["broadcasts.id"], name=op.f("fk_collapsed_events_broadcast_id")
        ),
        sa.PrimaryKeyConstraint("source", "source_id", name=op.f("pk_collapsed_events")),
    )
    op.create_index("ix_collapsed_events_broadcast_id", "collapsed_events", ["broadcast_id"])
    op.create_table(
        "rule_tallies",
        sa.Column("id", Number, nullable=False),
        sa.Column("source", sa.String(length=200), nullable=False),
        sa.Column("rule", sa.String(length=16), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("shown", Number, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_rule_tallies")),
    )
    op.create_index("ix_rule_tallies_source_rule_at", "rule_tallies", ["source", "rule", "at"])
    op.create_table(
        "event_samples",
        sa.Column("id", Number, nullable=False),
        sa.Column("source", sa.String(length=200), nullable=False),
        sa.Column("topic", sa.String(length=249), nullable=True),
        sa.Column("partition", Number, nullable=True),
        sa.Column("offset", Number, nullable=True),
        sa.Column("key", sa.LargeBinary(), nullable=True),
        sa.Column("value", sa.LargeBinary(), nullable=True),
        sa.Column("headers", sa.JSON(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_event_samples")),
    )
    op.create_index("ix_event_samples_source_id", "event_samples", ["source", "id"])


def downgrade() -> None:
    raise NotImplementedError("Data is never dropped; restore a backup instead.")
