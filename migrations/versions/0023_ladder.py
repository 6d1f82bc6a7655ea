"""ladder: escalation policies with several steps and channels, fixed on a broadcast when it is published"""

import sqlalchemy as sa
from alembic import op

Number = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
Moment = sa.DateTime(timezone=True)

revision = "0023_ladder"
down_revision = "0022_channels"
# 0022 alone, which no release had, cannot work on this schema: its steps have another form
oldest_code = "0011_counting"

_IS_UNPLANNED = sa.text("planned_at IS NULL")
_MINUTES_BEFORE_PUSH = 1


def upgrade() -> None:
    op.add_column("broadcasts", sa.Column("escalation", sa.String(40)))
    op.add_column("broadcasts", sa.Column("escalation_plan", sa.JSON()))
    _create_policies()
    _replace_steps()
    with op.batch_alter_table("deliveries") as batch:
        batch.add_column(sa.Column("step_id", Number, nullable=False, server_default="0"))
        batch.drop_constraint(op.f("uq_deliveries_broadcast_id_revision_user_id_channel"), type_="unique")
        batch.create_unique_constraint(
            op.f("uq_deliveries_broadcast_id_revision_user_id_channel_step_id"),
            ["broadcast_id", "revision", "user_id", "channel", "step_id"],
        )
    with op.batch_alter_table("channel_settings") as batch:
        batch.drop_column("delays")
        batch.drop_column("planned_seq")


def _create_policies() -> None:
    """The delay of each priority becomes a policy; push comes before e-mail, where it is set up."""
    policies = op.create_table(
        "escalation_policies",
        sa.Column("id", Number, nullable=False),
        sa.Column("name", sa.String(40), nullable=False),
        sa.Column("steps", sa.JSON(), nullable=False),
        sa.Column("default_for", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_escalation_policies")),
        sa.UniqueConstraint("name", name=op.f("uq_escalation_policies_name")),
    )
    op.create_table(
        "escalation_progress",
        sa.Column("planned_seq", Number, nullable=False),
        sa.Column("id", Number, autoincrement=False, nullable=False),
        sa.CheckConstraint("id = 1", name=op.f("ck_escalation_progress_single")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_escalation_progress")),
    )
    settings = sa.table("channel_settings", sa.column("channel"), sa.column("delays", sa.JSON()))
    query = sa.select(settings.c.delays).where(settings.c.channel == "email")
    delays = op.get_bind().scalar(query) or {}
    rows = [
        {"name": priority.capitalize(), "steps": _build_steps(priority, seconds), "default_for": [priority]}
        for priority, seconds in delays.items()
    ]
    op.bulk_insert(policies, rows)
    op.execute(
        "INSERT INTO escalation_progress (id, planned_seq)"
        " SELECT 1, COALESCE((SELECT planned_seq FROM channel_settings WHERE channel = 'email'), seq) FROM log_head"
    )


def _build_steps(priority: str, seconds: float) -> list[dict]:
    steps = [{"minutes": round(seconds / 60), "awaits": "SEEN", "channel": "email"}]
    if priority == "URGENT" and seconds > _MINUTES_BEFORE_PUSH * 60:
        steps.insert(0, {"minutes": _MINUTES_BEFORE_PUSH, "awaits": "SEEN", "channel": "push"})
    return steps


def _replace_steps() -> None:
    """The table is made anew: its primary key changes."""
    op.execute("CREATE TABLE earlier_escalation_steps AS SELECT * FROM escalation_steps")
    op.drop_table("escalation_steps")
    op.create_table(
        "escalation_steps",
        sa.Column("id", Number, nullable=False),
        sa.Column("broadcast_id", Number, nullable=False),
        sa.Column("started_at", Moment, nullable=False),
        sa.Column("position", Number, nullable=False),
        sa.Column("channel", sa.String(16)),
        sa.Column("role", sa.String(64)),
        sa.Column("awaits", sa.String(16), nullable=False),
        sa.Column("skips_online", sa.Boolean(), nullable=False, server_default=sa.false()),
        sa.Column("revision", Number, nullable=False),
        sa.Column("due_at", Moment, nullable=False),
        sa.Column("planned_user_id", Number, nullable=False, server_default="0"),
        sa.Column("planned_at", Moment),
        sa.Column("people", Number, nullable=False, server_default="0"),
        sa.ForeignKeyConstraint(
            ["broadcast_id"], ["broadcasts.id"], name=op.f("fk_escalation_steps_broadcast_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_escalation_steps")),
        sa.UniqueConstraint(
            "broadcast_id", "started_at", "position",
            name=op.f("uq_escalation_steps_broadcast_id_started_at_position"),
        ),
    )  # fmt: skip
    op.create_index(
        op.f("ix_escalation_steps_due_at"), "escalation_steps", ["due_at"],
        sqlite_where=_IS_UNPLANNED, postgresql_where=_IS_UNPLANNED,
    )  # fmt: skip
    op.execute(
        "INSERT INTO escalation_steps (broadcast_id, started_at, position, channel, awaits, revision, due_at,"
        " planned_user_id, planned_at) SELECT broadcast_id, started_at, 0, channel, 'SEEN', revision, due_at,"
        " planned_user_id, planned_at FROM earlier_escalation_steps"
    )
    op.drop_table("earlier_escalation_steps")
