"""Security regressions: streams and other sites, logs, protected fields, password hashing next to streams."""

import io
import re

import gevent
import pytest
import structlog

from broadcast.actions import passwords
from broadcast.factory import create_app
from broadcast.store import broadcasts
from broadcast.streams.hub import HUB
from tests.conftest import deliver_new_events
from tests.support.builders import build_message, count_rows, load_actor, publish_message
from tests.support.routes import build_route_path, get_route_method
from tests.support.system import PROJECT_ROOT

STREAMS = ["/inbox/stream", "/api/sse/connect"]
_FOREIGN = {"Origin": "https://evil.example", "Sec-Fetch-Site": "cross-site"}


@pytest.mark.parametrize("path", STREAMS)
@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_stream_is_refused_to_other_sites(app, client, path, site):
    response = client("bob").get(path, headers={"Sec-Fetch-Site": site})
    assert response.status_code == 403
    assert len(HUB.of(app)) == 0


def test_no_answer_invites_another_origin(app, client, routes):
    """No CORS header anywhere, whatever origin asks, and none for the question before (OPTIONS)."""
    alice = client("alice")
    for rule in routes:
        for method in {get_route_method(rule), "OPTIONS"}:
            response = alice.http.open(build_route_path(rule), method=method, headers=_FOREIGN, buffered=False)
            assert not [name for name, _ in response.headers if name.lower().startswith("access-control")], rule
            response.close()


@pytest.mark.parametrize("field", ["id", "senderId", "senderName", "status", "seq", "contentHtml", "revision"])
def test_fields_that_nobody_sets_are_refused(app, client, field):
    alice = client("alice")
    made = alice.send("POST", "/api/admin/broadcasts", build_message(draft=True)).json["id"]
    with app.app_context():
        before = count_rows()
    body = build_message(**{field: 7})
    assert alice.send("POST", "/api/admin/broadcasts", body).status_code == 422
    answer = alice.send("PATCH", f"/api/admin/broadcasts/{made}", {field: 7}, headers={"If-Match": "*"})
    assert answer.status_code == 422
    assert field in answer.json["fields"]
    with app.app_context():
        assert count_rows() == before


def test_recall_takes_a_reason_and_nothing_else(app, client):
    alice = client("alice")
    with app.app_context():
        id = publish_message(load_actor("alice"))
    answer = alice.send("POST", f"/api/admin/broadcasts/{id}/cancel", {"reason": "A mistake", "status": "EXPIRED"})
    assert (answer.status_code, list(answer.json["fields"])) == (422, ["status"])
    with app.app_context():
        assert broadcasts.get(id).is_live


@pytest.mark.parametrize("log_format", ["console", "json"])
@pytest.mark.parametrize("evil", ["/a%0dFORGED", "/a%1b%5b2JFORGED", "/a%C2%85FORGED", "/a%E2%80%A8FORGED"])
def test_log_line_cannot_be_forged(settings, monkeypatch, log_format, evil):
    """What a visitor sends stays within its line and moves no cursor of a terminal."""
    written = io.StringIO()
    app = create_app(settings.model_copy(update={"log_format": log_format, "log_level": "info"}))
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(written))
    app.add_url_rule("/<path:any>", "broken", lambda any: 1 / 0)
    app.view_functions["broken"].rule = "anyone"
    assert app.test_client().get(evil).status_code == 500
    [line] = [line for line in written.getvalue().split("\n") if "FORGED" in line]
    assert "request.failed" in line
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f\x85\u2028\u2029]", line)


def test_passwords_are_argon2id_as_owasp_says():
    assert re.match(
        r"\$argon2id\$v=19\$m=(?:19456|[2-9]\d{4,}),t=[2-9],p=1\$", passwords.hash_password("correct horse")
    )


def test_hashing_lets_the_streams_of_the_worker_run():
    turns = 0

    def others() -> None:
        nonlocal turns
        while True:
            gevent.sleep(0.001)
            turns += 1

    beside = gevent.spawn(others)
    stored = passwords.hash_password("correct horse")
    assert passwords.verify_password("correct horse", stored)
    beside.kill()
    assert turns > 0


def test_card_is_out_of_bounds_for_htmx_on_page_and_stream(app, client):
    """Attributes that got past two sanitisers would still be looked at by nobody."""
    bob = client("bob")
    with app.app_context():
        id = publish_message(load_actor("alice"), build_message(content="**bold**"))
    deliver_new_events(app)
    page = bob.get(f"/inbox/{id}").get_data(as_text=True)
    streamed = HUB.of(app).replay_buffer.get_frame(HUB.of(app).replay_buffer._events[-1], "html").decode()
    for html in (page, streamed):
        assert re.search(r"<[^>]* hx-ignore[^>]*>\s*(?:data: )?<p><strong>bold", html)


@pytest.mark.parametrize(
    "path",
    [*sorted(PROJECT_ROOT.glob("requirements*.txt")), PROJECT_ROOT / "tests/support/external_audits/requirements.txt"],
    ids=lambda path: str(path.relative_to(PROJECT_ROOT)),
)
def test_every_dependency_is_pinned_with_its_hash(path):
    text = path.read_text().replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line and not line.lstrip().startswith("#")]
    assert len(lines) > 5
    assert "://" not in text, "no registry is named, so that every one will do"
    for line in lines:
        assert re.match(r"[\w.\[\],-]+==\S+.* --hash=sha256:[0-9a-f]{64}", line), line
