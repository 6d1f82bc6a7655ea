"""accounts: people who are deleted, roles that are deleted, invitations"""

import sqlalchemy as sa
from alembic import op

Number = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
Moment = sa.DateTime(timezone=True)

revision = "0019_accounts"
down_revision = "0018_provider_sessions"
oldest_code = "0011_counting"


def upgrade() -> None:
    op.add_column("users", sa.Column("deleted_at", Moment))
    op.add_column("roles", sa.Column("deleted_at", Moment))
    op.create_table(
        "invitations",
        sa.Column("user_id", Number, nullable=False),
        sa.Column("token_hash", sa.String(64), nullable=False),
        sa.Column("created_at", Moment, nullable=False),
        sa.Column("expires_at", Moment, nullable=False),
        sa.Column("created_by", Number),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name=op.f("fk_invitations_user_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("user_id", name=op.f("pk_invitations")),
        sa.UniqueConstraint("token_hash", name=op.f("uq_invitations_token_hash")),
    )


def downgrade() -> None:
    op.drop_table("invitations")
    op.drop_column("roles", "deleted_at")
    op.drop_column("users", "deleted_at")
