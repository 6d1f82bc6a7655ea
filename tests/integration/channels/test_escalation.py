"""Who gets an e-mail, and who does not."""

from collections.abc import Callable
from datetime import timedelta
from functools import partial

import pytest
import sqlalchemy

from broadcast.actions import accounts, broadcasts, edits, users
from broadcast.actions import receipts as receipt_actions
from broadcast.channels import escalation
from broadcast.channels.email import EMAIL
from broadcast.domain import clock
from broadcast.domain.actor import SYSTEM, Actor
from broadcast.store import escalation as stored_escalation
from broadcast.store import receipts
from broadcast.store.database import db
from broadcast.store.models import Delivery, EmailAddress, EscalationStep
from broadcast.store.transactions import write_transaction
from tests.support.builders import build_message, expire_broadcast, publish_message
from tests.support.escalation import by_channel, set_policy

EVERYBODY = ["alice@example.com", "bob@example.com", "charlie@example.com"]


def publish_urgent(people: dict[str, Actor], **changes) -> int:
    return publish_message(people["alice"], build_message(**{"priority": "URGENT"} | changes))


def see(broadcast_id: int, actor: Actor) -> None:
    with write_transaction() as session:
        receipts.set_timestamp(session, [(broadcast_id, actor.user_id)], "first_seen_at", at=clock.now())


def read_outcomes() -> list[tuple[str, str | None]]:
    db.session.rollback()
    rows = db.session.scalars(sqlalchemy.select(Delivery).order_by(Delivery.user_id, Delivery.id))
    return [(row.state, row.reason) for row in rows]


def test_urgent_message_is_mailed_after_two_minutes_to_who_has_not_seen_it(people, escalate, mail_server):
    see(publish_urgent(people), people["bob"])
    escalate(110)
    assert mail_server.recipients == []
    escalate(125)
    assert sorted(mail_server.recipients) == ["alice@example.com", "charlie@example.com"]
    escalate(500)
    assert len(mail_server.mails) == 2
    assert read_outcomes() == [("SENT", None), ("SENT", None)]


def test_other_priorities_are_not_mailed(people, escalate, mail_server):
    for priority in ("LOW", "NORMAL", "HIGH"):
        publish_urgent(people, priority=priority)
    escalate(3600)
    assert mail_server.recipients == []
    assert db.session.scalar(sqlalchemy.select(sqlalchemy.func.count()).select_from(EscalationStep)) == 0


def test_nobody_outside_the_audience_is_mailed(people, escalate, mail_server):
    publish_urgent(people, targetType="ROLE", targetIds=["ops"])
    escalate(125)
    assert mail_server.recipients == ["bob@example.com"]


def recall(broadcast_id: int, people: dict[str, Actor]) -> None:
    broadcasts.cancel(broadcast_id, reason="Wrong", by=people["alice"], now=clock.now())


def end(broadcast_id: int, people: dict[str, Actor]) -> None:
    expire_broadcast(broadcast_id, now=clock.now())


def disable_bob(broadcast_id: int, people: dict[str, Actor]) -> None:
    users.disable_user(people["bob"].user_id, by=SYSTEM, now=clock.now())


def remove_role(broadcast_id: int, people: dict[str, Actor]) -> None:
    users.set_roles(people["bob"].user_id, [], by=SYSTEM, now=clock.now())


def read(broadcast_id: int, people: dict[str, Actor]) -> None:
    receipt_actions.mark_read([broadcast_id], by=people["bob"], now=clock.now())


def refuse_email(broadcast_id: int, people: dict[str, Actor]) -> None:
    accounts.save_preferences({"email": "NEVER"}, by=people["bob"], now=clock.now())


_ENDINGS = (recall, end, disable_bob, remove_role, read, refuse_email)


@pytest.mark.parametrize("finish", _ENDINGS)
def test_nothing_is_planned_once_it_is_over_for_a_person(people, escalate, mail_server, finish: Callable):
    broadcast_id = publish_urgent(people, targetType="ROLE", targetIds=["ops"])
    escalate(1)
    finish(broadcast_id, people)
    escalate(125)
    assert (mail_server.recipients, read_outcomes()) == ([], [])


@pytest.mark.parametrize("finish", _ENDINGS)
def test_nothing_is_sent_once_it_is_over_for_a_person(people, escalate, mail_server, finish: Callable):
    broadcast_id = publish_urgent(people, targetType="ROLE", targetIds=["ops"])
    escalation.run_once(now=clock.now())
    escalation.run_once(now=clock.now() + timedelta(seconds=125))
    finish(broadcast_id, people)
    escalate(130)
    assert mail_server.recipients == []
    [(state, reason)] = read_outcomes()
    assert state == "CANCELLED"
    assert reason.endswith(".")


def test_message_shown_again_is_mailed_again_unless_read_since(people, escalate, mail_server):
    broadcast_id = publish_urgent(people)
    escalate(125)
    assert sorted(mail_server.recipients) == EVERYBODY
    changes = {"content": "They run again."}
    edits.edit(broadcast_id, changes, version=None, by=people["alice"], now=clock.now(), notify_again=True)
    receipt_actions.mark_read([broadcast_id], by=people["charlie"], now=clock.now() + timedelta(seconds=1))
    mail_server.recipients.clear()
    escalate(300)
    assert sorted(mail_server.recipients) == EVERYBODY[:2]
    assert "run again" in mail_server.mails[-1].get_body(("plain",)).get_content()


def test_edit_that_shows_nothing_again_is_not_mailed_again_but_its_text_is(people, escalate, mail_server):
    broadcast_id = publish_urgent(people)
    escalate(1)
    edits.edit(broadcast_id, {"content": "All of them."}, version=None, by=people["alice"], now=clock.now())
    escalate(300)
    assert sorted(mail_server.recipients) == EVERYBODY
    assert "All of them." in mail_server.mails[0].get_body(("plain",)).get_content()


def test_quiet_hours_hold_mail_except_urgent(people, escalate, mail_server):
    set_policy("HIGH", by_channel(2))
    until = clock.now() + timedelta(hours=2)
    raw = {"doNotDisturbUntil": clock.to_rfc3339(until)}
    accounts.save_preferences(raw, by=people["bob"], now=clock.now())
    only_bob = {"targetType": "ROLE", "targetIds": ["ops"]}
    publish_urgent(people, priority="HIGH", title="High", **only_bob)
    publish_urgent(people, title="Urgent", **only_bob)
    escalate(125)
    assert [mail["Subject"] for mail in mail_server.mails] == ["Urgent"]
    escalate(7300)
    assert [mail["Subject"] for mail in mail_server.mails] == ["Urgent", "High"]


def test_address_that_is_not_verified_or_failing_is_not_mailed(people, escalate, mail_server):
    with write_transaction() as session:
        for row in session.scalars(sqlalchemy.select(EmailAddress)):
            if row.address.startswith("alice"):
                row.verified_at = None
            elif row.address.startswith("bob"):
                row.failing_since = clock.now()
    publish_urgent(people)
    escalate(125)
    assert mail_server.recipients == ["charlie@example.com"]


def test_what_was_sent_before_the_policy_was_set_is_not_mailed(people, escalate, mail_server):
    publish_urgent(people, priority="HIGH")
    escalate(1)
    set_policy("HIGH", by_channel(1))
    escalate(3600)
    assert mail_server.recipients == []


def test_plan_continues_where_it_stopped(people, escalate, mail_server, monkeypatch):
    monkeypatch.setattr(stored_escalation, "USERS_PER_BATCH", 1)
    broadcast_id = publish_urgent(people)
    escalation.run_once(now=clock.now())
    later = clock.now() + timedelta(seconds=125)
    [step] = [step for step in stored_escalation.list_due_steps(now=later) if step.channel == "email"]
    with write_transaction() as session:
        has_address, wants = EMAIL.current.has_address(), partial(escalation.is_wanted, EMAIL.current)
        state = stored_escalation.plan_batch(session, step.id, has_address, wants=wants, now=later)
    assert state is stored_escalation.BatchState.MORE
    assert len(read_outcomes()) == 1
    escalate(130)
    assert sorted(mail_server.recipients) == EVERYBODY
    assert step.broadcast_id == broadcast_id
