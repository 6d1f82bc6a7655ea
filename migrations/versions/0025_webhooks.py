"""webhooks: endpoints, events that are in no log, deliveries and attempts"""

import sqlalchemy as sa
from alembic import op

Number = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
Moment = sa.DateTime(timezone=True)

revision = "0025_webhooks"
down_revision = "0024_push"
oldest_code = "0011_counting"


def _belongs_to(table: str, column: str, other: str) -> sa.ForeignKeyConstraint:
    """Rows go with the other's: older code, which does not know this table, deletes broadcasts too."""
    return sa.ForeignKeyConstraint([column], [f"{other}.id"], name=op.f(f"fk_{table}_{column}"), ondelete="CASCADE")


def upgrade() -> None:
    op.create_table(
        "webhook_endpoints",
        sa.Column("id", Number, nullable=False),
        sa.Column("url", sa.String(2000), nullable=False),
        sa.Column("event_types", sa.JSON(), nullable=False),
        sa.Column("secret", sa.String(80), nullable=False),
        sa.Column("previous_secret", sa.String(80)),
        sa.Column("previous_secret_until", Moment),
        sa.Column("planned_seq", Number, nullable=False),
        sa.Column("created_at", Moment, nullable=False),
        sa.Column("paused_at", Moment),
        sa.Column("gone_at", Moment),
        sa.Column("failing_since", Moment),
        sa.Column("problem", sa.String(300)),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_webhook_endpoints")),
    )
    op.create_table(
        "webhook_events",
        sa.Column("id", Number, nullable=False),
        sa.Column("type", sa.String(32), nullable=False),
        sa.Column("broadcast_id", Number, nullable=False),
        sa.Column("data", sa.JSON(), nullable=False),
        sa.Column("at", Moment, nullable=False),
        _belongs_to("webhook_events", "broadcast_id", "broadcasts"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_webhook_events")),
    )
    op.create_index(op.f("ix_webhook_events_broadcast_id"), "webhook_events", ["broadcast_id"])
    op.create_table(
        "webhook_deliveries",
        sa.Column("id", Number, nullable=False),
        sa.Column("endpoint_id", Number, nullable=False),
        sa.Column("broadcast_id", Number, nullable=False),
        sa.Column("type", sa.String(32), nullable=False),
        sa.Column("message_id", sa.String(64), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("due_at", Moment, nullable=False),
        sa.Column("attempts", Number, nullable=False),
        sa.Column("created_at", Moment, nullable=False),
        sa.Column("ended_at", Moment),
        sa.Column("reason", sa.String(300)),
        sa.CheckConstraint("state IN ('WAITING','SENT','FAILED','CANCELLED')", name=op.f("ck_webhook_deliveries_state")),
        _belongs_to("webhook_deliveries", "endpoint_id", "webhook_endpoints"),
        _belongs_to("webhook_deliveries", "broadcast_id", "broadcasts"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_webhook_deliveries")),
        sa.UniqueConstraint("endpoint_id", "message_id", name=op.f("uq_webhook_deliveries_endpoint_id_message_id")),
    )
    is_waiting = sa.text("state = 'WAITING'")
    for name, columns in (("waiting", ["due_at", "id"]), ("waiting_broadcast", ["broadcast_id", "id"])):
        op.create_index(
            op.f(f"ix_webhook_deliveries_{name}"), "webhook_deliveries", ["endpoint_id", *columns],
            sqlite_where=is_waiting, postgresql_where=is_waiting,
        )  # fmt: skip
    op.create_index(op.f("ix_webhook_deliveries_endpoint_id_id"), "webhook_deliveries", ["endpoint_id", "id"])
    op.create_index(op.f("ix_webhook_deliveries_ended_at"), "webhook_deliveries", ["ended_at"])
    op.create_index(op.f("ix_webhook_deliveries_broadcast_id"), "webhook_deliveries", ["broadcast_id"])
    op.create_table(
        "webhook_attempts",
        sa.Column("id", Number, nullable=False),
        sa.Column("delivery_id", Number, nullable=False),
        sa.Column("at", Moment, nullable=False),
        sa.Column("status", Number),
        sa.Column("duration_ms", Number, nullable=False),
        sa.Column("answer", sa.String(300), nullable=False),
        _belongs_to("webhook_attempts", "delivery_id", "webhook_deliveries"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_webhook_attempts")),
    )
    op.create_index(op.f("ix_webhook_attempts_delivery_id"), "webhook_attempts", ["delivery_id"])


def downgrade() -> None:
    for table in ("webhook_attempts", "webhook_deliveries", "webhook_events", "webhook_endpoints"):
        op.drop_table(table)
