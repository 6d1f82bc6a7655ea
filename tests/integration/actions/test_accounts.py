"""Renaming and deleting accounts: what is deleted, what remains, and which accounts cannot be deleted."""

import pytest
from sqlalchemy import select

from broadcast.actions import accounts, broadcasts, edits, receipts, sessions, tokens, users
from broadcast.base.errors import Conflict, Forbidden, Invalid, NotFound, SignInRefused
from broadcast.domain import clock
from broadcast.domain.actor import SYSTEM, Actor
from broadcast.store import audiences, broadcast_stats
from broadcast.store import users as known
from broadcast.store.database import db
from broadcast.store.models import (
    ApiToken,
    AuditEntry,
    Broadcast,
    LinkedIdentity,
    Receipt,
    SavedAudience,
    User,
    UserSession,
)
from broadcast.store.transactions import write_transaction
from broadcast.store.users import UserFilters
from broadcast.web.console.broadcasts import compose_form
from tests.support.builders import build_message, build_user_message, count_rows, load_actor, publish_message

PASSWORD = "correct horse battery"


def a_draft(by: Actor, **typed) -> int:
    return edits.save_draft(
        compose_form.build_empty_form() | typed, None, broadcast_id=None, version=None, by=by, now=clock.now()
    ).id


def test_corrected_name_is_shown_and_searched_and_what_was_sent_keeps_the_old_one(cast):
    sent = publish_message(cast["alice"])
    accounts.rename(cast["alice"].user_id, "  Alice   Ångström ", by=cast["alice"], now=clock.now())
    assert known.get(cast["alice"].user_id).name == "Alice Ångström"
    assert [user.username for user in known.search("angstr", limit=5)] == ["alice"]
    assert db.session.get(Broadcast, sent).sender_name == "Alice"
    act = db.session.scalars(select(AuditEntry).order_by(AuditEntry.id.desc())).first()
    assert (act.action, act.detail) == ("person.renamed", {"before": "Alice", "after": "Alice Ångström"})


def test_what_is_not_sent_yet_carries_the_corrected_name(cast):
    draft = a_draft(cast["alice"], title="Later")
    accounts.rename(cast["alice"].user_id, "Alice Adler", by=cast["alice"], now=clock.now())
    assert db.session.get(Broadcast, draft).sender_name == "Alice Adler"


@pytest.mark.parametrize("name", ["", "   ", "x" * 201, "a\0b"])
def test_name_that_cannot_be_is_refused_and_nothing_changes(cast, name):
    before = count_rows()
    with pytest.raises(Invalid) as refused:
        accounts.rename(cast["bob"].user_id, name, by=cast["alice"], now=clock.now())
    assert set(refused.value.fields) == {"name"}
    assert count_rows() == before


def test_only_who_manages_people_renames_and_deletes(cast):
    for act in (
        lambda by: accounts.rename(cast["charlie"].user_id, "X", by=by, now=clock.now()),
        lambda by: accounts.delete(cast["charlie"].user_id, typed_username="charlie", by=by, now=clock.now()),
    ):
        with pytest.raises(Forbidden):
            act(cast["bob"])


def test_deleted_account_leaves_a_row_without_anything_personal(cast):
    now, bob = clock.now(), cast["bob"]
    accounts.set_password(bob.user_id, PASSWORD, by=SYSTEM, now=now)
    sessions.sign_in("bob", PASSWORD, client=sessions.SignInClient("192.0.2.1", "Firefox"), now=now)
    tokens.create_token(bob.user_id, scopes=["inbox"], label="Bob's lamp", by=SYSTEM, now=now)
    with write_transaction() as session:
        session.add(LinkedIdentity(issuer="https://id", subject="b", user_id=bob.user_id, created_at=now))
        session.get(User, bob.user_id).preferences = {"minimumPriority": "HIGH"}
    accounts.delete(bob.user_id, typed_username="bob", by=cast["alice"], now=now)
    user = known.get(bob.user_id)
    assert (user.name, user.password_hash, user.preferences, user.roles) == ("A former user", None, {}, frozenset())
    assert user.deleted_at
    assert user.disabled_at
    for table in (UserSession, ApiToken, LinkedIdentity):
        assert db.session.scalar(select(table).where(table.user_id == bob.user_id)) is None
    assert known.search("bob", limit=5) == known.search("former", limit=5) == []
    assert "bob" not in [person.username for person in known.list_page(UserFilters())]
    with pytest.raises(SignInRefused):
        sessions.sign_in("bob", PASSWORD, client=sessions.SignInClient(), now=now)
    with pytest.raises(SignInRefused):
        sessions.sign_in(user.username, PASSWORD, client=sessions.SignInClient(), now=now)


def test_receipts_of_a_deleted_account_stay_and_it_is_missing_nowhere(cast):
    now, bob = clock.now(), cast["bob"]
    sent = publish_message(cast["alice"], build_user_message("bob", "charlie"))
    receipts.mark_read([sent], by=bob, now=now)
    accounts.delete(bob.user_id, typed_username="bob", by=cast["alice"], now=now)
    assert db.session.get(Receipt, (sent, bob.user_id)).read_at
    broadcast = db.session.get(Broadcast, sent)
    assert [one.username for one in broadcast_stats.list_missing(broadcast, limit=9)] == ["charlie"]
    assert audiences.count(audiences.get_audience(broadcast)) == 1


def test_username_is_free_again_and_nothing_that_named_the_old_person_means_the_new_one(cast):
    now = clock.now()
    with write_transaction() as session:
        target = {"targetType": "SELECTED", "targetIds": ["bob", "charlie"], "exceptIds": ["BOB"]}
        session.add(SavedAudience(name="Two", target=target, created_by=cast["alice"].user_id, created_at=now))
    draft = a_draft(cast["alice"], title="x", people="charlie, Bob\nbobby", targetType="SELECTED")
    old = cast["bob"].user_id
    accounts.delete(old, typed_username="bob", by=cast["alice"], now=now)
    assert users.create_user("bob", None, by=cast["alice"], now=now) != old
    saved = db.session.scalar(select(SavedAudience)).target
    assert (saved["targetIds"], saved["exceptIds"]) == ([old, "charlie"], [old])
    assert db.session.get(Broadcast, draft).typed["people"] == f"charlie, {old}\nbobby"


def test_last_administrator_is_not_deleted(cast):
    with pytest.raises(Conflict):
        accounts.delete(cast["alice"].user_id, typed_username="alice", by=cast["alice"], now=clock.now())
    users.set_roles(cast["bob"].user_id, ["admin"], by=cast["alice"], now=clock.now())
    accounts.delete(cast["alice"].user_id, typed_username="alice", by=load_actor("alice"), now=clock.now())
    assert known.get_by_username("alice") is None


@pytest.mark.parametrize("typed", ["", "alice", "bo", "#2"])
def test_account_is_deleted_only_when_its_username_is_typed(cast, typed):
    before = count_rows()
    with pytest.raises(Invalid):
        accounts.delete(cast["bob"].user_id, typed_username=typed, by=cast["alice"], now=clock.now())
    assert count_rows() == before


def test_nothing_can_be_done_with_a_deleted_account(cast):
    now, bob, by = clock.now(), cast["bob"].user_id, cast["alice"]
    accounts.delete(bob, typed_username="bob", by=by, now=now)
    for act in (
        lambda: users.enable_user(bob, by=by, now=now),
        lambda: users.set_roles(bob, ["ops"], by=by, now=now),
        lambda: accounts.set_password(bob, PASSWORD, by=by, now=now),
        lambda: tokens.create_token(bob, scopes=["inbox"], label="x", by=by, now=now),
        lambda: accounts.rename(bob, "Bob", by=by, now=now),
        lambda: accounts.delete(bob, typed_username=f"#{bob}", by=by, now=now),
    ):
        with pytest.raises(NotFound):
            act()


def test_plan_of_a_deleted_account_stays_and_can_be_sent_by_others(cast):
    now = clock.now()
    users.set_roles(cast["bob"].user_id, ["admin"], by=cast["alice"], now=now)
    planned = publish_message(load_actor("bob"), build_message(draft=True))
    accounts.delete(cast["bob"].user_id, typed_username="bob", by=cast["alice"], now=now)
    broadcasts.release(planned, by=cast["alice"], now=now)
    assert db.session.get(Broadcast, planned).is_live


def test_audit_says_who_was_deleted(cast):
    accounts.delete(cast["bob"].user_id, typed_username="bob", by=cast["alice"], now=clock.now())
    act = db.session.scalars(select(AuditEntry).where(AuditEntry.action == "person.deleted")).one()
    assert (act.actor_name, act.object_id, act.detail) == (
        "Alice", str(cast["bob"].user_id), {"username": "bob", "name": "Bob"},
    )  # fmt: skip
