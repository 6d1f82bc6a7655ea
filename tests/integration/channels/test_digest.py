"""Digests: what is in them, and that each period has one."""

from collections.abc import Callable
from datetime import datetime, timedelta

import pytest
import sqlalchemy
from flask import Flask

from broadcast.actions import accounts, edits, users
from broadcast.actions import receipts as receipt_actions
from broadcast.channels.digest import MAX_MESSAGES, DigestSender
from broadcast.channels.email import EMAIL
from broadcast.domain import clock
from broadcast.domain.actor import SYSTEM, Actor
from broadcast.store import deliveries, digests, email_addresses
from broadcast.store.database import db
from broadcast.store.models import Delivery, Digest
from broadcast.store.transactions import write_transaction
from tests.integration.channels.test_escalation import publish_urgent, recall
from tests.support.builders import build_message, publish_message
from tests.support.escalation import by_channel, set_policy


def choose(actor: Actor, **preferences: str) -> None:
    accounts.save_preferences({"digest": "hourly"} | preferences, by=actor, now=clock.now())


def publish(people: dict[str, Actor], **changes) -> int:
    return publish_message(people["alice"], build_message(**{"priority": "NORMAL"} | changes))


def read_text(mail) -> str:
    return mail.get_body(("plain",)).get_content()


@pytest.fixture
def send_digests(people, in_app: Flask, monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Send as a worker does, so many seconds from now."""
    sender, start = DigestSender(EMAIL.of(in_app)), clock.now()

    def run(seconds: float) -> None:
        later: datetime = start + timedelta(seconds=seconds)
        monkeypatch.setattr(clock, "now", lambda: later)
        sender.run_once()

    return run


def test_digest_has_all_that_is_unread_and_only_who_wants_it_gets_one(people, send_digests, mail_server):
    choose(people["bob"])
    lifts = publish(people, title="Lifts", content="They **stand** <still>.", requiresAck=True)
    publish(people, title="Canteen", priority="LOW")
    receipt_actions.mark_read([publish(people, title="Read")], by=people["bob"], now=clock.now())
    publish(people, title="Only Alice", targetType="ROLE", targetIds=["admin"])
    send_digests(0)
    assert mail_server.mails == []
    send_digests(3600)
    [mail] = mail_server.mails
    assert (mail["To"], mail["Subject"]) == ("Bob <bob@example.com>", "2 unread messages in Broadcast")
    assert mail["List-Unsubscribe-Post"] == "List-Unsubscribe=One-Click"
    text, html = read_text(mail), mail.get_body(("html",)).get_content()
    for content in (text, html):
        assert "Lifts" in content
        assert "Canteen" in content
        assert f"https://broadcast.example/inbox/{lifts}" in content
        assert "Only Alice" not in content
    assert "They stand <still>." in text
    assert "They stand &lt;still&gt;." in html
    assert f'{mail["List-Unsubscribe"].strip("<>")}"' in html


def test_each_period_has_one_digest_and_tells_nothing_twice(people, send_digests, mail_server):
    choose(people["bob"])
    publish(people, title="First")
    for seconds in (3600, 3601, 3660):
        send_digests(seconds)
    assert len(mail_server.mails) == 1
    send_digests(7200)
    assert len(mail_server.mails) == 1  # nothing new is unread
    publish(people, title="Second")
    send_digests(10_800)
    assert [mail["Subject"] for mail in mail_server.mails] == ["First", "Second"]
    assert db.session.scalars(sqlalchemy.select(Delivery.state)).all() == ["SENT", "SENT"]


def test_digest_leaves_out_what_a_mail_told(people, escalate, send_digests, mail_server):
    choose(people["bob"])
    publish_urgent(people, title="Told", targetType="ROLE", targetIds=["ops"])
    escalate(125)
    assert [mail["Subject"] for mail in mail_server.mails] == ["Told"]
    send_digests(3600)
    assert len(mail_server.mails) == 1


def test_message_shown_again_is_in_the_digest_again(people, send_digests, mail_server):
    choose(people["bob"])
    broadcast_id = publish(people)
    send_digests(3600)
    later = clock.now() + timedelta(seconds=1)
    edits.edit(broadcast_id, {"title": "New"}, version=None, by=people["alice"], now=later, notify_again=True)
    send_digests(7200)
    assert mail_server.mails[1]["Subject"] == "New"


def test_low_and_normal_wait_for_the_digest(people, escalate, mail_server):
    for priority in ("LOW", "NORMAL", "HIGH"):
        set_policy(priority, by_channel(0))
    choose(people["bob"])
    for priority in ("LOW", "NORMAL", "HIGH"):
        publish(people, title=priority, priority=priority, targetType="ROLE", targetIds=["ops"])
    escalate(1)
    assert [mail["Subject"] for mail in mail_server.mails] == ["HIGH"]


def unsubscribe(people: dict[str, Actor]) -> None:
    accounts.save_preferences({"digest": "hourly", "email": "NEVER"}, by=people["bob"], now=clock.now())


def disable(people: dict[str, Actor]) -> None:
    users.disable_user(people["bob"].user_id, by=SYSTEM, now=clock.now())


def lose_address(people: dict[str, Actor]) -> None:
    with write_transaction() as session:
        email_addresses.mark_failing(session, people["bob"].user_id, "bob@example.com", "550", at=clock.now())


@pytest.mark.parametrize("end", [unsubscribe, disable, lose_address])
def test_who_cannot_or_will_not_get_one_gets_none(people, send_digests, mail_server, end: Callable):
    choose(people["bob"])
    publish(people)
    end(people)
    send_digests(3600)
    send_digests(7200)
    assert mail_server.mails == []


def test_recalled_and_muted_messages_are_not_in_it(people, send_digests, mail_server):
    choose(people["bob"], mutedCategories=["News"])
    recall(publish(people), people)
    publish(people, category="News")
    send_digests(3600)
    assert mail_server.mails == []


def test_quiet_hours_hold_it(people, send_digests, mail_server):
    until = clock.now() + timedelta(hours=3)
    choose(people["bob"], doNotDisturbUntil=clock.to_rfc3339(until))
    publish(people)
    send_digests(3600)
    assert mail_server.mails == []
    send_digests(3 * 3600 + 1)
    assert len(mail_server.mails) == 1


def test_server_that_is_down_delays_it(people, send_digests, mail_server):
    choose(people["bob"])
    publish(people)
    mail_server.stop()
    send_digests(3600)
    assert "cannot be reached" in deliveries.get_settings("email").problem
    mail_server.start()
    send_digests(3661)
    assert len(mail_server.mails) == 1


def test_refused_address_is_marked_and_the_messages_are_recorded(people, send_digests, mail_server):
    choose(people["bob"])
    publish(people)
    mail_server.answer_recipient = lambda address: "550 No such user"
    send_digests(3600)
    assert email_addresses.get(people["bob"].user_id).failing_since is not None
    [delivery] = db.session.scalars(sqlalchemy.select(Delivery))
    assert (delivery.channel, delivery.state) == ("digest", "FAILED")
    assert "550 No such user" in delivery.reason


def test_worker_killed_after_the_server_took_it_leaves_it_to_another_under_its_id(
    people, send_digests, mail_server, monkeypatch
):
    choose(people["bob"])
    publish(people)
    move_on = digests.move_on
    monkeypatch.setattr(digests, "move_on", lambda *_, **__: (_ for _ in ()).throw(RuntimeError("killed")))
    with pytest.raises(RuntimeError):
        send_digests(3600)
    monkeypatch.setattr(digests, "move_on", move_on)
    send_digests(3700)
    assert len(mail_server.mails) == 1  # the lease still holds
    send_digests(3600 + 400)
    first, second = mail_server.mails
    assert first["Message-ID"] == second["Message-ID"]
    send_digests(3600 + 800)
    assert len(mail_server.mails) == 2


def test_long_digest_says_how_many_are_left_and_tells_them_next_time(people, send_digests, mail_server):
    choose(people["bob"])
    for number in range(MAX_MESSAGES + 2):
        publish(people, title=f"Number {number:02}")
    send_digests(3600)
    send_digests(7200)
    first, second = mail_server.mails
    assert "And 2 more." in read_text(first)
    assert "Number 00" not in read_text(first)
    assert "Number 00" in read_text(second)


def test_preferences_schedule_and_cancel_it(people, in_app):
    now = datetime.fromisoformat("2026-12-01T10:20:00+00:00")
    daily = {"digest": "daily", "digestTime": "07:30", "timeZone": "Europe/Berlin"}
    accounts.save_preferences(daily, by=people["bob"], now=now)
    [row] = db.session.scalars(sqlalchemy.select(Digest))
    assert clock.to_rfc3339(row.period_at) == "2026-12-02T06:30:00.000Z"
    accounts.save_preferences(daily | {"digest": "off"}, by=people["bob"], now=now)
    assert db.session.scalars(sqlalchemy.select(Digest)).all() == []
