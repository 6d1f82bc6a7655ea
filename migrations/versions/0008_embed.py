"""embed: sessions in another site's pages, and which token began them"""

import sqlalchemy as sa
from alembic import op

Number = sa.BigInteger().with_variant(sa.Integer(), "sqlite")

revision = "0008_embed"
down_revision = "0007_rules"


def upgrade() -> None:
    op.add_column("sessions", sa.Column("origin", sa.String(200), nullable=True))
    op.add_column("sessions", sa.Column("token_id", Number, nullable=True))
    op.create_index(op.f("ix_sessions_token_id"), "sessions", ["token_id"])


def downgrade() -> None:
    raise NotImplementedError("Data is never dropped; restore a backup instead.")
