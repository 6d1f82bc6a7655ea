"""Each state that the doctor finds has a sentence: the problem and its solution."""

import resource
import secrets
import shutil
from collections.abc import Iterator
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import pytest

from broadcast.config.settings import Settings
from broadcast.domain import clock
from broadcast.maintenance import doctor
from tests.support.background import serve_in_thread
from tests.support.ports import find_free_port


def production(**changes) -> list[doctor.Finding]:
    settings = Settings.load({"APP_ENV": "production", "SECRET_KEY": secrets.token_hex(32)})
    return list(doctor._check_settings(settings.model_copy(update=changes)))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"trusted_hosts": []}, "List your host names"),
        ({"trusted_proxy_hops": 0}, "set it to the number of proxies"),
        ({"ratelimit_enabled": False}, "Set it to 1."),
        ({"proxy_sign_in_from": ["0.0.0.0/0"]}, "Use the proxy's own address."),
        ({}, "set DATABASE_URL to PostgreSQL"),
    ],
)
def test_careless_setting_of_production_says_what_to_set(changes: dict, says: str):
    warned = [finding.sentence for finding in production(**changes) if finding.state == "warning"]
    assert any(says in sentence for sentence in warned), warned


def test_findings_are_not_added_to_the_settings():
    settings = Settings.load({"APP_ENV": "production", "SECRET_KEY": secrets.token_hex(32)})
    assert list(doctor._check_settings(settings)) == list(doctor._check_settings(settings))


def test_limit_on_open_files_that_is_too_low_is_named(monkeypatch):
    monkeypatch.setattr(resource, "getrlimit", lambda _: (1024, 1024))
    found = doctor._check_open_files(Settings())
    assert (found.state, found.sentence) == (
        "warning",
        "A worker may open 1,024 files and needs up to 13,000. Raise `ulimit -n`.",
    )


def test_disk_that_is_nearly_full_and_a_folder_that_is_missing_are_told(tmp_path, monkeypatch):
    missing = doctor._check_disk(Settings(data_dir=tmp_path / "nowhere"))
    assert missing.state == "failure"
    assert "nowhere cannot be used: No such file or directory. Create it" in missing.sentence
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=2, total=100))
    full = doctor._check_disk(Settings(data_dir=tmp_path))
    assert (full.state, full.sentence) == ("warning", "Only 2% of the disk of DATA_DIR is free. Make room on it.")


@pytest.mark.parametrize(("seconds", "state"), [(0, "ok"), (5, "warning"), (60, "failure")])
def test_clocks_that_differ_are_told_by_how_much(seconds: int, state: str):
    found = doctor._check_clock(clock.now() + timedelta(seconds=seconds), None)
    assert found.state == state
    assert ("Set up NTP" in found.sentence) == (state != "ok")


class _Answers(BaseHTTPRequestHandler):
    """Answers /healthz with the first status of the server, everything else with the second."""

    def do_GET(self) -> None:
        self.send_response(self.server.statuses[self.path != "/healthz"])
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[ThreadingHTTPServer]:
    running = ThreadingHTTPServer(("127.0.0.1", 0), _Answers)
    with serve_in_thread(running):
        yield running


@pytest.mark.parametrize(
    ("statuses", "says"),
    [
        ((502, 200), "/healthz answers 502 instead of 200. Check the proxy and the nodes."),
        ((200, 401), "The token is not valid. Create one with `flask --app app create-token`."),
        ((200, 403), "The token may not open streams. Create one with the scope inbox."),
        ((200, 500), "No stream was opened (status 500). The log of the node says why."),
    ],
)
def test_answer_of_a_proxy_becomes_a_sentence(server, statuses: tuple[int, int], says: str):
    server.statuses = statuses
    found = doctor.check_public_url(f"http://127.0.0.1:{server.server_port}", token="any")[-1]
    assert found.state == "failure"
    assert found.sentence.endswith(says)


def test_address_that_cannot_be_reached_says_why(server):
    server.statuses = (200, 200)
    [tls] = doctor.check_public_url(f"https://127.0.0.1:{server.server_port}", token=None)
    assert tls.sentence.endswith("cannot be reached: the server there does not speak TLS.")
    [nobody] = doctor.check_public_url(f"http://127.0.0.1:{find_free_port()}", token=None)
    assert nobody.sentence.endswith("cannot be reached: nothing listens there.")
    [unknown] = doctor.check_public_url("http://nowhere.invalid", token=None)
    assert unknown.sentence.endswith("cannot be reached: its host name is not known.")
    for address in ("http://127.0.0.1:port", "nonsense", "http://[::1"):
        [unreadable] = doctor.check_public_url(address, token=None)
        assert unreadable.sentence.endswith(".")
        assert unreadable.state == "failure"
