"""A broadcast before it is in the database, for code that creates hundreds at once.

Setting an attribute of a mapped object takes SQLAlchemy ten times as long as setting a plain one, and a broadcast has
forty: that alone was a third of the cost of an inbound event.
"""

from typing import Any, NamedTuple

from broadcast.store.models import Broadcast
from broadcast.store.models.broadcasts import build_search_words

_DEFAULTS = {c.key: c.default.arg for c in Broadcast.__table__.columns if c.default is not None and c.default.is_scalar}
_INITIAL_VALUES = {column.key: _DEFAULTS.get(column.key) for column in Broadcast.__table__.columns}


class RoleRow(NamedTuple):
    """Stands in for the role row of a stored broadcast."""

    role_name: str


class NewBroadcast:
    """The columns of Broadcast as plain attributes, at their defaults or None until set, with its read-only properties.

    `store.broadcasts.add_many` inserts it and assigns its id; it is never in a session.
    """

    role_rows: tuple[RoleRow, ...] | list[RoleRow] = ()
    except_role_rows: tuple[RoleRow, ...] | list[RoleRow] = ()

    is_live, is_quarantined, is_untouched = Broadcast.is_live, Broadcast.is_quarantined, Broadcast.is_untouched
    target_type, role_names, except_role_names = (
        Broadcast.target_type,
        Broadcast.role_names,
        Broadcast.except_role_names,
    )
    why, to_card = Broadcast.why, Broadcast.to_card

    def __init__(self, **values: Any):
        vars(self).update(values)

    def to_row(self) -> dict[str, Any]:
        """Every column of Broadcast with its value."""
        row = _INITIAL_VALUES | vars(self)
        for relation in ("role_rows", "except_role_rows"):
            row.pop(relation, None)
        row["search_words"] = build_search_words(self.title, self.content, self.category, self.sender_name)
        return row


for _name, _value in _INITIAL_VALUES.items():
    setattr(NewBroadcast, _name, _value)
