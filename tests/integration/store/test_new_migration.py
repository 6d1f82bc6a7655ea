"""`flask db revision --autogenerate`: what it proposes for the schema of the models."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import flask_migrate
import pytest
import sqlalchemy

from broadcast.store.database import db
from broadcast.store.types import EncodedJson, UtcDateTime

pytestmark = pytest.mark.usefixtures("in_app")
MIGRATIONS = Path(__file__).resolve().parents[3] / "migrations"


@pytest.fixture
def autogenerate(tmp_path: Path) -> Callable[[str], Path]:
    """Autogenerate a revision with this message, in a copy of the migrations; return its file."""
    copy = shutil.copytree(MIGRATIONS, tmp_path / "migrations")

    def generate(message: str) -> Path:
        known = {*copy.glob("versions/*.py")}
        flask_migrate.revision(directory=str(copy), message=message, autogenerate=True)
        [new] = {*copy.glob("versions/*.py")} - known
        return new

    return generate


@pytest.fixture
def new_table() -> Iterator[sqlalchemy.Table]:
    """A table in the models that no migration makes."""
    columns = [sqlalchemy.Column("at", UtcDateTime, primary_key=True), sqlalchemy.Column("payload", EncodedJson)]
    table = sqlalchemy.Table("new_things", db.metadata, *columns)
    yield table
    db.metadata.remove(table)


def test_proposes_nothing_for_an_up_to_date_database(autogenerate):
    text = autogenerate("words").read_text()
    assert "op." not in text
    assert "    pass\n" in text


def test_new_migration_has_its_number_and_the_oldest_code_of_the_one_before(autogenerate):
    newest = max(MIGRATIONS.glob("versions/*.py"))
    before = dict(
        line.split(" = ") for line in newest.read_text().splitlines() if line.startswith(("revision", "oldest"))
    )
    new = autogenerate("Saved words: which words a user saved")
    assert new.stem == f"{int(newest.stem[:4]) + 1:04}_saved_words"
    namespace: dict = {}
    exec(new.read_text(), namespace)
    assert namespace["revision"] == new.stem
    assert repr(namespace["down_revision"]) == before["revision"].replace('"', "'")
    assert repr(namespace["oldest_code"]) == before["oldest_code"].replace('"', "'")


def test_types_of_our_own_are_written_as_plain_ones(autogenerate, new_table):
    text = autogenerate("things").read_text()
    assert "sa.Column('at', sa.DateTime(timezone=True), nullable=False)" in text
    assert "sa.Column('payload', sa.JSON(), nullable=True)" in text
    assert "broadcast" not in text
