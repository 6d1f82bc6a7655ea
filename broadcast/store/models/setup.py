"""The one row that allows creating the first administrator: the hash of a setup code, until it is used."""

from datetime import datetime

from sqlalchemy import CheckConstraint, String, delete, exists, select
from sqlalchemy.orm import Mapped, Session, mapped_column

from broadcast.store.database import db
from broadcast.store.models import UserRole


class SetupCode(db.Model):
    """Only the newest code is valid; only its SHA-256 is stored."""

    __tablename__ = "setup_codes"
    __table_args__ = (CheckConstraint("id = 1", name="single"),)

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    code_hash: Mapped[str] = mapped_column(String(64))
    created_at: Mapped[datetime]


def has_administrator() -> bool:
    """Whether there is or was an administrator: a disabled one counts, so that disabling does not reopen setup."""
    return db.session.scalar(select(exists().where(UserRole.role_name == "admin")))


def replace_code(session: Session, code_hash: str, *, at: datetime) -> None:
    """Replace the current code."""
    delete_code(session)
    session.add(SetupCode(id=1, code_hash=code_hash, created_at=at))


def delete_code(session: Session) -> None:
    session.execute(delete(SetupCode))


def consume_code(session: Session, code_hash: str) -> bool:
    """Consume the code; False when it is another one or was used concurrently."""
    return session.execute(delete(SetupCode).where(SetupCode.code_hash == code_hash)).rowcount == 1
