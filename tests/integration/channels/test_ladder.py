"""The ladder: several steps and channels, deputies, reminders, and what is fixed when a broadcast is published."""

from datetime import timedelta

import pytest
import sqlalchemy

from broadcast.actions import broadcasts, deputies, edits, escalation_policies, reminders
from broadcast.actions import receipts as receipt_actions
from broadcast.base.errors import Conflict, Forbidden, Invalid
from broadcast.channels import escalation
from broadcast.domain import clock
from broadcast.domain.escalation import Awaited, PolicyStep
from broadcast.domain.message import Priority
from broadcast.store import escalation_policies as stored_policies
from broadcast.store.database import db
from broadcast.store.models import Broadcast, Delivery, EscalationStep
from tests.integration.channels.test_escalation import EVERYBODY, publish_urgent, recall, see
from tests.support.escalation import by_channel, set_policy, to_role

ONLY_BOB = {"targetType": "ROLE", "targetIds": ["ops"]}


def list_notices() -> list[Broadcast]:
    db.session.rollback()
    return list(db.session.scalars(sqlalchemy.select(Broadcast).where(Broadcast.title.like("Not %"))))


def test_each_step_reaches_who_has_not_done_what_it_awaits(people, escalate, mail_server):
    set_policy("URGENT", by_channel(2), by_channel(10, awaits="READ"), by_channel(30, awaits="ACKNOWLEDGED"))
    broadcast_id = publish_urgent(people, requiresAck=True)
    see(broadcast_id, people["bob"])
    receipt_actions.mark_read([broadcast_id], by=people["charlie"], now=clock.now())
    escalate(125)
    assert mail_server.recipients == ["alice@example.com"]
    escalate(605)
    assert sorted(mail_server.recipients[1:]) == ["alice@example.com", "bob@example.com"]
    escalate(1805)
    assert sorted(mail_server.recipients[3:]) == EVERYBODY
    escalate(9000)
    assert len(mail_server.recipients) == 6


def test_reading_is_acknowledging_where_no_acknowledgement_is_asked_for(people, escalate, mail_server):
    set_policy("URGENT", by_channel(2, awaits="ACKNOWLEDGED"))
    broadcast_id = publish_urgent(people)
    receipt_actions.mark_read([broadcast_id], by=people["bob"], now=clock.now())
    escalate(125)
    assert sorted(mail_server.recipients) == ["alice@example.com", "charlie@example.com"]


def test_who_reaches_it_between_claim_and_sending_gets_nothing(people, escalate, mail_server):
    set_policy("URGENT", by_channel(2, awaits="READ"))
    broadcast_id = publish_urgent(people, **ONLY_BOB)
    escalation.run_once(now=clock.now() + timedelta(seconds=125))
    receipt_actions.mark_read([broadcast_id], by=people["bob"], now=clock.now())
    escalate(130)
    assert mail_server.recipients == []


def test_deputies_are_told_once_how_many_have_not(people, escalate, mail_server):
    set_policy("URGENT", to_role(2, "ops", awaits="READ"))
    broadcast_id = publish_urgent(people, title="Lifts")
    receipt_actions.mark_read([broadcast_id], by=people["charlie"], now=clock.now())
    for seconds in (60, 125, 600):
        escalate(seconds)
    [notice] = list_notices()
    assert notice.title == "Not read by 2: Lifts"
    assert "2 people have not read" in notice.content
    assert notice.actions[0]["url"] == f"https://broadcast.example/console/broadcasts/{broadcast_id}"
    assert (notice.role_names, notice.sender_name, notice.priority) == (["ops"], "Broadcast", "URGENT")
    assert notice.escalation_plan is None
    assert mail_server.recipients == []


@pytest.mark.parametrize("finish", [recall, None], ids=["recalled", "nobody is missing"])
def test_deputies_are_not_told_what_is_over(people, escalate, finish):
    set_policy("URGENT", to_role(2, "ops", awaits="READ"))
    broadcast_id = publish_urgent(people, **ONLY_BOB)
    escalate(1)
    if finish:
        finish(broadcast_id, people)
    else:
        receipt_actions.mark_read([broadcast_id], by=people["bob"], now=clock.now())
    escalate(125)
    assert list_notices() == []


def test_deputies_are_told_once_when_the_worker_dies_before_the_commit(people, escalate, monkeypatch):
    set_policy("URGENT", to_role(2, "ops"))
    publish_urgent(people)
    publish_rows = deputies.publish_rows

    def die(*values):
        publish_rows(*values)
        raise KeyboardInterrupt

    monkeypatch.setattr(deputies, "publish_rows", die)
    with pytest.raises(KeyboardInterrupt):
        escalate(125)
    assert list_notices() == []
    monkeypatch.setattr(deputies, "publish_rows", publish_rows)
    escalate(130)
    assert len(list_notices()) == 1


def test_step_that_fails_leaves_the_others(people, escalate, mail_server, monkeypatch):
    set_policy("URGENT", to_role(1, "ops"), by_channel(2))
    publish_urgent(people)
    monkeypatch.setattr(deputies, "publish_rows", lambda *_: 1 / 0)
    escalate(125)
    assert sorted(mail_server.recipients) == EVERYBODY
    assert db.session.scalar(sqlalchemy.select(EscalationStep.role).where(EscalationStep.planned_at.is_(None))) == "ops"


def test_policy_is_fixed_when_the_broadcast_is_published(people, escalate, mail_server):
    publish_urgent(people, **ONLY_BOB)
    set_policy("URGENT")
    escalate(125)
    assert mail_server.recipients == ["bob@example.com"]
    publish_urgent(people, **ONLY_BOB)
    escalate(600)
    assert mail_server.recipients == ["bob@example.com"]


def test_policy_of_a_scheduled_broadcast_is_that_of_its_release(people, escalate, mail_server):
    at = clock.now() + timedelta(minutes=1)
    broadcast_id = publish_urgent(people, scheduledAt=clock.to_rfc3339(at), **ONLY_BOB)
    set_policy("URGENT", by_channel(30))
    broadcasts.release_due([broadcast_id], now=at)
    escalate(60 + 125)
    assert mail_server.recipients == []
    escalate(60 + 1805)
    assert mail_server.recipients == ["bob@example.com"]


def test_sender_chooses_another_policy_or_none(people, escalate, mail_server):
    set_policy("HIGH", by_channel(0), name="Fast")
    publish_urgent(people, priority="LOW", title="Fast", escalation="Fast", **ONLY_BOB)
    publish_urgent(people, title="None", escalation="none", **ONLY_BOB)
    escalate(600)
    assert [mail["Subject"] for mail in mail_server.mails] == ["Fast"]
    with pytest.raises(Invalid) as refused:
        publish_urgent(people, escalation="Slow", **ONLY_BOB)
    assert refused.value.fields["escalation"] == (
        "There is no escalation policy Slow. Choose one of: none, Fast, Urgent."
    )


def test_shown_again_climbs_the_whole_ladder_again(people, escalate, mail_server):
    set_policy("URGENT", by_channel(1), by_channel(2))
    broadcast_id = publish_urgent(people, **ONLY_BOB)
    escalate(125)
    edits.edit(broadcast_id, {"content": "New"}, version=None, by=people["alice"], now=clock.now(), notify_again=True)
    escalate(300)
    assert mail_server.recipients == ["bob@example.com"] * 4


def test_reminder_reaches_at_once_who_is_missing_and_has_no_page_open(people, in_app, escalate, mail_server):
    set_policy("URGENT", by_channel(60))
    broadcast_id = publish_urgent(people)
    escalate(1)
    receipt_actions.mark_read([broadcast_id], by=people["charlie"], now=clock.now())
    reminders.remind(broadcast_id, by=people["alice"], now=clock.now())
    online = {people["alice"].user_id}
    escalation.run_once(now=clock.now(), get_online_ids=lambda: online)
    escalate(5)
    assert mail_server.recipients == ["bob@example.com"]


def test_step_whose_channel_is_not_set_up_is_skipped(people, escalate, mail_server):
    set_policy("URGENT", by_channel(1, "drums"), by_channel(2))
    publish_urgent(people, **ONLY_BOB)
    escalate(125)
    assert mail_server.recipients == ["bob@example.com"]
    assert db.session.scalar(sqlalchemy.select(sqlalchemy.func.count()).select_from(Delivery)) == 1


SEEN_BY_EMAIL = PolicyStep(2, Awaited.SEEN, channel="email")


def save(people, name="Night", steps=(SEEN_BY_EMAIL,), default_for=(), by="alice", policy_id=None) -> None:
    changes = {"channels": ["email"], "by": people[by], "now": clock.now()}
    escalation_policies.save_policy(policy_id, name, steps, default_for, **changes)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"name": ""}, "name"),
        ({"name": "x" * 41}, "name"),
        ({"name": "NONE"}, "name"),
        ({"name": "a\u202eb"}, "name"),
        ({"steps": ()}, "step0"),
        ({"steps": [PolicyStep(n, Awaited.SEEN, "email") for n in range(7)]}, "step0"),
        ({"steps": [SEEN_BY_EMAIL, SEEN_BY_EMAIL]}, "step0"),
        ({"steps": [SEEN_BY_EMAIL, None]}, "step1"),
        ({"steps": [PolicyStep(10_081, Awaited.SEEN, "email")]}, "step0"),
        ({"steps": [PolicyStep(1, Awaited.SEEN, "drums")]}, "step0"),
        ({"steps": [PolicyStep(1, Awaited.SEEN, role="nobody")]}, "step0"),
    ],
)
def test_policy_that_is_wrong_is_refused_with_its_field(people, changes, field):
    with pytest.raises(Invalid) as refused:
        save(people, **changes)
    assert field in refused.value.fields


def test_policy_takes_a_priority_from_another_and_its_steps_are_in_order(people):
    late = PolicyStep(30, Awaited.READ, role="ops")
    save(people, steps=[late, SEEN_BY_EMAIL], default_for=[Priority.URGENT, Priority.HIGH])
    policies = {policy.name: policy for policy in stored_policies.list_policies()}
    assert policies["Night"].steps == (SEEN_BY_EMAIL, late)
    assert policies["Night"].default_for == ("HIGH", "URGENT")
    assert policies["Urgent"].default_for == ()


def test_policy_names_are_unique_and_only_operators_change_them(people):
    save(people)
    with pytest.raises(Conflict):
        save(people, name="night")
    with pytest.raises(Forbidden):
        save(people, name="Other", by="bob")
