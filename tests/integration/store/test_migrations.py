"""What migrations do to existing rows: on a copy of an older database."""

import json
from pathlib import Path

import flask_migrate
import pytest
import sqlalchemy

from broadcast.config.settings import Settings
from broadcast.domain.revisions import hash_text
from broadcast.factory import create_app
from broadcast.store import acknowledged_revisions, broadcast_totals, users
from broadcast.store.database import db
from broadcast.store.models import Broadcast, Mute, Receipt

_PERSON = sqlalchemy.text(
    "INSERT INTO users (username, name, created_at, read_through_seq, preferences)"
    " VALUES (:username, :name, '2026-01-01 00:00:00', 0, :preferences)"
)


def test_people_of_an_older_database_are_found_by_their_words_and_keep_their_mutes(tmp_path: Path):
    app = create_app(Settings(app_env="test", data_dir=tmp_path, secret_key="k" * 40, log_level="error"))
    with app.app_context():
        flask_migrate.upgrade(revision="0006_deploy")
        with db.engine.begin() as connection:
            wanted = '{"mutedCategories": ["News", "News"], "minimumPriority": "HIGH"}'
            connection.execute(_PERSON, {"username": "bea", "name": "Bea Ärger", "preferences": wanted})
            connection.execute(_PERSON, {"username": "carl", "name": "Carl", "preferences": "{}"})
        flask_migrate.upgrade()
        assert [user.username for user in users.search("arger", limit=5)] == ["bea"]
        found = db.session.scalars(sqlalchemy.select(Mute.what).order_by(Mute.what))
        assert list(found) == ["category News", "priority LOW", "priority NORMAL"]
        db.session.remove()
        db.engine.dispose()


@pytest.mark.usefixtures("in_app")
def test_what_a_migration_says_of_older_code_is_committed():
    """On SQLite too, where each migration ends its own transaction."""
    with db.engine.begin() as connection:
        said = connection.scalar(sqlalchemy.text("SELECT oldest_code FROM schema_support"))
        connection.execute(sqlalchemy.text("UPDATE schema_support SET oldest_code = 'another'"))
    flask_migrate.upgrade()
    with db.engine.connect() as connection:
        assert connection.scalar(sqlalchemy.text("SELECT oldest_code FROM schema_support")) == said


@pytest.mark.usefixtures("in_app")
def test_indexes_of_the_models_are_those_that_the_migrations_made():
    inspector = sqlalchemy.inspect(db.engine)
    for table in db.metadata.sorted_tables:
        made = {index["name"]: index["column_names"] for index in inspector.get_indexes(table.name)}
        for index in table.indexes:
            assert made[index.name] == [column.name for column in index.columns], index.name


_BROADCAST = sqlalchemy.text(
    "INSERT INTO broadcasts (id, seq, status, revision, title, content, content_html, priority, actions, audience_kind,"
    " audience_count, requires_ack, match_all, has_exceptions, is_snapshot, is_held, sender_id, sender_name, created_at,"
    " updated_at, published_at, edited_at, close_sessions)"
    " VALUES (:id, :id, 'ACTIVE', 2, 'Lifts', 'Second', '', 'NORMAL', '[]', 'everyone', 2, :yes, :no, :no, :no, :no, 1, 'Bea',"
    " '2026-01-01 00:00:00', '2026-01-01 00:00:00', '2026-01-01 00:00:00', '2026-01-02 12:00:00', :no)"
)
_EVENT = sqlalchemy.text(
    "INSERT INTO events (seq, epoch, type, broadcast_id, audience, payload, at)"
    " VALUES (:seq, 'e', :type, 1, '{}', :payload, :at)"
)
_RECEIPT = sqlalchemy.text("INSERT INTO receipts (broadcast_id, user_id, acked_at) VALUES (:broadcast, :user, :at)")


def test_acknowledgements_of_an_older_database_get_their_revision_and_text_from_the_log(tmp_path: Path):
    """Of a broadcast whose log is gone, only what was acknowledged after the last edit is known."""
    app = create_app(Settings(app_env="test", data_dir=tmp_path, secret_key="k" * 40, log_level="error"))
    with app.app_context():
        flask_migrate.upgrade(revision="0011_counting")
        with db.engine.begin() as connection:
            for name in ("bea", "carl"):
                connection.execute(_PERSON, {"username": name, "name": name, "preferences": "{}"})
            connection.execute(sqlalchemy.text("UPDATE users SET disabled_at = '2026-03-01 00:00:00' WHERE id = 2"))
            for broadcast in (1, 2):
                connection.execute(_BROADCAST, {"id": broadcast, "yes": True, "no": False})
                for user, day in ((1, 2), (2, 3)):
                    given = {"broadcast": broadcast, "user": user, "at": f"2026-01-0{day} 00:00:00"}
                    connection.execute(_RECEIPT, given)
            for seq, kind, text, at in ((1, "MESSAGE", "First", "01 00"), (2, "MESSAGE_UPDATED", "Second", "02 12")):
                payload = json.dumps({"revision": seq, "title": "Lifts", "content": text, "actions": []})
                connection.execute(_EVENT, {"seq": seq, "type": kind, "payload": payload, "at": f"2026-01-{at}:00:00"})
        flask_migrate.upgrade()
        acked = sqlalchemy.select(Receipt.broadcast_id, Receipt.user_id, Receipt.acked_revision, Receipt.acked_hash)
        first, second = (hash_text("Lifts", text, []) for text in ("First", "Second"))
        assert list(map(tuple, db.session.execute(acked.order_by(Receipt.broadcast_id, Receipt.user_id)))) == [
            (1, 1, 1, first), (1, 2, 2, second), (2, 1, None, None), (2, 2, 2, second)
        ]  # fmt: skip
        assert (acknowledged_revisions.get_text(1, 1).content, acknowledged_revisions.get_text(2, 1)) == ("First", None)
        [row] = broadcast_totals.count_totals([db.session.get(Broadcast, 1)]).values()
        assert (row.targeted.recipients, row.gone.recipients, row.targeted.acknowledged) == (2, 1, 2)
        db.session.remove()
        db.engine.dispose()
