"""console: the code of the first run, people by their words, who has muted what"""

import json
from collections.abc import Iterator

import sqlalchemy as sa
from alembic import op

from broadcast.domain.message import Priority
from broadcast.domain.search_tokens import tokenize

Number = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
Word = sa.String(64).with_variant(sa.String(64, collation="C"), "postgresql")

revision = "0009_console"
down_revision = "0008_embed"

_BATCH = 5000


def upgrade() -> None:
    op.create_table(
        "setup_codes",
        sa.Column("id", Number, autoincrement=False, nullable=False),
        sa.Column("code_hash", sa.String(64), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("id = 1", name=op.f("ck_setup_codes_single")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_setup_codes")),
    )
    few = sa.text("disabled_at IS NOT NULL")
    op.create_index("ix_users_disabled_at", "users", ["disabled_at"], postgresql_where=few, sqlite_where=few)
    found = _table_of_people("person_words", sa.Column("word", Word, nullable=False), index="user_id")
    silences = _table_of_people("silences", sa.Column("what", sa.String(80), nullable=False), index="what")
    connection = op.get_bind()
    for people in _people(connection):
        _insert(connection, found, ("word", "user_id"), _words_of(people))
        _insert(connection, silences, ("user_id", "what"), _silences_of(people))


def _table_of_people(name: str, column: sa.Column, *, index: str) -> sa.Table:
    key = (column.name, "user_id") if index == "user_id" else ("user_id", column.name)
    table = op.create_table(
        name,
        column,
        sa.Column("user_id", Number, nullable=False),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name=op.f(f"fk_{name}_user_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint(*key, name=op.f(f"pk_{name}")),
    )
    op.create_index(op.f(f"ix_{name}_{index}"), name, [index])
    return table


def _people(connection: sa.Connection) -> Iterator[list]:
    """Everybody, some thousands at a time."""
    names = ("id", "username", "name", "preferences")
    users = sa.table("users", *(sa.column(name, Number if name == "id" else None) for name in names))
    after = 0
    while batch := connection.execute(users.select().where(users.c.id > after).order_by(users.c.id).limit(_BATCH)).all():
        yield batch
        after = batch[-1].id


def _insert(connection: sa.Connection, table: sa.Table, columns: tuple[str, str], rows: list[tuple]) -> None:
    """By COPY where there is one: a million people took a quarter of an hour row by row."""
    if connection.dialect.name == "postgresql":
        with connection.connection.driver_connection.cursor() as cursor:
            with cursor.copy(f"COPY {table.name} ({', '.join(columns)}) FROM STDIN") as copy:
                for row in rows:
                    copy.write_row(row)
    elif rows:
        connection.execute(table.insert(), [dict(zip(columns, row, strict=True)) for row in rows])


def _words_of(people: list) -> list[tuple[str, int]]:
    return [(word, p.id) for p in people for word in sorted({*tokenize(p.username), *tokenize(p.name)})]


def _silences_of(people: list) -> list[tuple[int, str]]:
    found = []
    for person in people:
        wanted = person.preferences or {}
        wanted = json.loads(wanted) if isinstance(wanted, str) else wanted
        what = [f"category {name}" for name in wanted.get("mutedCategories", ())]
        rank = list(Priority).index(Priority(wanted.get("minimumPriority", Priority.LOW)))
        what += [f"priority {priority.value}" for priority in list(Priority)[: min(rank, len(Priority) - 1)]]
        found += [(person.id, one) for one in dict.fromkeys(what)]
    return found


def downgrade() -> None:
    op.drop_index("ix_users_disabled_at", "users")
    for name in ("silences", "person_words", "setup_codes"):
        op.drop_table(name)
