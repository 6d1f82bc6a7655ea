"""content: the variables of a message template, so that a list of templates reads none of them"""

import sqlalchemy as sa
from alembic import op

revision = "0012_content"
down_revision = "0011_counting"
oldest_code = "0011_counting"


def upgrade() -> None:
    op.add_column("message_templates", sa.Column("variables", sa.JSON(), nullable=True))


def downgrade() -> None:
    op.drop_column("message_templates", "variables")
