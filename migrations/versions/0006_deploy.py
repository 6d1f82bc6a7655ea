"""deploy: which request an event came from"""

import sqlalchemy as sa
from alembic import op

revision = "0006_deploy"
down_revision = "0005_people"


def upgrade() -> None:
    op.add_column("events", sa.Column("correlation", sa.String(64), nullable=True))


def downgrade() -> None:
    op.drop_column("events", "correlation")
