"""sources: whose an event's name is, how much one account or topic showed, whole batches that cannot be read, a name for
this system at the brokers

All of it is added beside what was there, so that a worker of the version before can still write. Of a broadcast without a
`source_owner`, the owner is whoever sent it.
"""

import secrets

import sqlalchemy as sa
from alembic import op

Number = sa.BigInteger().with_variant(sa.Integer(), "sqlite")

revision = "0014_sources"
down_revision = "0013_sizes"
oldest_code = "0011_counting"

_WAITING = sa.text("quarantine_reason IS NOT NULL AND status = 'DRAFT'")


def upgrade() -> None:
    op.add_column("dead_letters", sa.Column("last_offset", Number, nullable=True))
    op.add_column("broadcasts", sa.Column("source_owner", sa.String(260), nullable=True))
    op.create_index(
        "ix_broadcasts_quarantined", "broadcasts", ["source_owner"], sqlite_where=_WAITING, postgresql_where=_WAITING
    )
    op.create_table(
        "event_names",
        sa.Column("owner", sa.String(260), nullable=False),
        sa.Column("source", sa.String(200), nullable=False),
        sa.Column("source_id", sa.String(200), nullable=False),
        sa.Column("broadcast_id", Number, nullable=False),
        sa.ForeignKeyConstraint(["broadcast_id"], ["broadcasts.id"], name=op.f("fk_event_names_broadcast_id")),
        sa.PrimaryKeyConstraint("owner", "source", "source_id", name=op.f("pk_event_names")),
    )
    op.create_index("ix_event_names_broadcast_id", "event_names", ["broadcast_id"])
    op.create_table(
        "event_senders",
        sa.Column("owner", sa.String(260), nullable=False),
        sa.Column("last_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("owner", name=op.f("pk_event_senders")),
    )
    op.add_column("event_samples", sa.Column("owner", sa.String(260), nullable=True))
    op.add_column("rule_tallies", sa.Column("owner", sa.String(260), nullable=True))
    op.create_index("ix_rule_tallies_owner_rule_at", "rule_tallies", ["owner", "rule", "at"])
    identity = op.create_table(
        "system_identity",
        sa.Column("id", Number, autoincrement=False, nullable=False),
        sa.Column("name", sa.String(32), nullable=False),
        sa.CheckConstraint("id = 1", name=op.f("ck_system_identity_single")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_system_identity")),
    )
    # Whoever has read from Kafka has its offsets under the group of before; under another, old events would go out again.
    account = sa.text("SELECT count(*) FROM users WHERE username = :name").bindparams(name=":events")
    has_read = op.get_bind().scalar(account)
    op.get_bind().execute(identity.insert().values(id=1, name="" if has_read else secrets.token_hex(6)))


def downgrade() -> None:
    op.drop_table("system_identity")
    op.drop_index("ix_rule_tallies_owner_rule_at", "rule_tallies")
    op.drop_column("rule_tallies", "owner")
    op.drop_column("event_samples", "owner")
    op.drop_table("event_senders")
    op.drop_table("event_names")
    op.drop_index("ix_broadcasts_quarantined", "broadcasts")
    op.drop_column("broadcasts", "source_owner")
    op.drop_column("dead_letters", "last_offset")
