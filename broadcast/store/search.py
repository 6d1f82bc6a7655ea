"""Full text of broadcasts: one question, answered by FTS5 on SQLite and by a tsvector on PostgreSQL.

Both index `broadcasts.search_words`, the words as `domain.words` folds them, so that both find the same. Every word asked for
must begin a word of the message; signs are looked for as typed.
"""

from sqlalchemy import ColumnElement, and_, literal, or_, text

from broadcast.domain.search_tokens import signs, words
from broadcast.store.database import db
from broadcast.store.models import Broadcast

_MOST_WORDS = 12


def matches(q: str) -> ColumnElement[bool]:
    """The condition that a broadcast has all of `q`; true for an empty text."""
    asked = words(q)[:_MOST_WORDS]
    conditions = [contains(part) for part in signs(q)[:_MOST_WORDS]]
    if asked:
        conditions.append(_on_sqlite(asked) if db.engine.dialect.name == "sqlite" else _on_postgresql(asked))
    return and_(literal(True), *conditions)


def contains(part: str) -> ColumnElement[bool]:
    """The condition that title or text has `part` as typed. Reads every row it is asked about."""
    pattern = "%" + part.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_") + "%"
    return or_(Broadcast.title.ilike(pattern, escape="\\"), Broadcast.content.ilike(pattern, escape="\\"))


def _on_sqlite(asked: list[str]) -> ColumnElement[bool]:
    found = text("SELECT rowid FROM broadcast_search WHERE broadcast_search MATCH :words")
    return Broadcast.id.in_(found.bindparams(words=" ".join(f'"{word}"*' for word in asked)).columns(Broadcast.id))


def _on_postgresql(asked: list[str]) -> ColumnElement[bool]:
    # the words as they are: to_tsquery would take them apart once more, by rules of its own
    vector = text("array_to_tsvector(string_to_array(broadcasts.search_words, ' ')) @@ CAST(:words AS tsquery)")
    return vector.bindparams(words=" & ".join(f"'{word}':*" for word in asked))
