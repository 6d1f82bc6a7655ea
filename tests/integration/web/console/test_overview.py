"""The console's first page shows what waits for a person, and only to those who can handle it."""

import html
from datetime import timedelta

from broadcast.actions import users
from broadcast.domain import clock
from broadcast.domain.actor import SYSTEM
from broadcast.worker.runtime import RUNTIME
from tests.integration.web.console.test_dead_letters import bury
from tests.support.builders import build_message, load_actor, publish_message
from tests.support.inbound_records import POISON_RECORDS
from tests.support.ports import find_free_port
from tests.support.users import BrowserClient


def look(client: BrowserClient) -> str:
    response = client.get("/console/")
    assert response.status_code == 200
    return html.unescape(response.get_data(as_text=True))


def test_quiet_system_needs_nobody(client):
    page = look(client("alice"))
    assert "Nothing needs attention" in page
    assert "Send your first broadcast" in page


def test_overdue_acknowledgement_is_named_with_how_many_are_missing(app, client):
    alice, now = client("alice"), clock.now()
    with app.app_context():
        due = clock.to_rfc3339(now - timedelta(days=1))
        late = publish_message(
            load_actor("alice"),
            build_message(title="<Late>", requiresAck=True, ackDueAt=due),
            now=now - timedelta(days=2),
        )
        publish_message(
            load_actor("alice"),
            build_message(title="Early", requiresAck=True, ackDueAt=clock.to_rfc3339(now + timedelta(days=1))),
        )
    page = look(alice)
    assert "“<Late>” is overdue: 3 have not acknowledged it." in page
    assert f"/console/broadcasts/{late}/figures" in page
    assert "“Early”" not in page


def test_troubles_are_told_to_whoever_runs_the_system_and_to_nobody_else(make_app, client):
    client("alice")
    app = make_app(redis_url=f"redis://127.0.0.1:{find_free_port()}/0")
    RUNTIME.of(app).problems["clock"] = "Busy: <b>locked</b>"
    bury(app, POISON_RECORDS[0][1])
    page = look(BrowserClient.for_user(app, "alice"))
    for sentence in ("1 dead letter is waiting.", "The loop “clock” failed", "This worker cannot reach Redis"):
        assert sentence in page
    with app.app_context():
        users.create_user("vera", None, roles=["viewer"], by=SYSTEM, now=clock.now())
    assert "Nothing needs attention" in look(BrowserClient.for_user(app, "vera"))
    assert "Redis" not in look(BrowserClient.for_user(app, "vera"))
