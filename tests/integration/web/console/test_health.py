"""The console's health page shows the doctor's findings and failing loops."""

import sqlalchemy

from broadcast.store import database, schema
from broadcast.worker.runtime import RUNTIME
from tests.support.ports import find_free_port
from tests.support.users import BrowserClient


def test_page_names_every_part(app, client):
    page = client("alice").get("/console/health").get_data(as_text=True)
    for part in ("database", "schema", "clock", "redis", "disk", "streams", "notifications"):
        assert f'<th scope="row">{part}</th>' in page


def test_failures_stand_first_and_loops_that_fail_are_named(make_app, client):

    client()
    app = make_app(redis_url=f"redis://127.0.0.1:{find_free_port()}/0")
    RUNTIME.of(app).problems["clock"] = "It is <b>locked</b>"
    page = BrowserClient.for_user(app, "alice").get("/console/health").get_data(as_text=True)
    assert page.index("Redis does not answer") < page.index("The database answers and takes writes")
    assert "It is &lt;b&gt;locked" in page


def test_migration_that_is_missing_is_named(app, client):

    client()
    with app.app_context():
        assert schema.list_missing_migrations() == []
        applied = schema.list_applied_migrations()
        database.db.session.execute(sqlalchemy.text("UPDATE alembic_version SET version_num = '0001'"))
        database.db.session.commit()
        try:
            assert schema.list_missing_migrations()[-1:] == applied
        finally:
            database.db.session.execute(
                sqlalchemy.text("UPDATE alembic_version SET version_num = :v"), {"v": applied[0]}
            )
            database.db.session.commit()
