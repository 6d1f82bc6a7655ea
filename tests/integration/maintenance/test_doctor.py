"""The doctor reports what is wrong, and only that."""

import os
import re
import threading
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import redis
import sqlalchemy
from click.testing import Result

from broadcast.config.settings import Settings
from broadcast.domain import clock
from broadcast.factory import create_app
from broadcast.launcher.children import ChildProcesses
from broadcast.launcher.redis_server import choose_socket_path, find_server, start_redis
from broadcast.maintenance import doctor
from broadcast.store.database import db
from broadcast.store.models import Broadcast
from broadcast.store.transactions import write_transaction
from tests.support.background import serve_in_thread
from tests.support.builders import load_actor, publish_message
from tests.support.databases import DATABASE_URL, temporary_database
from tests.support.oidc_provider import serve_oidc_provider
from tests.support.ports import find_free_port
from tests.support.stop_signals import stop_signals  # noqa: F401 - a fixture

_CLASS = re.compile(r"\w(Error|Exception|Timeout)\b|Errno|Traceback|<class|\(psycopg")


def states(app) -> dict[str, str]:
    with app.app_context():
        return {finding.part: finding.state for finding in doctor.run_checks(app)}


def test_healthy_system_has_no_failure(app, client):
    client()
    assert "failure" not in states(app).values()


def test_redis_and_kafka_that_are_away_are_failures(make_app, client, monkeypatch):
    monkeypatch.setattr(doctor, "_TIMEOUT_SECONDS", 0.6)
    client()
    app = make_app(
        redis_url=f"redis://127.0.0.1:{find_free_port()}/0", kafka_bootstrap_servers=[f"127.0.0.1:{find_free_port()}"]
    )
    found = states(app)
    assert (found["redis"], found["kafka"], found["database"]) == ("failure", "failure", "ok")


def redis_finding(app) -> doctor.Finding:
    with app.app_context():
        [found] = [finding for finding in doctor.run_checks(app) if finding.part == "redis"]
    return found


def test_launchers_redis_is_found_by_its_socket(make_app, client, tmp_path, stop_signals):  # noqa: F811
    client()
    if (server := find_server()) is None:
        pytest.skip("no Redis on this machine")
    app = make_app(redis_url=None, data_dir=tmp_path)
    assert redis_finding(app).state == "warning"
    with ChildProcesses(stop_signals, os.environ) as children, choose_socket_path(tmp_path) as path:
        start_redis(server, path, tmp_path, children=children)
        found = redis_finding(app)
        assert (found.state, found.sentence) == ("ok", "Redis comes from the launcher (`make run`) and answers.")
    found = redis_finding(app)
    assert found.state == "warning", "a socket that was left behind is no Redis"
    assert "set REDIS_URL" in found.sentence


def test_redis_that_lets_nobody_in_is_told_apart_from_one_that_is_away(make_app, client, own_redis):
    client()
    redis.from_url(own_redis.url).config_set("requirepass", "secret")
    found = redis_finding(make_app(redis_url=own_redis.url.replace("//", "//:wrong@")))
    assert (found.state, "refuses the user name or password in REDIS_URL" in found.sentence) == ("failure", True)
    assert redis_finding(make_app(redis_url=own_redis.url.replace("//", "//:secret@"))).state == "ok"
    own_redis.stop()
    assert "Redis does not answer" in redis_finding(make_app(redis_url=own_redis.url)).sentence


def command(settings: Settings, database_url: str, *words: str) -> Result:
    """Run it on a database that is not the one of these tests."""
    app = create_app(settings.model_copy(update={"database_url": database_url}))
    try:
        return app.test_cli_runner().invoke(args=words)
    finally:
        with app.app_context():
            db.engine.dispose()


def test_folder_of_the_database_that_is_missing_is_named(settings, tmp_path):
    path = tmp_path / "nowhere/broadcast.sqlite3"
    for words in (["doctor"], ["db", "upgrade"]):
        done = command(settings, f"sqlite:////{path}", *words)
        assert done.exit_code == 1
        assert f"{path} cannot be opened. Make its folder, and let this user write to it." in said(done)


def test_database_without_tables_is_told_what_to_run(settings, tmp_path):
    with temporary_database(DATABASE_URL) as url:
        done = command(settings, url or f"sqlite:////{tmp_path}/empty.sqlite3", "doctor")
    assert done.exit_code == 1
    assert "The database has no tables yet. Run `flask --app app db upgrade`." in said(done)


@pytest.mark.skipif(not DATABASE_URL, reason="SQLite makes its file")
def test_database_that_does_not_exist_is_told_how_to_create_it(settings):
    url = sqlalchemy.make_url(DATABASE_URL).set(database="not_there").render_as_string(hide_password=False)
    for words in (["doctor"], ["db", "upgrade"], ["retention", "run"]):
        done = command(settings, url, *words)
        assert done.exit_code == 1
        assert 'The database "not_there" does not exist on ' in said(done)
        assert "`createdb -h " in said(done)
        assert " -E UTF8 -T template0 -O " in said(done)


def said(done: Result) -> str:
    """What a command printed, or ended with. No error of the program is called by its name in it."""
    text = done.output + (done.exception.code if isinstance(getattr(done.exception, "code", None), str) else "")
    assert not _CLASS.search(text)
    return text


def test_no_sentence_of_the_doctor_has_the_name_of_an_error(make_app, client, monkeypatch):
    monkeypatch.setattr(doctor, "_TIMEOUT_SECONDS", 0.6)
    client()
    nobody = f"127.0.0.1:{find_free_port()}"
    away = {"redis_url": f"redis://{nobody}/0", "kafka_bootstrap_servers": [nobody]}
    app = make_app(**away, oidc_issuer=f"http://{nobody}", oidc_client_id="broadcast")
    with app.app_context():
        found = doctor.run_checks(app) + doctor.check_public_url(f"http://{nobody}", token=None)
    assert {finding.part for finding in found if finding.state == "failure"} == {"redis", "kafka", "sign-in", "proxy"}
    for finding in found:
        assert not _CLASS.search(finding.sentence)
        assert finding.sentence.endswith((".", "?"))


def test_careless_production_is_warned(make_app, client):
    client()
    found = states(make_app(app_env="production", ratelimit_enabled=False))
    assert found["settings"] == "warning"


def test_provider_is_asked_who_it_is(make_app, client):
    client()
    with serve_oidc_provider() as openid:
        given = {"oidc_client_id": "broadcast", "oidc_issuer": openid.issuer}
        assert states(make_app(**given))["sign-in"] == "ok"
        openid.discovery_overrides = {"issuer": "https://another.example"}
        assert states(make_app(**given))["sign-in"] == "failure"
        openid.fault = "list"
        assert states(make_app(**given))["sign-in"] == "failure"
    assert states(make_app(**given))["sign-in"] == "failure"


def test_overdue_broadcast_is_a_failure(app, client):
    client()
    with app.app_context():
        sent = publish_message(by=load_actor("alice"))
        with write_transaction() as session:
            session.get(Broadcast, sent).expires_at = clock.now() - timedelta(minutes=5)
    assert states(app)["clock"] == "failure"


def test_command_says_it_and_ends_with_a_status(make_app, client):
    client()
    well = make_app().test_cli_runner().invoke(args=["doctor"])
    assert well.exit_code == 0, well.output
    ill = make_app(redis_url=f"redis://127.0.0.1:{find_free_port()}/0").test_cli_runner().invoke(args=["doctor"])
    assert ill.exit_code == 1
    assert "FAILURE  redis" in ill.output


class _Proxy(BaseHTTPRequestHandler):
    """Answers /healthz, and opens a stream that says something, or nothing for ever when the server `holds_back`."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.flush()
        if self.path != "/healthz":
            if self.server.holds_back:
                self.server.over.wait(30)
            self.wfile.write(b"event: CONNECTED\ndata: {}\n\n")

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def proxy():
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Proxy)
    server.over, server.holds_back = threading.Event(), False
    with serve_in_thread(server):
        yield server
        server.over.set()


@pytest.mark.parametrize(("holds_back", "state"), [(False, "ok"), (True, "failure")])
def test_proxy_that_holds_a_stream_back_is_found(proxy, monkeypatch, holds_back: bool, state: str):
    monkeypatch.setattr(doctor, "_PUBLIC_TIMEOUT_SECONDS", 1.0)
    proxy.holds_back = holds_back
    found = doctor.check_public_url(f"http://127.0.0.1:{proxy.server_port}", token="any")
    assert [(finding.part, finding.state) for finding in found] == [("proxy", "ok"), ("stream", state)]


def test_address_where_nobody_is_is_a_failure():
    [finding] = doctor.check_public_url(f"http://127.0.0.1:{find_free_port()}", token=None)
    assert finding.state == "failure"
