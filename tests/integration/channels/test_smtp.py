"""The outbox and a mail server that is down, slow or unwilling; and what the mails look like."""

import socket
from datetime import timedelta

import pytest
import sqlalchemy

from broadcast.channels import escalation, protocol
from broadcast.channels.email import EMAIL
from broadcast.channels.outbox import MAX_AGE, Outbox
from broadcast.channels.protocol import Gone, Message, Refused, Retry
from broadcast.channels.smtp import SmtpTransport
from broadcast.config.email_settings import SmtpServer
from broadcast.domain import clock
from broadcast.store import deliveries, email_addresses, receipts
from broadcast.store.database import db
from broadcast.store.models import Delivery
from broadcast.store.transactions import write_transaction
from tests.integration.channels.test_escalation import EVERYBODY, publish_urgent, read_outcomes
from tests.support.builders import build_user_message, publish_message


def test_mail_has_all_of_the_message_and_no_link_that_does_something(people, escalate, mail_server):
    action = {"label": "Runbook", "url": "https://example.com/runbook"}
    fields = {"title": "Lifts", "content": "They **stand** still.", "category": "House", "actions": [action]}
    broadcast_id = publish_urgent(people, targetType="ROLE", targetIds=["ops"], requiresAck=True, **fields)
    escalate(125)
    [mail] = mail_server.mails
    assert (mail["Subject"], mail["To"]) == ("Lifts", "Bob <bob@example.com>")
    assert mail["From"] == '"Alice (Broadcast)" <broadcast@example.com>'
    assert (mail["Importance"], mail["X-Priority"], mail["Auto-Submitted"]) == ("high", "1 (Highest)", "auto-generated")
    assert mail["List-Unsubscribe-Post"] == "List-Unsubscribe=One-Click"
    assert mail["List-Unsubscribe"].strip().startswith("<https://broadcast.example/email/unsubscribe/")
    text, html = (mail.get_body((kind,)).get_content() for kind in ("plain", "html"))
    for part in (
        "Lifts",
        "House",
        "Alice",
        "https://example.com/runbook",
        f"https://broadcast.example/inbox/{broadcast_id}",
    ):
        assert part in text
        assert part in html
    assert "They **stand** still." in text
    assert "They <strong>stand</strong> still." in html
    assert "acknowledge" in text
    assert "/acknowledge" not in text + html


@pytest.mark.parametrize(
    ("title", "name"),
    [
        ("Tür\u2028Bcc: eve@example.com", "Bob\r\nBcc: eve@example.com"),
        ("שלום לכולם, המעליות עומדות", "Bob"),
        ("x" * 200, "Ö" * 200),
        ("=?utf-8?q?x=0D=0ABcc:_eve@example.com?=", '"Bob" <eve@example.com>, x'),
        ("Lifts", "=?utf-8?q?x=0D=0ABcc:_eve@example.com?="),
    ],
)
def test_odd_names_stay_in_their_header(people, in_app, mail_server, title, name):
    broadcast_id = publish_message(people["alice"], build_user_message("bob"))
    card = db.session.get(deliveries.Broadcast, broadcast_id).to_card()
    card = type(card).from_payload(card.to_payload() | {"title": title, "senderName": name, "content": "ö" * 8192})
    message = Message("1.1.1.abc", card, people["bob"].user_id, name, "bob@example.com")
    assert EMAIL.of(in_app).send(message) == protocol.Accepted()
    [mail] = mail_server.mails
    assert (mail_server.recipients, mail["Bcc"]) == (["bob@example.com"], None)
    assert [address.addr_spec for address in mail["To"].addresses] == ["bob@example.com"]
    assert mail["Subject"] == " ".join(title.replace("\u2028", " ").replace("=?", "= ?").split())
    assert "ö" * 8192 in mail.get_body(("plain",)).get_content()
    assert all(len(line) <= 998 for line in bytes(mail).splitlines())


def test_server_that_is_down_for_a_while_gets_every_mail_once(people, escalate, mail_server):
    mail_server.stop()
    publish_urgent(people)
    for seconds in (125, 130, 135):
        escalate(seconds)
    settings = deliveries.get_settings("email")
    assert settings.failing_since is not None
    assert settings.problem.startswith("The mail server cannot be reached")
    assert {state for state, _ in read_outcomes()} == {"WAITING"}
    mail_server.start()
    escalate(200)
    assert sorted(mail_server.recipients) == EVERYBODY
    assert deliveries.get_settings("email").problem is None
    assert read_outcomes() == [("SENT", None)] * 3


def test_server_that_is_down_until_the_end_is_the_reason_of_the_failure(people, escalate, mail_server):
    mail_server.stop()
    end = clock.now() + timedelta(minutes=10)
    publish_urgent(people, expiresAt=clock.to_rfc3339(end))
    escalate(125)
    escalate(700)
    [(state, reason), *_] = read_outcomes()
    assert state == "FAILED"
    assert "has ended" in reason
    assert "cannot be reached" in reason


def test_4xx_is_tried_again_and_5xx_marks_the_address(people, escalate, mail_server):
    answers = {"alice@example.com": "451 Greylisted", "bob@example.com": "550 No such user"}
    mail_server.answer_recipient = answers.get
    publish_urgent(people)
    escalate(125)
    assert mail_server.recipients == ["charlie@example.com"]
    waiting, failed, sent = read_outcomes()
    assert waiting == ("WAITING", "The mail server refused the address: 451 Greylisted")
    assert failed == ("FAILED", "The mail server refused the address: 550 No such user")
    assert sent == ("SENT", None)
    bob = email_addresses.get(people["bob"].user_id)
    assert (bob.failing_since is not None, bob.problem) == (True, failed[1])
    answers.clear()
    escalate(200)
    assert mail_server.recipients == ["charlie@example.com", "alice@example.com"]


def test_5xx_for_the_sender_leaves_the_address(people, escalate, mail_server):
    mail_server.answer_recipient = lambda address: "554 5.7.1 Relay access denied"
    publish_urgent(people)
    escalate(125)
    assert {state for state, _ in read_outcomes()} == {"FAILED"}
    assert email_addresses.get(people["bob"].user_id).failing_since is None


def test_mail_that_cannot_be_built_stops_no_other(people, escalate, mail_server, monkeypatch):
    send = SmtpTransport.send

    def fail_for_bob(self, mail, sender, recipient, message_id):
        assert recipient != "bob@example.com"
        return send(self, mail, sender, recipient, message_id)

    monkeypatch.setattr(SmtpTransport, "send", fail_for_bob)
    publish_urgent(people)
    escalate(125)
    assert sorted(mail_server.recipients) == ["alice@example.com", "charlie@example.com"]
    assert sorted(read_outcomes())[0] == ("FAILED", "An unexpected error. The log has it under outbox.failed.")


def test_who_reads_it_between_two_attempts_is_no_failure(people, escalate, mail_server):
    mail_server.answer_recipient = lambda address: "451 Later"
    broadcast_id = publish_urgent(people, targetType="ROLE", targetIds=["ops"])
    escalate(125)
    with write_transaction() as session:
        receipts.set_timestamp(session, [(broadcast_id, people["bob"].user_id)], "read_at", at=clock.now())
    mail_server.answer_recipient = lambda address: None
    escalate(200)
    assert (mail_server.recipients, read_outcomes()[0][0]) == ([], "CANCELLED")


def test_5xx_for_the_message_is_given_up_and_leaves_the_address(people, escalate, mail_server):
    mail_server.answer_mail = lambda mail: "552 Too large"
    publish_urgent(people)
    escalate(125)
    assert read_outcomes() == [("FAILED", "The mail server refused the message: 552 Too large")] * 3
    assert email_addresses.get(people["bob"].user_id).failing_since is None


def test_message_without_end_is_given_up_after_days(people, escalate, mail_server):
    mail_server.answer_recipient = lambda address: "451 Later"
    publish_urgent(people)
    escalate(125)
    escalate(MAX_AGE.total_seconds() + 200)
    assert {state for state, _ in read_outcomes()} == {"FAILED"}
    assert read_outcomes()[0][1].startswith("Given up after 2 attempts. The mail server refused the address: 451")


def test_repetition_has_the_same_message_id(people, escalate, mail_server, monkeypatch):
    """As after a crash between the server's answer and the commit."""
    publish_urgent(people, targetType="ROLE", targetIds=["ops"])
    monkeypatch.setattr(deliveries, "settle", lambda *_, **__: (_ for _ in ()).throw(RuntimeError("killed")))
    with pytest.raises(RuntimeError):
        escalate(125)
    monkeypatch.undo()
    outbox, later = Outbox(EMAIL.current), clock.now() + timedelta(seconds=125)
    monkeypatch.setattr(clock, "now", lambda: later)
    outbox.run_once()
    assert len(mail_server.mails) == 1  # the lease still holds
    monkeypatch.setattr(clock, "now", lambda: later + timedelta(minutes=6))
    outbox.run_once()
    first, second = mail_server.mails
    assert first["Message-ID"] == second["Message-ID"]


def test_outcome_of_a_lost_lease_is_not_recorded(people, escalate, mail_server):
    publish_urgent(people, targetType="ROLE", targetIds=["ops"])
    mail_server.answer_recipient = lambda address: "451 Later"
    escalate(125)
    now = clock.now() + timedelta(hours=1)
    with write_transaction() as session:
        [first] = deliveries.claim(session, "email", now=now, until=now, limit=5)
        [second] = deliveries.claim(session, "email", now=now, until=now + timedelta(minutes=5), limit=5)
        deliveries.settle(session, [deliveries.Settlement(first, "FAILED", "late")], at=now)
    assert second.id == first.id
    assert db.session.scalar(sqlalchemy.select(Delivery.state)) == "WAITING"


def test_paused_channel_keeps_its_queue(people, escalate, mail_server):
    publish_urgent(people)
    with write_transaction() as session:
        deliveries.get_settings_for_update(session, "email").paused_at = clock.now()
    escalate(125)
    assert mail_server.recipients == []
    assert [state for state, _ in read_outcomes()] == ["WAITING"] * 3


def test_server_that_says_nothing_is_down(monkeypatch):
    monkeypatch.setattr("broadcast.channels.smtp._CONNECT_TIMEOUT_SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = SmtpServer("127.0.0.1", listener.getsockname()[1], "none", "", "")
        outcome = SmtpTransport(server).send(b"", "a@example.com", "b@example.com", "1")
    assert outcome == Retry("The mail server did not answer in time.", is_server_down=True)


def test_outcomes_say_what_an_operator_can_read():
    assert Gone("x") != Refused("x")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    outcome = SmtpTransport(SmtpServer("127.0.0.1", port, "none", "", "")).send(
        b"", "a@example.com", "b@example.com", "1"
    )
    assert outcome == Retry("The mail server cannot be reached: Connection refused.", is_server_down=True)


def test_worker_that_stops_claims_nothing_more(people, escalate, mail_server):
    publish_urgent(people)
    outbox = Outbox(EMAIL.current)
    outbox.is_stopping = True
    escalate(1)
    escalation.run_once(now=clock.now() + timedelta(seconds=125))
    with write_transaction() as session:
        session.execute(sqlalchemy.update(Delivery).values(due_at=clock.now()))
    outbox.run_once()
    assert (mail_server.recipients, {state for state, _ in read_outcomes()}) == ([], {"WAITING"})
