"""The name of this system, made once with its database: what other systems at the same brokers tell it by."""

from sqlalchemy import CheckConstraint, String, select
from sqlalchemy.orm import Mapped, mapped_column

from broadcast.store.database import db

_DEFAULT_GROUP = "broadcast.bridge"


class SystemIdentity(db.Model):
    """One row. `name` is empty where events were read from Kafka before systems had names: their group stays what it was."""

    __tablename__ = "system_identity"
    __table_args__ = (CheckConstraint("id = 1", name="single"),)

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    name: Mapped[str] = mapped_column(String(32))


def get_kafka_group() -> str:
    """The group of this system at the brokers, unless a setting names another."""
    name = db.session.scalar(select(SystemIdentity.name))
    return f"{_DEFAULT_GROUP}.{name}" if name else _DEFAULT_GROUP
