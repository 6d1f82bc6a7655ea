"""schema support: how old the code may be that works on this schema"""

import sqlalchemy as sa
from alembic import op

revision = "0020_schema_support"
down_revision = "0019_accounts"
oldest_code = "0011_counting"


def upgrade() -> None:
    op.create_table(
        "schema_support",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer, "sqlite"), autoincrement=False, nullable=False),
        sa.Column("oldest_code", sa.String(64), nullable=False),
        sa.CheckConstraint("id = 1", name=op.f("ck_schema_support_single")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_schema_support")),
    )
    op.execute("INSERT INTO schema_support (id, oldest_code) VALUES (1, '0011_counting')")


def downgrade() -> None:
    op.drop_table("schema_support")
