"""Files that an older version left readable are made private at startup; files of others are not touched."""

import os
import stat
from pathlib import Path
from urllib.parse import quote

import pytest

from broadcast.base import private_files
from broadcast.config.settings import Settings


@pytest.fixture(autouse=True)
def umask_afterwards():
    before = os.umask(0o022)
    yield
    os.umask(before)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_files_of_before_and_of_now_are_private(tmp_path: Path):
    elsewhere = tmp_path / "elsewhere"
    (tmp_path / "data/metrics").mkdir(parents=True)
    elsewhere.mkdir()
    names = [
        "broadcast.sqlite3",
        "broadcast.sqlite3-wal",
        "secret_key",
        "kafka-bridge.lock",
        "redis.log",
        "metrics/counter_1.db",
    ]
    ours = [tmp_path / "data" / name for name in names]
    ours += [elsewhere / name for name in ("other.db", "other.db-wal", "other.db-shm")]
    theirs = [tmp_path / "data/notes.txt", elsewhere / "notes.txt"]
    for path in [*ours, *theirs]:
        path.touch()
        path.chmod(0o666)
    (tmp_path / "data/gone.lock").symlink_to(tmp_path / "nothing")
    (tmp_path / "data/linked.lock").symlink_to(elsewhere / "notes.txt")
    private_files.restrict_permissions(tmp_path / "data", elsewhere / "other.db")
    (tmp_path / "data/new").touch()
    assert {path.name: mode(path) for path in ours} == {path.name: 0o600 for path in ours}
    assert {mode(path) for path in theirs} == {0o666}
    assert mode(tmp_path / "data/new") == 0o600


def test_folder_that_is_not_there_is_no_error(tmp_path: Path):
    private_files.restrict_permissions(tmp_path / "nothing")
    private_files.restrict_permissions(tmp_path / "nothing", tmp_path / "nothing.db")


def test_database_file_is_found_whatever_its_name(tmp_path):
    """Of a URL the path is decoded: a blank or a % in it hides nothing."""
    database = tmp_path / "a b%c.db"
    settings = Settings(database_url=f"sqlite:///{quote(str(database))}", data_dir=tmp_path)
    assert settings.database_path == database
    assert Settings(database_url="postgresql://localhost/x", data_dir=tmp_path).database_path is None
