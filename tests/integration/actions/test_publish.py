"""Publishing: state, log and audit in one transaction or not at all; one broadcast per idempotency key."""

from datetime import timedelta

import pytest

from broadcast.actions import broadcasts as actions
from broadcast.actions import users as people_actions
from broadcast.base.errors import Conflict, Forbidden, Invalid
from broadcast.bus.protocol import BUS
from broadcast.domain import clock
from broadcast.domain.actor import Actor
from broadcast.domain.audience import EveryoneAudience, make_role_audience, make_user_audience
from broadcast.domain.events import EventType
from broadcast.domain.message import parse_draft
from broadcast.store import broadcasts, log
from tests.support.background import call_at_once
from tests.support.builders import build_message, build_role_message, build_user_message, count_rows, load_actor

NOW = clock.now()


def publish(by: Actor, raw: dict | None = None, *, key: str | None = None) -> actions.PublishResult:
    return actions.publish(parse_draft(raw or build_message(), now=NOW), by=by, now=NOW, idempotency_key=key)


def changed(before: dict[str, int]) -> dict[str, int]:
    return {name: n - before[name] for name, n in count_rows().items() if n != before[name]}


@pytest.mark.parametrize(
    ("raw", "audience", "reach"),
    [
        (build_message(), lambda cast: EveryoneAudience(), 3),
        (build_role_message("ops"), lambda cast: make_role_audience(["ops"]), 1),
        (build_role_message("OPS", "admin"), lambda cast: make_role_audience(["ops", "admin"]), 2),
        (
            build_user_message("bob", "charlie"),
            lambda cast: make_user_audience([cast["bob"].user_id, cast["charlie"].user_id]),
            2,
        ),
    ],
)
def test_published_message_is_one_row_one_event_one_audit(cast, raw, audience, reach):
    before = count_rows()
    published = publish(cast["alice"], raw)
    broadcast = broadcasts.get(published.id)
    assert published.is_new
    assert (broadcast.status, broadcast.revision, broadcast.audience_count) == ("ACTIVE", 1, reach)
    assert (broadcast.sender_id, broadcast.sender_name) == (cast["alice"].user_id, "Alice")
    [event] = log.read_events(before["log_head.seq"])
    assert (event.type, event.broadcast_id, event.seq) == (EventType.MESSAGE, published.id, broadcast.seq)
    assert event.audience == audience(cast)
    assert event.payload == broadcast.to_card().to_payload()
    assert [(act.action, act.actor_id) for act in broadcasts.list_audit_entries(published.id)] == [
        ("broadcast.published", cast["alice"].user_id)
    ]
    rows = changed(before)
    assert rows.pop("broadcast_roles", 0) == len(getattr(audience(cast), "names", ()))
    assert rows.pop("broadcast_users", 0) == len(getattr(audience(cast), "ids", ()))
    assert rows == {"broadcasts": 1, "events": 1, "audit": 1, "log_head.seq": 1}


def test_plan_counts_whom_it_reaches_when_it_is_sent(cast):
    plan = publish(cast["alice"], build_role_message("ops", scheduledAt=clock.to_rfc3339(NOW + timedelta(hours=1)))).id
    assert broadcasts.get(plan).audience_count == 1
    people_actions.set_roles(cast["charlie"].user_id, ["ops"], by=cast["alice"], now=NOW)
    assert actions.release_due([plan], now=NOW + timedelta(hours=1)) == [plan]
    assert broadcasts.get(plan).audience_count == 2


@pytest.mark.parametrize(("more", "status"), [({"draft": True}, "DRAFT"), ({"scheduledAt": "later"}, "SCHEDULED")])
def test_what_is_not_live_yet_has_no_event(cast, more, status):
    later = {"scheduledAt": clock.to_rfc3339(NOW + timedelta(hours=1))} if "scheduledAt" in more else more
    before = count_rows()
    published = publish(cast["alice"], build_message(**later))
    assert broadcasts.get(published.id).status == status
    assert broadcasts.get(published.id).seq is None
    assert changed(before) == {"broadcasts": 1, "audit": 1}


@pytest.mark.parametrize("name", ["bob", "charlie"])
def test_who_is_no_administrator_may_not_publish(cast, name):
    before = count_rows()
    with pytest.raises(Forbidden):
        publish(cast[name])
    assert count_rows() == before


@pytest.mark.parametrize(
    ("raw", "word"),
    [
        (build_role_message("opps"), "opps"),
        (build_role_message("ops", "nosuch"), "nosuch"),
        (build_user_message("bob", "mallory"), "mallory"),
        (build_user_message("bob", 99_999), "99999"),
    ],
)
def test_unknown_role_or_person_is_refused_not_taken_for_everybody(cast, raw, word):
    """One wrong name stops the whole message; nothing is written."""
    before = count_rows()
    with pytest.raises(Invalid) as caught:
        publish(cast["alice"], raw)
    assert set(caught.value.fields) == {"targetIds"}
    assert word in caught.value.fields["targetIds"]
    assert count_rows() == before


def test_role_that_nobody_has_is_refused(cast):
    people_actions.set_roles(cast["bob"].user_id, [], by=cast["alice"], now=NOW)
    before = count_rows()
    with pytest.raises(Invalid, match="nobody"):
        publish(cast["alice"], build_role_message("ops"))
    assert count_rows() == before


def test_many_unknown_names_are_told_in_one_short_sentence(cast):
    with pytest.raises(Invalid) as caught:
        publish(cast["alice"], build_user_message(*(f"nobody{n}" for n in range(500))))
    assert "and 495 more" in str(caught.value)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("broken", ["broadcast.store.log.append", "broadcast.store.audit.record"])
def test_nothing_is_half_written_when_a_step_fails(cast, monkeypatch, broken):
    before = count_rows()

    def fail(*args, **options):
        raise ZeroDivisionError

    with monkeypatch.context() as patched:
        patched.setattr(broken, fail)
        with pytest.raises(ZeroDivisionError):
            publish(cast["alice"], build_user_message("bob", "charlie"), key="k")
    assert count_rows() == before
    assert publish(cast["alice"], build_user_message("bob", "charlie"), key="k").is_new


def test_bell_rings_after_the_commit_and_only_then(cast, in_app, monkeypatch):
    seen: list[int] = []
    monkeypatch.setattr(BUS.of(in_app), "notify", lambda: seen.append(count_rows()["events"]))
    before = count_rows()["events"]
    publish(cast["alice"])
    assert seen == [before + 1]
    with pytest.raises(Invalid):
        publish(cast["alice"], build_role_message("nosuch"))
    assert seen == [before + 1]


# ---- idempotency


def test_same_key_and_message_is_the_same_broadcast(cast):
    """I7"""
    first = publish(cast["alice"], key="k")
    before = count_rows()
    again = publish(cast["alice"], key="k")
    assert again == actions.PublishResult(first.id, is_new=False)
    assert count_rows() == before


@pytest.mark.parametrize("change", [{"title": "Other"}, {"priority": "HIGH"}, {"draft": True}, {"category": "News"}])
def test_same_key_for_another_message_is_a_conflict(cast, change):
    publish(cast["alice"], key="k")
    before = count_rows()
    with pytest.raises(Conflict):
        publish(cast["alice"], build_message(**change), key="k")
    assert count_rows() == before


def test_key_belongs_to_its_person(cast):
    first = publish(cast["alice"], key="k")
    people_actions.set_roles(cast["bob"].user_id, ["admin"], by=cast["alice"], now=NOW)
    second = publish(load_actor("bob"), key="k")
    assert second.is_new
    assert second.id != first.id


def test_refused_message_does_not_use_up_its_key(cast):
    with pytest.raises(Invalid):
        publish(cast["alice"], build_role_message("nosuch"), key="k")
    assert publish(cast["alice"], key="k").is_new


def test_fifty_parallel_posts_with_one_key_make_one_broadcast(cast, make_app):
    """F19: every answer points to the one that exists."""
    app = make_app(database_lock_timeout_seconds=25, database_pool_size=30)
    answers = call_at_once(app, 50, lambda _: publish(cast["alice"], key="double click"))
    assert len(answers) == 50
    assert len({answer.id for answer in answers}) == 1
    assert sum(answer.is_new for answer in answers) == 1
    after = count_rows()
    assert (after["broadcasts"], after["events"], after["idempotency_keys"]) == (1, 1, 1)
