"""DATABASE_URL: libpq's and SQLAlchemy's notations lead to the same server; no error shows the password."""

from pathlib import Path

import flask_migrate
import pytest
import sqlalchemy

from broadcast.config.database_url import get_sqlite_path, make_driver_arguments, normalize_url
from broadcast.config.settings import Settings
from broadcast.factory import create_app
from broadcast.launcher.preflight import is_migrated
from broadcast.store.database import db

TWO = {"host": "h1,h2", "port": "5432,5433", "user": "u", "dbname": "db", "target_session_attrs": "read-write"}


@pytest.mark.parametrize(
    ("url", "given"),
    [
        ("postgresql://u:p%40x@h/db", {"host": "h", "user": "u", "password": "p@x", "dbname": "db"}),
        ("postgres://h:6432/db?sslmode=require", {"host": "h", "port": "6432", "dbname": "db", "sslmode": "require"}),
        ("postgresql+psycopg://[::1]:5432/db", {"host": "::1", "port": "5432", "dbname": "db"}),
        ("postgresql://u@h1:5432,h2:5433/db", TWO),
        ("postgresql://u@/db?host=h1:5432&host=h2:5433", TWO),
        ("postgresql://u@/db?host=h1,h2&port=5432,5433", TWO),
        ("postgresql://u@h1,h2:5433/db?target_session_attrs=any", TWO | {"target_session_attrs": "any"}),
        ("postgresql://u@[::1],h2:5433/db", TWO | {"host": "::1,h2"}),
        ("postgresql:///db?host=/run/postgresql", {"host": "/run/postgresql", "port": "5432", "dbname": "db"}),
        ("postgresql://%2Frun%2Fpostgresql/db", {"host": "/run/postgresql", "port": "5432", "dbname": "db"}),
        ("postgresql://h/db?options=-c%20jit%3Don", {"host": "h", "dbname": "db", "options": "-c jit=on"}),
        ("postgresql://", {}),
    ],
)  # fmt: skip
def test_every_way_of_writing_it_means_the_same_to_sqlalchemy_and_to_the_driver(url, given):
    normal = normalize_url(url)
    assert normalize_url(normal) == normal
    assert make_driver_arguments(normal) == given
    engine = sqlalchemy.create_engine(normal)
    _, arguments = engine.dialect.create_connect_args(engine.url)
    assert {name: str(value) for name, value in arguments.items() if name != "context"} == given


@pytest.mark.parametrize(
    "url",
    [
        "mysql://x", "postgresql:/x", "postgresql://u:secret@h:99999/db", "postgresql://u:secret@h:x/db",
        "postgresql://u:secret/more@h/db", "postgresql://u:secret@h1,/db", "postgresql://u:secret@/db?host=h&port=0",
        "postgresql://u:secret@/db?host=a,b,c&port=1,2", "postgresql://u:secret@a b/db", "postgresql://h/db#secret",
        "sqlite://", "sqlite:///", "sqlite:///:memory:", "sqlite:x", "sqlite:////tmp/a?mode=ro", "sqlite:////tmp/a#b", "secret",
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_said_without_the_password(url):
    with pytest.raises(ValueError, match=r"\.$") as raised:
        normalize_url(url)
    assert "secret" not in str(raised.value)


def test_path_of_sqlite_is_of_the_working_directory_and_decoded_as_sqlalchemy_does(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    for url, path in [
        ("sqlite:///a.sqlite3", tmp_path / "a.sqlite3"),
        ("sqlite:////b c/ü%3F%2541.sqlite3", Path("/b c/ü?%41.sqlite3")),
    ]:
        normal = normalize_url(url)
        assert normalize_url(normal) == normal
        assert get_sqlite_path(normal) == path
        assert sqlalchemy.make_url(normal).database == str(path)


@pytest.mark.parametrize("name", ["plain", "a?b=c", "%41", "ü #1", "100%"])
def test_folder_of_any_name_holds_the_database_where_the_launcher_looks_for_it(tmp_path, name):
    settings = Settings.load({"DATA_DIR": str(tmp_path / name), "SECRET_KEY": "k" * 40})
    with create_app(settings).app_context():
        flask_migrate.upgrade()
        db.engine.dispose()
    assert (tmp_path / name / "broadcast.sqlite3").exists()
    assert is_migrated(settings.database_uri)
