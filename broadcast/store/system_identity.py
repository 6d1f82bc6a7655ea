"""The name of this system, created once with its database: it distinguishes systems at the same brokers."""

from sqlalchemy import CheckConstraint, String, select
from sqlalchemy.orm import Mapped, mapped_column

from broadcast.store.database import db

_DEFAULT_GROUP = "broadcast.bridge"


class SystemIdentity(db.Model):
    """One row. `name` is empty where Kafka was read before systems had names: their consumer group stays the same."""

    __tablename__ = "system_identity"
    __table_args__ = (CheckConstraint("id = 1", name="single"),)

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    name: Mapped[str] = mapped_column(String(32))


def get_kafka_group() -> str:
    """The Kafka consumer group of this system, unless a setting overrides it."""
    name = db.session.scalar(select(SystemIdentity.name))
    return f"{_DEFAULT_GROUP}.{name}" if name else _DEFAULT_GROUP
