"""Roles are created, renamed and deleted, and every reference by name follows."""

from datetime import timedelta

import pytest
from sqlalchemy import select

from broadcast.actions import broadcasts, edits, library, roles, users
from broadcast.base.errors import Conflict, Forbidden, Invalid, NotFound
from broadcast.domain import clock
from broadcast.domain.audience import Viewer
from broadcast.store import audiences
from broadcast.store import roles as rows
from broadcast.store import users as known
from broadcast.store.database import db
from broadcast.store.inbox import Inbox
from broadcast.store.models import AuditEntry, Broadcast, SavedAudience
from broadcast.web.console.broadcasts import compose_form
from tests.support.builders import build_message, build_role_message, count_rows, load_actor, publish_message


def inbox_of(username: str) -> list[int]:
    found = Inbox(load_actor(username).viewer, clock.now()).list_unread_backlog(through=10**9, limit=50)
    return [item.card.id for item in found]


def test_role_is_made_once_and_can_be_addressed(cast):
    roles.create(" Night-Shift ", by=cast["alice"], now=clock.now())
    assert "night-shift" in known.list_role_names()
    with pytest.raises(Invalid):
        roles.create("night-shift", by=cast["alice"], now=clock.now())
    users.set_roles(cast["charlie"].user_id, ["night-shift"], by=cast["alice"], now=clock.now())
    assert publish_message(cast["alice"], build_role_message("night-shift")) in inbox_of("charlie")


@pytest.mark.parametrize("name", ["", "1x", "a b", "ä", "x" * 65, "ops~1", "admin", "viewer", "a\0"])
def test_name_that_cannot_be_is_refused_for_a_new_role_and_for_an_old_one(cast, name):
    before = count_rows()
    with pytest.raises(Invalid):
        roles.create(name, by=cast["alice"], now=clock.now())
    with pytest.raises(Invalid):
        roles.rename("ops", name, by=cast["alice"], now=clock.now())
    assert count_rows() == before


@pytest.mark.parametrize("name", ["admin", "author", "viewer", "auditor"])
def test_built_in_role_is_neither_renamed_nor_deleted(cast, name):
    with pytest.raises(Conflict):
        roles.rename(name, "other", by=cast["alice"], now=clock.now())
    with pytest.raises(Conflict):
        roles.delete(name, by=cast["alice"], now=clock.now())


def test_only_who_manages_people_changes_roles(cast):
    for act in (
        lambda: roles.create("x", by=cast["bob"], now=clock.now()),
        lambda: roles.rename("ops", "x", by=cast["bob"], now=clock.now()),
        lambda: roles.delete("ops", by=cast["bob"], now=clock.now()),
    ):
        with pytest.raises(Forbidden):
            act()


def test_unknown_role_is_not_found(cast):
    with pytest.raises(NotFound):
        roles.rename("nobody", "x", by=cast["alice"], now=clock.now())
    with pytest.raises(NotFound):
        roles.delete("nobody", by=cast["alice"], now=clock.now())


def test_renamed_role_is_renamed_wherever_it_is_named(cast):
    now, alice = clock.now(), cast["alice"]
    to_it, without = (
        publish_message(alice, build_role_message("ops")),
        publish_message(alice, build_message(exceptRoles=["ops"])),
    )
    library.save_audience("Ops", {"targetType": "ROLE", "targetIds": ["ops"]}, by=alice, now=now)
    library.save_audience("Not ops", {"targetType": "ALL", "exceptRoles": ["ops"]}, by=alice, now=now)
    typed = compose_form.build_empty_form() | {
        "title": "x",
        "targetType": "ROLE",
        "roles": ["ops"],
        "exceptRoles": ["ops"],
    }
    draft = edits.save_draft(typed, None, broadcast_id=None, version=None, by=alice, now=now).id
    assert roles.rename("ops", "operations", by=alice, now=now) == "operations"
    assert known.get_by_username("bob").roles == {"operations"}
    assert known.list_role_names() == ["admin", "operations"]
    assert inbox_of("bob") == [to_it]
    assert inbox_of("charlie") == [without]
    targets = [row.target for row in db.session.scalars(select(SavedAudience).order_by(SavedAudience.id))]
    assert [targets[0]["targetIds"], targets[1]["exceptRoles"]] == [["operations"], ["operations"]]
    kept = db.session.get(Broadcast, draft).typed
    assert (kept["roles"], kept["exceptRoles"]) == (["operations"], ["operations"])
    assert "operations" in db.session.get(Broadcast, to_it).why
    act = db.session.scalars(select(AuditEntry).where(AuditEntry.action == "role.renamed")).one()
    assert act.detail == {"before": "ops", "after": "operations"}


def test_name_of_a_renamed_role_can_be_given_to_another(cast):
    sent = publish_message(cast["alice"], build_role_message("ops"))
    roles.rename("ops", "operations", by=cast["alice"], now=clock.now())
    roles.create("ops", by=cast["alice"], now=clock.now())
    users.set_roles(cast["charlie"].user_id, ["ops"], by=cast["alice"], now=clock.now())
    assert sent not in inbox_of("charlie")


def test_deleted_role_takes_its_live_broadcasts_out_of_inboxes_and_says_so_in_the_audit(cast):
    alone = publish_message(cast["alice"], build_role_message("ops"))
    roles.create("sales", by=cast["alice"], now=clock.now())
    either = publish_message(cast["alice"], build_role_message("ops", "sales"))
    roles.delete("ops", by=cast["alice"], now=clock.now())
    assert inbox_of("bob") == []
    assert known.get_by_username("bob").roles == frozenset()
    assert known.list_role_names() == ["admin", "sales"]
    assert "the role ops" in db.session.get(Broadcast, alone).why
    act = db.session.scalars(select(AuditEntry).where(AuditEntry.action == "role.deleted")).one()
    assert (act.object_id, act.detail["people"], set(act.detail["live"])) == ("ops", 1, {alone, either})
    assert audiences.count(audiences.get_audience(db.session.get(Broadcast, either))) == 0
    broadcasts.cancel(alone, reason="No role", by=cast["alice"], now=clock.now())


def test_later_role_of_the_same_name_gets_nothing_of_the_deleted_one(cast):
    sent = publish_message(cast["alice"], build_role_message("ops"))
    roles.delete("ops", by=cast["alice"], now=clock.now())
    roles.create("ops", by=cast["alice"], now=clock.now())
    users.set_roles(cast["charlie"].user_id, ["ops"], by=cast["alice"], now=clock.now())
    assert sent not in inbox_of("charlie")
    roles.delete("ops", by=cast["alice"], now=clock.now())  # a second of the name stays beside the first


def test_whom_a_deleted_role_left_out_stays_left_out(cast):
    sent = publish_message(cast["alice"], build_message(exceptRoles=["ops"]))
    roles.delete("ops", by=cast["alice"], now=clock.now())
    assert sent not in inbox_of("bob")
    assert not audiences.get_audience(db.session.get(Broadcast, sent)).includes(Viewer(cast["bob"].user_id))
    assert sent in inbox_of("charlie")


def test_plan_that_would_reach_nobody_becomes_a_draft_and_others_stay_planned(cast):
    roles.create("sales", by=cast["alice"], now=clock.now())
    later = clock.to_rfc3339(clock.now() + timedelta(hours=1))
    alone = publish_message(cast["alice"], build_role_message("ops", scheduledAt=later))
    roles.delete("sales", by=cast["alice"], now=clock.now())
    assert db.session.get(Broadcast, alone).status == "SCHEDULED"
    roles.delete("ops", by=cast["alice"], now=clock.now())
    assert db.session.get(Broadcast, alone).status == "DRAFT"


def test_unended_broadcasts_are_counted_by_role(cast):
    publish_message(cast["alice"], build_role_message("ops"))
    publish_message(cast["alice"], build_message(exceptRoles=["ops"], draft=True))
    assert rows.count_unended_broadcasts() == {"ops": {"ACTIVE": 1, "DRAFT": 1}}
