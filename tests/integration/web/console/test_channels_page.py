"""The page Channels: what it shows, and what it does."""

import pytest
import sqlalchemy

from broadcast.actions import channels
from broadcast.channels import escalation
from broadcast.channels.email import EMAIL
from broadcast.channels.outbox import Outbox
from broadcast.domain import clock
from broadcast.store import audit, deliveries, email_addresses
from broadcast.store.database import db
from broadcast.store.models import Delivery
from broadcast.store.transactions import write_transaction
from tests.support.builders import build_message, load_actor, publish_message
from tests.support.escalation import by_channel, set_policy
from tests.support.mail_server import MailServer


@pytest.fixture
def alice(client, app):
    """An administrator with an address, and urgent messages that are mailed at once."""
    browser = client("alice")
    with app.app_context():
        with write_transaction() as session:
            for name in ("alice", "bob"):
                user_id = load_actor(name).user_id
                email_addresses.set_verified(
                    session, user_id, f"{name}@example.com", at=clock.now(), is_from_provider=False
                )
        set_policy("URGENT", by_channel(0))
    return browser


def send_due() -> None:
    escalation.run_once(now=clock.now())
    Outbox(EMAIL.current).run_once()


def test_without_a_server_mails_are_kept_and_shown(app, alice):
    page = alice.get("/console/channels").text
    assert "No mail server is set" in page
    assert "No mail yet" in page
    assert "The test was sent." in alice.post("/console/channels/email/test", follow_redirects=True).text
    with app.app_context():
        publish_message(
            load_actor("alice"), build_message(priority="URGENT", title="Lifts <b>", content="All *stand*.")
        )
        send_due()
    page = alice.get("/console/channels").text
    assert "A test from Broadcast" in page
    assert "Lifts &lt;b&gt;" in page
    assert "to Bob &lt;bob@example.com&gt;" in page
    assert "All *stand*." in page


def test_failures_are_listed_with_their_reason_and_retried(make_app, alice):
    with MailServer() as server:
        app = make_app(email_url=server.url, email_from="b@example.com")
        server.answer_mail = lambda mail: "552 Too <large>"
        browser = type(alice).for_user(app, "alice")
        with app.app_context():
            publish_message(load_actor("alice"), build_message(priority="URGENT"))
            send_due()
        page = browser.get("/console/channels").text
        assert page.count("The mail server refused the message: 552 Too &lt;large&gt;") == 2
        assert "Retry these 2" in page
        server.answer_mail = lambda mail: None
        with app.app_context():
            ids = [failed.id for failed in deliveries.list_failed("email", limit=5)]
        page = browser.post("/console/channels/email/retry", data={"ids": ids}, follow_redirects=True).text
        assert "2 put back into the queue." in page
        with app.app_context():
            send_due()
            assert sorted(server.recipients) == ["alice@example.com", "bob@example.com"]
        assert "Nothing was given up." in browser.get("/console/channels").text


def test_a_problem_of_the_server_is_told(make_app, alice):
    server = MailServer()
    app = make_app(email_url=server.url, email_from="b@example.com")
    browser = type(alice).for_user(app, "alice")
    with app.app_context():
        publish_message(load_actor("alice"), build_message(priority="URGENT"))
        send_due()
    page = browser.get("/console/channels").text
    assert "E-mail: nothing gets out since" in page
    assert "The mail server cannot be reached: Connection refused." in page
    assert (
        "The test failed. The mail server cannot"
        in browser.post("/console/channels/email/test", follow_redirects=True).text
    )


def test_pause_holds_everything_until_it_is_resumed(app, alice):
    assert (
        "E-mail is paused"
        in alice.post("/console/channels/email/pause", data={"do": "pause"}, follow_redirects=True).text
    )
    with app.app_context():
        publish_message(load_actor("alice"), build_message(priority="URGENT"))
        send_due()
        assert deliveries.measure_queue("email", now=clock.now()).waiting == 2
    assert (
        "E-mail is sent again"
        in alice.post("/console/channels/email/pause", data={"do": "resume"}, follow_redirects=True).text
    )
    with app.app_context():
        send_due()
        assert deliveries.measure_queue("email", now=clock.now()).waiting == 0
        actions = [entry.action for entry in audit.list_page(audit.AuditFilters(what="channel."), limit=9)]
        assert actions == ["channel.resumed", "channel.paused"]


def test_who_has_no_address_is_told_where_to_add_one(client):
    page = client("alice").post("/console/channels/email/test", follow_redirects=True).text
    assert "Add one under My account." in page


def test_only_failures_are_retried(app, alice):
    with app.app_context():
        publish_message(load_actor("alice"), build_message(priority="URGENT"))
        send_due()
        ids = list(db.session.scalars(sqlalchemy.select(Delivery.id)))
        assert channels.retry_failed("email", ids, by=load_actor("alice"), now=clock.now()) == 0
