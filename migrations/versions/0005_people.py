"""people: the audit as a chain that nobody changes, forced sign-out, reminders"""

import sqlalchemy as sa
from alembic import op

from broadcast.domain import audit_hash
from broadcast.store.types import UtcDateTime

Number = sa.BigInteger().with_variant(sa.Integer(), "sqlite")

revision = "0005_people"
down_revision = "0004_inbox"

_REFUSAL = "audit rows are never changed"


def upgrade() -> None:
    op.add_column("broadcasts", sa.Column("close_sessions", sa.Boolean(), nullable=False, server_default=sa.false()))
    op.add_column("broadcasts", sa.Column("reminded_at", sa.DateTime(timezone=True), nullable=True))
    version = op.create_table(
        "people_version",
        sa.Column("id", Number, autoincrement=False, nullable=False),
        sa.Column("version", sa.String(length=16), nullable=False),
        sa.CheckConstraint("id = 1", name=op.f("ck_people_version_single")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_people_version")),
    )
    op.bulk_insert(version, [{"id": 1, "version": ""}])
    _chain_the_audit()
    _refuse_changes()


def _chain_the_audit() -> None:
    op.add_column("audit", sa.Column("hash", sa.String(length=64), nullable=True))
    last_id, hash = _chain_rows()
    head = op.create_table(
        "audit_head",
        sa.Column("id", Number, autoincrement=False, nullable=False),
        sa.Column("last_id", Number, nullable=False),
        sa.Column("hash", sa.String(length=64), nullable=False),
        sa.CheckConstraint("id = 1", name=op.f("ck_audit_head_single")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_audit_head")),
    )
    op.bulk_insert(head, [{"id": 1, "last_id": last_id, "hash": hash}])
    with op.batch_alter_table("audit") as batch:
        batch.drop_constraint(op.f("fk_audit_actor_id"), type_="foreignkey")
        batch.alter_column("hash", existing_type=sa.String(length=64), nullable=False)


def _chain_rows() -> tuple[int, str]:
    """Number the rows that exist without gaps, and chain them."""
    columns = ("id", "at", "actor_id", "actor_name", "action", "object_type", "object_id", "detail", "hash")
    kinds = {"at": UtcDateTime(), "detail": sa.JSON(), "id": Number, "actor_id": Number}
    audit = sa.table("audit", *(sa.column(name, kinds.get(name, sa.String())) for name in columns))
    connection, number, hash = op.get_bind(), 0, audit_hash.GENESIS_HASH
    for old in connection.execute(sa.select(audit).order_by(audit.c.id)).mappings().all():
        number += 1
        row = dict(old) | {"id": number}
        row.pop("hash")
        hash = audit_hash.next_hash(hash, **row)
        connection.execute(audit.update().where(audit.c.id == old["id"]).values(id=number, hash=hash))
    return number, hash


def _refuse_changes() -> None:
    if op.get_bind().dialect.name == "sqlite":
        for verb in ("UPDATE", "DELETE"):
            op.execute(
                f"CREATE TRIGGER audit_refuses_{verb.lower()} BEFORE {verb} ON audit "
                f"BEGIN SELECT RAISE(ABORT, '{_REFUSAL}'); END"
            )
        return
    op.execute(
        "CREATE FUNCTION audit_refuses_change() RETURNS trigger LANGUAGE plpgsql AS "
        f"$$ BEGIN RAISE EXCEPTION '{_REFUSAL}'; END $$"
    )
    op.execute(
        "CREATE TRIGGER audit_refuses_change BEFORE UPDATE OR DELETE ON audit "
        "FOR EACH ROW EXECUTE FUNCTION audit_refuses_change()"
    )
    op.execute(
        "CREATE TRIGGER audit_refuses_truncate BEFORE TRUNCATE ON audit "
        "FOR EACH STATEMENT EXECUTE FUNCTION audit_refuses_change()"
    )


def downgrade() -> None:
    raise NotImplementedError("Data is never dropped; restore a backup instead.")
