"""The texts that users acknowledged, and those they may be acknowledging just now."""

from collections.abc import Iterable, Sequence
from datetime import datetime

from sqlalchemy import delete, func, select, tuple_, update
from sqlalchemy.orm import Session

from broadcast.domain.card import Card
from broadcast.domain.revisions import MAX_UNACKNOWLEDGED_TEXTS, hash_text
from broadcast.store.database import build_insert, db
from broadcast.store.models import EarlierAcknowledgement, Receipt, RevisionText


def hash_card_text(card: Card) -> str:
    return hash_text(card.title, card.content, card.actions)


def save_text(session: Session, card: Card, *, is_acknowledged: bool = False) -> None:
    """Store the text of this revision; of texts nobody acknowledged, only the newest is kept."""
    links = [{"label": link.label, "url": link.url} for link in card.actions]
    row = {"broadcast_id": card.id, "revision": card.revision, "hash": hash_card_text(card), "title": card.title}
    row |= {"content": card.content, "actions": links, "is_acknowledged": is_acknowledged}
    statement = build_insert(session, RevisionText).values(row)
    session.execute(statement.on_conflict_do_nothing(index_elements=["broadcast_id", "revision"]))
    if is_acknowledged:
        mark_acknowledged(session, card.id, card.revision)
        return
    is_too_old = RevisionText.revision <= card.revision - MAX_UNACKNOWLEDGED_TEXTS
    session.execute(
        delete(RevisionText)
        .where(RevisionText.broadcast_id == card.id, RevisionText.is_acknowledged.is_(False), is_too_old)
        .execution_options(synchronize_session=False)
    )


def mark_acknowledged(session: Session, broadcast_id: int, revision: int) -> None:
    """Keep this text as long as the receipts from now on."""
    session.execute(
        update(RevisionText)
        .where(RevisionText.broadcast_id == broadcast_id, RevisionText.revision == revision)
        .where(RevisionText.is_acknowledged.is_(False))
        .values(is_acknowledged=True)
        .execution_options(synchronize_session=False)
    )


def get_text(broadcast_id: int, revision: int) -> RevisionText | None:
    """The stored text of a revision, or None."""
    return db.session.get(RevisionText, (broadcast_id, revision)) if 0 < revision < 2**63 else None


def get_hashes(revision_keys: Iterable[tuple[int, int]]) -> dict[tuple[int, int], str]:
    """Text hashes by (broadcast id, revision), for those revisions whose texts are stored."""
    key = (RevisionText.broadcast_id, RevisionText.revision)
    query = select(*key, RevisionText.hash).where(tuple_(*key).in_(list(revision_keys)))
    return {(broadcast_id, revision): digest for broadcast_id, revision, digest in db.session.execute(query)}


def list_acknowledged(broadcast_id: int, *, limit: int) -> list[RevisionText]:
    """Texts of a broadcast that somebody acknowledged, newest first."""
    query = select(RevisionText).where(RevisionText.broadcast_id == broadcast_id, RevisionText.is_acknowledged)
    return list(db.session.scalars(query.order_by(RevisionText.revision.desc()).limit(limit)))


def save_acknowledgements(
    session: Session, user_id: int, acknowledgements: Sequence[tuple[int, int, str]], *, at: datetime
) -> None:
    """Store acknowledgements, given as (broadcast id, revision, text hash); replaced ones are kept as earlier ones."""
    ids = [broadcast_id for broadcast_id, *_ in acknowledgements]
    replaced = select(
        Receipt.broadcast_id,
        Receipt.user_id,
        func.coalesce(Receipt.acked_revision, 0),
        Receipt.acked_hash,
        Receipt.acked_at,
    ).where(Receipt.user_id == user_id, Receipt.broadcast_id.in_(ids), Receipt.acked_at.is_not(None))
    key = ["broadcast_id", "user_id", "revision"]
    statement = build_insert(session, EarlierAcknowledgement).from_select([*key, "hash", "at"], replaced)
    session.execute(statement.on_conflict_do_nothing(index_elements=key))
    for broadcast_id, revision, digest in sorted(acknowledgements):
        values = {"acked_at": at, "acked_revision": revision, "acked_hash": digest}
        statement = build_insert(session, Receipt).values(
            broadcast_id=broadcast_id, user_id=user_id, delivered_at=at, **values
        )
        session.execute(statement.on_conflict_do_update(index_elements=["broadcast_id", "user_id"], set_=values))
