"""plans: by whose right a plan goes out, why it waits for a decision, and when the scheduler last ran"""

import sqlalchemy as sa
from alembic import op

Number = sa.BigInteger().with_variant(sa.Integer(), "sqlite")

revision = "0015_plans"
down_revision = "0014_sources"
oldest_code = "0011_counting"


def upgrade() -> None:
    op.add_column("broadcasts", sa.Column("planned_by_id", Number, nullable=True))
    op.add_column("broadcasts", sa.Column("decision_reason", sa.String(16), nullable=True))
    op.execute("UPDATE broadcasts SET planned_by_id = sender_id WHERE status = 'SCHEDULED' AND source IS NULL")
    op.create_table(
        "scheduler_state",
        sa.Column("id", Number, autoincrement=False, nullable=False),
        sa.Column("ran_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("id = 1", name=op.f("ck_scheduler_state_single")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_scheduler_state")),
    )


def downgrade() -> None:
    op.drop_table("scheduler_state")
    for column in ("decision_reason", "planned_by_id"):
        op.drop_column("broadcasts", column)
