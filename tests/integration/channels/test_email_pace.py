"""The limit of mails a minute."""

from collections.abc import Callable
from datetime import datetime, timedelta

import pytest
from flask import Flask

from broadcast.channels import escalation
from broadcast.channels.email import EMAIL
from broadcast.channels.outbox import Outbox
from broadcast.domain import clock
from broadcast.store import email_addresses, email_pace
from broadcast.store.models import User
from broadcast.store.transactions import write_transaction
from tests.integration.channels.test_escalation import publish_urgent, read_outcomes

PEOPLE = 12


@pytest.fixture
def send_at(people, in_app: Flask, monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Let two workers, which may send 60 mails a minute, look into an outbox of PEOPLE mails, so many seconds later."""
    with write_transaction() as session:
        for number in range(PEOPLE - 3):
            user = User(username=f"person{number}", name="Person", created_at=clock.now())
            session.add(user)
            session.flush()
            address = f"person{number}@example.com"
            email_addresses.set_verified(session, user.id, address, at=clock.now(), is_from_provider=False)
    publish_urgent(people)
    start = clock.now() + timedelta(seconds=125)
    workers = [Outbox(EMAIL.of(in_app), max_per_minute=60) for _ in range(2)]

    def send(seconds: float) -> None:
        later: datetime = start + timedelta(seconds=seconds)
        monkeypatch.setattr(clock, "now", lambda: later)
        escalation.run_once(now=later)
        for worker in workers:
            worker.run_once()

    return send


def test_all_workers_together_send_no_more_than_the_limit(send_at, mail_server):
    counts = []
    for seconds in (0, 0.5, 1, 2, 3):
        send_at(seconds)
        counts.append(len(mail_server.mails))
    assert counts == [1, 1, 2, 3, 4]


def test_time_in_which_nothing_was_sent_is_not_saved_up(send_at, mail_server):
    send_at(0)
    send_at(600)
    assert len(mail_server.mails) == 1 + 3  # two seconds, and now
    send_at(601)
    assert len(mail_server.mails) == 1 + 3 + 1


def test_what_waits_for_its_turn_is_no_failure(send_at, mail_server):
    send_at(0)
    assert sorted(read_outcomes(), key=str) == [("SENT", None)] + [("WAITING", None)] * (PEOPLE - 1)
    for seconds in range(1, PEOPLE):
        send_at(seconds)
    assert len(set(mail_server.recipients)) == len(mail_server.recipients) == PEOPLE


@pytest.mark.usefixtures("in_app")
def test_without_a_limit_nothing_is_counted():
    with write_transaction() as session:
        assert email_pace.count_allowed(session, 0, now=clock.now()) == email_pace.UNLIMITED
        email_pace.record_sent(session, 5, 0, now=clock.now())
    with write_transaction() as session:
        assert email_pace.count_allowed(session, 60, now=clock.now()) == 1
