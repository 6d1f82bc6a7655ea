"""sizes: when a broadcast's receipts were deleted; drafts by their author; requests by their broadcast"""

import sqlalchemy as sa
from alembic import op

revision = "0013_sizes"
down_revision = "0012_content"
oldest_code = "0011_counting"

_DRAFTS = sa.text("status = 'DRAFT'")


def upgrade() -> None:
    op.add_column("broadcasts", sa.Column("receipts_deleted_at", sa.DateTime(timezone=True), nullable=True))
    op.create_index(
        "ix_broadcasts_sender_id_drafts", "broadcasts", ["sender_id"], postgresql_where=_DRAFTS, sqlite_where=_DRAFTS
    )
    op.create_index("ix_idempotency_keys_broadcast_id", "idempotency_keys", ["broadcast_id"])


def downgrade() -> None:
    op.drop_index("ix_idempotency_keys_broadcast_id", "idempotency_keys")
    op.drop_index("ix_broadcasts_sender_id_drafts", "broadcasts")
    op.drop_column("broadcasts", "receipts_deleted_at")
