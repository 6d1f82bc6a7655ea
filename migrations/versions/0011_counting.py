"""counting: an index with everything that counting the unread asks of a broadcast"""

from alembic import op

revision = "0011_counting"
down_revision = "0010_organisations"

_NAME = "ix_broadcasts_counting"
_BEFORE = ["status", "seq", "expires_at", "audience_kind", "category"]


def upgrade() -> None:
    op.drop_index(_NAME, "broadcasts")
    op.create_index(_NAME, "broadcasts", [*_BEFORE, "match_all", "has_exceptions", "renewed_at"])


def downgrade() -> None:
    op.drop_index(_NAME, "broadcasts")
    op.create_index(_NAME, "broadcasts", _BEFORE)
