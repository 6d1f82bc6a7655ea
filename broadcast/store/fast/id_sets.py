"""Very many ids in one query: they go as one parameter, so that fifty thousand cost one round trip, not a hundred."""

import json
from collections.abc import Collection
from typing import Any

from sqlalchemy import ARRAY, BigInteger, ColumnElement, Integer, any_, cast, func, literal, select

from broadcast.store.database import db
from broadcast.store.engine import RUN_IN_THREAD

_THREAD_THRESHOLD_IDS = 2000  # ids; above that SQLite runs in a thread, as it would block the worker


def is_one_of(column: Any, ids: Collection[int]) -> ColumnElement[bool]:
    """The condition that a column is one of these ids."""
    if db.engine.dialect.name == "sqlite":
        values = func.json_each(json.dumps(sorted(ids))).table_valued("value")
        return column.in_(select(cast(values.c.value, Integer)))
    return column == any_(literal(sorted(ids), ARRAY(BigInteger)))


def get_execution_options(ids: Collection[int]) -> dict[str, Any]:
    """The execution options of a statement that counts among these ids."""
    return RUN_IN_THREAD if len(ids) > _THREAD_THRESHOLD_IDS else {}
