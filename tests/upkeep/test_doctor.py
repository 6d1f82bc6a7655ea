"""The doctor names what is wrong, and only that."""

import threading
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from broadcast.domain import clock
from broadcast.store.database import writing
from broadcast.store.models import Broadcast
from broadcast.upkeep import doctor, outside
from tests.acts import actor, send
from tests.openid import provider
from tests.ports import free_port


def states(app) -> dict[str, str]:
    with app.app_context():
        return {finding.part: finding.state for finding in doctor.examine(app)}


def test_healthy_system_has_no_failure(app, client):
    client()
    assert "failure" not in states(app).values()


def test_redis_and_kafka_that_are_away_are_failures(make_app, client):
    client()
    app = make_app(redis_url=f"redis://127.0.0.1:{free_port()}/0", kafka_bootstrap_servers=[f"127.0.0.1:{free_port()}"])
    found = states(app)
    assert (found["redis"], found["kafka"], found["database"]) == ("failure", "failure", "ok")


def test_careless_production_is_warned(make_app, client):
    client()
    found = states(make_app(app_env="production", ratelimit_enabled=False))
    assert found["settings"] == "warning"


def test_provider_is_asked_who_it_is(make_app, client):
    client()
    with provider() as openid:
        given = {"oidc_client_id": "broadcast", "oidc_issuer": openid.issuer}
        assert states(make_app(**given))["sign-in"] == "ok"
        openid.description = {"issuer": "https://another.example"}
        assert states(make_app(**given))["sign-in"] == "failure"
        openid.fault = "list"
        assert states(make_app(**given))["sign-in"] == "failure"
    assert states(make_app(**given))["sign-in"] == "failure"


def test_overdue_broadcast_is_a_failure(app, client):
    client()
    with app.app_context():
        sent = send(by=actor("alice"))
        with writing() as session:
            session.get(Broadcast, sent).expires_at = clock.now() - timedelta(minutes=5)
    assert states(app)["clock"] == "failure"


def test_command_says_it_and_ends_with_a_status(make_app, client):
    client()
    well = make_app().test_cli_runner().invoke(args=["doctor"])
    assert well.exit_code == 0, well.output
    ill = make_app(redis_url=f"redis://127.0.0.1:{free_port()}/0").test_cli_runner().invoke(args=["doctor"])
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
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    yield server
    server.over.set()
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize(("holds_back", "state"), [(False, "ok"), (True, "failure")])
def test_proxy_that_holds_a_stream_back_is_found(proxy, monkeypatch, holds_back: bool, state: str):
    monkeypatch.setattr(outside, "_DEADLINE_SECONDS", 1.0)
    proxy.holds_back = holds_back
    found = outside.examine(f"http://127.0.0.1:{proxy.server_port}", token="any")
    assert [(finding.part, finding.state) for finding in found] == [("proxy", "ok"), ("stream", state)]


def test_address_where_nobody_is_is_a_failure():
    [finding] = outside.examine(f"http://127.0.0.1:{free_port()}", token=None)
    assert finding.state == "failure"
