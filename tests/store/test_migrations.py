"""What a migration makes of rows that are there: on a copy of an older database."""

from pathlib import Path

import flask_migrate
import pytest
import sqlalchemy

from broadcast.factory import create_app
from broadcast.settings import Settings
from broadcast.store import people, silences
from broadcast.store.database import db

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
        assert [user.username for user in people.search("arger", limit=5)] == ["bea"]
        found = db.session.scalars(sqlalchemy.select(silences.Silence.what).order_by(silences.Silence.what))
        assert list(found) == ["category News", "priority LOW", "priority NORMAL"]
        db.session.remove()
        db.engine.dispose()


@pytest.mark.usefixtures("in_app")
def test_indexes_of_the_models_are_those_that_the_migrations_made():
    inspector = sqlalchemy.inspect(db.engine)
    for table in db.metadata.sorted_tables:
        made = {index["name"]: index["column_names"] for index in inspector.get_indexes(table.name)}
        for index in table.indexes:
            assert made[index.name] == [column.name for column in index.columns], index.name
