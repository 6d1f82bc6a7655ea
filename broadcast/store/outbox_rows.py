"""What all outboxes share: claiming rows under a lease, and recording what became of them.

A row is claimed by moving its `due_at` to the end of the lease. `attempts` grows with each claim, so a worker that lost
its lease changes nothing any more.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, TypeVar

from sqlalchemy import ColumnElement, select, update
from sqlalchemy.orm import Session

from broadcast.store.models import Delivery, WebhookDelivery

MAX_REASON_CHARACTERS = 300
Row = TypeVar("Row", Delivery, WebhookDelivery)


def claim(
    session: Session,
    table: type[Row],
    conditions: Sequence[ColumnElement[bool]],
    *,
    order_by: Sequence[ColumnElement[Any]],
    until: datetime,
    limit: int,
) -> Sequence[Row]:
    """Claim the first rows that meet the conditions. A server judges these again for a row that it waited for."""
    query = select(table).where(*conditions).order_by(*order_by).limit(limit)
    rows = session.scalars(query.with_for_update(skip_locked=True)).all()
    for row in rows:
        row.attempts, row.due_at = row.attempts + 1, until
    return rows


def update_claimed(session: Session, table: type[Row], row_id: int, attempts: int, **values: Any) -> bool:
    """Change a row, unless the lease ended and another worker has claimed it since; True if it was changed."""
    is_still_claimed = (table.id == row_id, table.state == "WAITING", table.attempts == attempts)
    return session.execute(update(table.__table__).where(*is_still_claimed).values(values)).rowcount > 0


def trim_reason(reason: str | None) -> str | None:
    return reason and reason[:MAX_REASON_CHARACTERS]
