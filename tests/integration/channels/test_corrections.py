"""A recall follows the mails: exactly those who got one get a correction, once."""

from collections.abc import Callable
from datetime import timedelta

import pytest
import sqlalchemy
from flask import Flask

from broadcast.actions import accounts, edits, inbound_events
from broadcast.channels import corrections
from broadcast.channels.corrections import CorrectionOutbox
from broadcast.channels.email import EMAIL
from broadcast.channels.outbox import Outbox
from broadcast.domain import clock
from broadcast.store import corrections as stored_corrections
from broadcast.store import deliveries, email_addresses
from broadcast.store.database import db
from broadcast.store.models import Broadcast, Delivery, RecallCorrection, User
from broadcast.store.transactions import write_transaction
from tests.integration.actions.test_inbound_events import ingest
from tests.integration.channels.test_escalation import EVERYBODY, publish_urgent, recall, see
from tests.support.inbound_records import build_cancel_event, build_cloud_event, build_structured_record


@pytest.fixture
def correct(in_app: Flask, monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Plan and send corrections as a worker does, so many seconds from now."""
    outbox, start = CorrectionOutbox(EMAIL.of(in_app)), clock.now()

    def run(seconds: float) -> None:
        later = start + timedelta(seconds=seconds)
        monkeypatch.setattr(clock, "now", lambda: later)
        corrections.plan_all(now=later)
        outbox.run_once()

    return run


def list_corrected(mail_server) -> list[str]:
    return sorted(
        address
        for mail, address in zip(mail_server.mails, mail_server.recipients, strict=True)
        if mail["Subject"].startswith("Recalled: ")
    )


def test_those_who_got_the_mail_get_one_correction_and_nobody_else(people, escalate, correct, mail_server):
    broadcast_id = publish_urgent(people, title="Lifts stand")
    see(broadcast_id, people["bob"])
    escalate(125)
    correct(126)
    recall(broadcast_id, people)
    for seconds in (130, 140, 500):
        correct(seconds)
    assert list_corrected(mail_server) == [EVERYBODY[0], EVERYBODY[2]]
    assert [mail["Subject"] for mail in mail_server.mails] == ["Lifts stand"] * 2 + ["Recalled: Lifts stand"] * 2
    ids = {mail["To"]: mail["Message-ID"] for mail in mail_server.mails[:2]}
    assert {mail["To"]: mail["In-Reply-To"] for mail in mail_server.mails[2:]} == ids
    correction = mail_server.mails[-1]
    assert "has been recalled" in correction.get_body(("plain",)).get_content()
    assert correction["List-Unsubscribe"].startswith("<https://broadcast.example/email/unsubscribe/")
    assert db.session.scalar(sqlalchemy.select(RecallCorrection.finished_at)) is not None


def test_recall_before_any_mail_needs_no_correction(people, escalate, correct, mail_server):
    broadcast_id = publish_urgent(people)
    escalate(1)
    recall(broadcast_id, people)
    escalate(125)
    correct(126)
    assert mail_server.mails == []
    assert db.session.scalar(sqlalchemy.select(RecallCorrection.broadcast_id)) is None


def test_mail_that_was_on_its_way_at_the_recall_is_corrected_too(people, escalate, correct, mail_server, monkeypatch):
    broadcast_id = publish_urgent(people)
    prepare = Outbox._prepare

    def prepare_then_recall(self, claimed, now):
        yield from prepare(self, claimed, now)
        recall(broadcast_id, people)
        corrections.plan_all(now=now)

    monkeypatch.setattr(Outbox, "_prepare", prepare_then_recall)
    escalate(125)
    monkeypatch.setattr(Outbox, "_prepare", prepare)
    assert sorted(mail_server.recipients) == EVERYBODY
    correct(126)
    assert list_corrected(mail_server) == EVERYBODY


def test_what_was_held_back_is_cancelled_and_does_not_delay_the_correction(people, escalate, correct, mail_server):
    broadcast_id = publish_urgent(people)
    mail_server.answer_recipient = {"bob@example.com": "451 Later"}.get
    escalate(125)
    with write_transaction() as session:
        held = sqlalchemy.update(Delivery).where(Delivery.state == "WAITING")
        session.execute(held.values(due_at=clock.now() + timedelta(hours=8)))
    recall(broadcast_id, people)
    correct(126)
    assert list_corrected(mail_server) == [EVERYBODY[0], EVERYBODY[2]]
    escalate(127)
    correct(128)
    assert sorted(db.session.scalars(sqlalchemy.select(Delivery.state))) == ["CANCELLED"] + ["SENT"] * 4
    assert db.session.scalar(sqlalchemy.select(RecallCorrection.finished_at)) is not None


def test_plan_that_was_killed_begins_anew_and_corrects_nobody_twice(
    people, escalate, correct, mail_server, monkeypatch
):
    monkeypatch.setattr(stored_corrections, "DELIVERIES_PER_BATCH", 1)
    broadcast_id = publish_urgent(people)
    escalate(125)
    recall(broadcast_id, people)
    with write_transaction() as session:
        assert stored_corrections.may_plan(session, broadcast_id, lease=timedelta(minutes=5), now=clock.now())
        stored_corrections.plan_batch(session, broadcast_id, stored_corrections.START, now=clock.now())
    correct(126)
    assert list_corrected(mail_server) == EVERYBODY


def test_person_who_got_two_mails_gets_one_correction(people, escalate, correct, mail_server):
    broadcast_id = publish_urgent(people, targetType="ROLE", targetIds=["ops"])
    escalate(125)
    later = clock.now() + timedelta(seconds=1)
    edits.edit(broadcast_id, {"content": "New"}, version=None, by=people["alice"], now=later, notify_again=True)
    escalate(300)
    assert len(mail_server.mails) == 2
    recall(broadcast_id, people)
    correct(301)
    assert list_corrected(mail_server) == ["bob@example.com"]


def test_plain_edit_sends_nothing(people, escalate, correct, mail_server):
    broadcast_id = publish_urgent(people)
    escalate(125)
    edits.edit(broadcast_id, {"content": "All of them."}, version=None, by=people["alice"], now=clock.now())
    escalate(300)
    correct(300)
    assert len(mail_server.mails) == 3


def test_nothing_follows_to_who_wants_no_mail_any_more_or_is_gone(people, escalate, correct, mail_server):
    broadcast_id = publish_urgent(people)
    escalate(125)
    accounts.save_preferences({"email": "NEVER"}, by=people["bob"], now=clock.now())
    with write_transaction() as session:
        session.get(User, people["charlie"].user_id).disabled_at = clock.now()
        email_addresses.mark_failing(session, people["alice"].user_id, "alice@example.com", "550", at=clock.now())
    recall(broadcast_id, people)
    correct(126)
    assert list_corrected(mail_server) == []
    query = sqlalchemy.select(Delivery.reason).where(Delivery.channel == "correction").order_by(Delivery.user_id)
    assert db.session.scalars(query).all() == [
        "They cannot be reached by e-mail any more.",
        "Their preferences exclude it.",
        "Their account is disabled.",
    ]


def test_paused_channel_sends_no_correction(people, escalate, correct, mail_server):
    broadcast_id = publish_urgent(people)
    escalate(125)
    recall(broadcast_id, people)
    with write_transaction() as session:
        deliveries.get_settings_for_update(session, "email").paused_at = clock.now()
    correct(126)
    assert list_corrected(mail_server) == []


def test_recall_by_an_event_of_another_system_is_followed_too(people, correct, mail_server):
    ingest_actor = inbound_events.get_ingest_actor(now=clock.now())
    ingest(ingest_actor, build_structured_record(build_cloud_event("1")))
    broadcast_id = db.session.scalar(sqlalchemy.select(Broadcast.id))
    now = clock.now()
    values = {"user_id": people["bob"].user_id, "channel": "email", "revision": 1, "message_id": "1.1.2.abc"}
    with write_transaction() as session:
        session.add(Delivery(broadcast_id=broadcast_id, state="SENT", due_at=now, attempts=1, created_at=now, **values))
    ingest(ingest_actor, build_structured_record(build_cancel_event("1")))
    correct(1)
    assert list_corrected(mail_server) == ["bob@example.com"]
