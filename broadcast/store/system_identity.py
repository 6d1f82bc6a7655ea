"""The name of this system, created once with its database: it distinguishes systems at the same brokers."""

from sqlalchemy import select

from broadcast.store.database import db
from broadcast.store.models import SystemIdentity

_DEFAULT_GROUP = "broadcast.bridge"


def get_kafka_group() -> str:
    """The Kafka consumer group of this system, unless a setting overrides it."""
    name = db.session.scalar(select(SystemIdentity.name))
    return f"{_DEFAULT_GROUP}.{name}" if name else _DEFAULT_GROUP
