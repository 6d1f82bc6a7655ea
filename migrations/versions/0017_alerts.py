"""alerts: an alert that was put away is a receipt; when a snooze began; when a person first signed in"""

import sqlalchemy as sa
from alembic import op

revision = "0017_alerts"
down_revision = "0016_figures"
oldest_code = "0011_counting"


def upgrade() -> None:
    op.add_column("receipts", sa.Column("dismissed_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column("receipts", sa.Column("snoozed_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column("users", sa.Column("first_sign_in_at", sa.DateTime(timezone=True), nullable=True))
    # snoozing marks a message unread at that moment
    op.execute("UPDATE receipts SET snoozed_at = unread_at WHERE snoozed_until IS NOT NULL")
    op.execute(
        "UPDATE users SET first_sign_in_at = (SELECT min(created_at) FROM sessions WHERE sessions.user_id = users.id)"
    )


def downgrade() -> None:
    raise NotImplementedError("Data is never dropped; restore a backup instead.")
