"""Every system has its own consumer group; one that has read before keeps the group with its offsets."""

import re

import flask_migrate
import pytest

from broadcast.factory import create_app
from broadcast.store import system_identity
from broadcast.store.database import db

_BEFORE = "0011_counting"


def test_group_is_this_systems_own(in_app):
    assert re.fullmatch(r"broadcast\.bridge\.[0-9a-f]{12}", system_identity.get_kafka_group())


@pytest.mark.parametrize("has_read", [True, False])
def test_system_that_has_read_before_goes_on_where_it_was(settings, tmp_path, has_read):
    app = create_app(settings.model_copy(update={"database_url": f"sqlite:///{tmp_path / 'older.sqlite3'}"}))
    with app.app_context():
        flask_migrate.upgrade(revision=_BEFORE)
        if has_read:
            columns = "username, name, created_at, read_through_seq, preferences"
            with db.engine.begin() as connection:
                connection.exec_driver_sql(
                    f"INSERT INTO users ({columns}) VALUES (':events', 'x', '2026-01-01', 0, '{{}}')"
                )
        flask_migrate.upgrade()
        assert (system_identity.get_kafka_group() == "broadcast.bridge") is has_read
        db.engine.dispose()
