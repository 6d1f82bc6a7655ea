"""channels: e-mail addresses, the outbox, and the steps of escalation"""

import sqlalchemy as sa
from alembic import op

Number = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
Moment = sa.DateTime(timezone=True)

revision = "0022_channels"
down_revision = "0021_traceparent"
oldest_code = "0011_counting"


def _belongs_to(table: str, column: str, other: str) -> sa.ForeignKeyConstraint:
    """Rows go with the other's: older code, which does not know this table, deletes broadcasts too."""
    return sa.ForeignKeyConstraint([column], [f"{other}.id"], name=op.f(f"fk_{table}_{column}"), ondelete="CASCADE")


def upgrade() -> None:
    op.create_table(
        "channel_settings",
        sa.Column("channel", sa.String(16), nullable=False),
        sa.Column("delays", sa.JSON(), nullable=False),
        sa.Column("planned_seq", Number, nullable=False),
        sa.Column("paused_at", Moment),
        sa.Column("failing_since", Moment),
        sa.Column("problem", sa.String(300)),
        sa.PrimaryKeyConstraint("channel", name=op.f("pk_channel_settings")),
    )
    op.create_table(
        "escalation_steps",
        sa.Column("broadcast_id", Number, nullable=False),
        sa.Column("started_at", Moment, nullable=False),
        sa.Column("channel", sa.String(16), nullable=False),
        sa.Column("revision", Number, nullable=False),
        sa.Column("due_at", Moment, nullable=False),
        sa.Column("planned_user_id", Number, nullable=False, server_default="0"),
        sa.Column("planned_at", Moment),
        _belongs_to("escalation_steps", "broadcast_id", "broadcasts"),
        sa.PrimaryKeyConstraint("broadcast_id", "started_at", "channel", name=op.f("pk_escalation_steps")),
    )
    is_unplanned = sa.text("planned_at IS NULL")
    op.create_index(
        op.f("ix_escalation_steps_due_at"), "escalation_steps", ["due_at"],
        sqlite_where=is_unplanned, postgresql_where=is_unplanned,
    )  # fmt: skip
    op.create_table(
        "deliveries",
        sa.Column("id", Number, nullable=False),
        sa.Column("broadcast_id", Number, nullable=False),
        sa.Column("revision", Number, nullable=False),
        sa.Column("user_id", Number, nullable=False),
        sa.Column("channel", sa.String(16), nullable=False),
        sa.Column("message_id", sa.String(64), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("due_at", Moment, nullable=False),
        sa.Column("attempts", Number, nullable=False),
        sa.Column("created_at", Moment, nullable=False),
        sa.Column("ended_at", Moment),
        sa.Column("reason", sa.String(300)),
        sa.CheckConstraint("state IN ('WAITING','SENT','FAILED','CANCELLED')", name=op.f("ck_deliveries_state")),
        _belongs_to("deliveries", "broadcast_id", "broadcasts"),
        _belongs_to("deliveries", "user_id", "users"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_deliveries")),
        sa.UniqueConstraint(
            "broadcast_id", "revision", "user_id", "channel",
            name=op.f("uq_deliveries_broadcast_id_revision_user_id_channel"),
        ),
    )  # fmt: skip
    is_waiting = sa.text("state = 'WAITING'")
    op.create_index(
        op.f("ix_deliveries_waiting"), "deliveries", ["channel", "due_at"],
        sqlite_where=is_waiting, postgresql_where=is_waiting,
    )  # fmt: skip
    op.create_index(op.f("ix_deliveries_channel_state_ended_at"), "deliveries", ["channel", "state", "ended_at"])
    op.create_index(op.f("ix_deliveries_user_id"), "deliveries", ["user_id"])
    op.create_table(
        "email_addresses",
        sa.Column("user_id", Number, autoincrement=False, nullable=False),
        sa.Column("address", sa.String(254)),
        sa.Column("verified_at", Moment),
        sa.Column("is_from_provider", sa.Boolean(), nullable=False),
        sa.Column("pending_address", sa.String(254)),
        sa.Column("pending_since", Moment),
        sa.Column("failing_since", Moment),
        sa.Column("problem", sa.String(300)),
        _belongs_to("email_addresses", "user_id", "users"),
        sa.PrimaryKeyConstraint("user_id", name=op.f("pk_email_addresses")),
    )
    # what was sent before is not planned: nobody gets e-mail of last month's messages
    op.execute(
        "INSERT INTO channel_settings (channel, delays, planned_seq)"
        """ SELECT 'email', '{"URGENT": 120}', seq FROM log_head"""
    )


def downgrade() -> None:
    for table in ("email_addresses", "deliveries", "escalation_steps", "channel_settings"):
        op.drop_table(table)
