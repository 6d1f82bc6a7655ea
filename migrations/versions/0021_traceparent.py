"""traceparent: the span of the request that wrote an event"""

import sqlalchemy as sa
from alembic import op

revision = "0021_traceparent"
down_revision = "0020_schema_support"
oldest_code = "0011_counting"


def upgrade() -> None:
    op.add_column("events", sa.Column("traceparent", sa.String(55), nullable=True))


def downgrade() -> None:
    op.drop_column("events", "traceparent")
