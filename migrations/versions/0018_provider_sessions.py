"""provider sessions: which session at the organisation's provider began a session here, and what was ended there"""

import sqlalchemy as sa
from alembic import op

revision = "0018_provider_sessions"
down_revision = "0017_alerts"
oldest_code = "0011_counting"


def upgrade() -> None:
    op.add_column("sessions", sa.Column("issuer", sa.String(255), nullable=True))
    op.add_column("sessions", sa.Column("provider_session", sa.String(255), nullable=True))
    op.create_index(op.f("ix_sessions_provider_session"), "sessions", ["provider_session"])
    op.create_table(
        "provider_logouts",
        sa.Column("issuer", sa.String(255), nullable=False),
        sa.Column("token_id", sa.String(255), nullable=False),
        sa.Column("subject", sa.String(255), nullable=True),
        sa.Column("provider_session", sa.String(255), nullable=True),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("issuer", "token_id", name=op.f("pk_provider_logouts")),
    )
    op.create_index(op.f("ix_provider_logouts_at"), "provider_logouts", ["at"])


def downgrade() -> None:
    raise NotImplementedError("Data is never dropped; restore a backup instead.")
