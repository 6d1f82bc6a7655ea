"""Full-text search in broadcasts, with FTS5 on SQLite and a tsvector on PostgreSQL.

Both index `broadcasts.build_search_words`, the words as `domain.search_tokens` folds them, so that both find the same.
Every search word must be a prefix of a word of the message; punctuation is matched as typed.
"""

from sqlalchemy import ColumnElement, and_, literal, or_, text

from broadcast.domain.search_tokens import extract_literals, tokenize
from broadcast.store.database import db
from broadcast.store.models import Broadcast

_MAX_TOKENS = 12


def matches(q: str) -> ColumnElement[bool]:
    """The condition that a broadcast matches all of `q`; true for an empty text."""
    tokens = tokenize(q)[:_MAX_TOKENS]
    conditions = [_contains_literal(part) for part in extract_literals(q)[:_MAX_TOKENS]]
    if tokens:
        conditions.append(
            _matches_on_sqlite(tokens) if db.engine.dialect.name == "sqlite" else _matches_on_postgresql(tokens)
        )
    return and_(literal(True), *conditions)


def _contains_literal(part: str) -> ColumnElement[bool]:
    """The condition that title or text contains `part` as typed. Reads every candidate row."""
    return or_(Broadcast.title.icontains(part, autoescape=True), Broadcast.content.icontains(part, autoescape=True))


def _matches_on_sqlite(tokens: list[str]) -> ColumnElement[bool]:
    matching_ids = text("SELECT rowid FROM broadcast_search WHERE broadcast_search MATCH :words")
    return Broadcast.id.in_(
        matching_ids.bindparams(words=" ".join(f'"{word}"*' for word in tokens)).columns(Broadcast.id)
    )


def _matches_on_postgresql(tokens: list[str]) -> ColumnElement[bool]:
    # the words as they are: to_tsquery would split them again by its own rules
    condition = text("array_to_tsvector(string_to_array(broadcasts.search_words, ' ')) @@ CAST(:words AS tsquery)")
    return condition.bindparams(words=" & ".join(f"'{word}':*" for word in tokens))
