"""An invitation is valid once, for some days, for its own user, and while that user has no password."""

from datetime import timedelta

import pytest
from sqlalchemy import select

from broadcast.actions import accounts, invitations, sessions, users
from broadcast.base.errors import Forbidden, Invalid, NotFound
from broadcast.domain import clock
from broadcast.store import invitations as rows
from broadcast.store.database import db
from broadcast.store.models import AuditEntry, Invitation

PASSWORD = "correct horse battery"
WEEK = timedelta(days=7)


@pytest.fixture
def invite(cast):
    def make(*usernames: str):
        ids = [cast[name].user_id for name in usernames]
        return {
            one.username: one.token
            for one in invitations.invite_users(ids, valid_for=WEEK, by=cast["alice"], now=clock.now())
        }

    return make


def test_invited_person_chooses_a_password_and_signs_in_with_it(cast, invite):
    token = invite("bob")["bob"]
    assert invitations.get_invitee(token, now=clock.now()).username == "bob"
    assert invitations.accept_invitation(token, PASSWORD, now=clock.now()) == "bob"
    sessions.sign_in("bob", PASSWORD, client=sessions.SignInClient(), now=clock.now())
    acts = db.session.scalars(
        select(AuditEntry.action).where(AuditEntry.object_id == str(cast["bob"].user_id)).order_by(AuditEntry.id)
    ).all()
    assert acts[-3:] == ["person.invited", "person.invitation_accepted", "person.signed_in"]


def test_token_is_kept_as_a_hash_alone(invite):
    token = invite("bob")["bob"]
    kept = db.session.scalar(select(Invitation))
    assert token not in str(vars(kept))


def no_longer_good(token: str, *, at=None) -> None:
    now = at or clock.now()
    for act in (
        lambda: invitations.get_invitee(token, now=now),
        lambda: invitations.accept_invitation(token, PASSWORD, now=now),
    ):
        with pytest.raises(NotFound):
            act()


def test_used_invitation_is_no_longer_good(invite):
    token = invite("bob")["bob"]
    invitations.accept_invitation(token, PASSWORD, now=clock.now())
    no_longer_good(token)


def test_expired_invitation_is_no_longer_good(invite):
    no_longer_good(invite("bob")["bob"], at=clock.now() + WEEK)


def test_revoked_invitation_is_no_longer_good(cast, invite):
    token = invite("bob")["bob"]
    invitations.revoke_invitation(cast["bob"].user_id, by=cast["alice"], now=clock.now())
    no_longer_good(token)
    invitations.revoke_invitation(cast["bob"].user_id, by=cast["alice"], now=clock.now())


def test_newer_invitation_makes_the_earlier_one_void(invite):
    first, second = invite("bob")["bob"], invite("bob")["bob"]
    no_longer_good(first)
    assert invitations.get_invitee(second, now=clock.now())


def test_invitation_is_void_once_the_person_has_a_password_is_disabled_or_deleted(cast, invite):
    tokens = invite("bob", "charlie")
    accounts.set_password(cast["bob"].user_id, PASSWORD, by=cast["alice"], now=clock.now())
    no_longer_good(tokens["bob"])
    users.disable_user(cast["charlie"].user_id, by=cast["alice"], now=clock.now())
    no_longer_good(tokens["charlie"])
    users.enable_user(cast["charlie"].user_id, by=cast["alice"], now=clock.now())
    accounts.delete(cast["charlie"].user_id, typed_username="charlie", by=cast["alice"], now=clock.now())
    no_longer_good(tokens["charlie"])


@pytest.mark.parametrize("password", ["", "short", "x" * 201, "password", "bob"])
def test_password_of_an_invitation_follows_the_rules_and_a_refused_one_uses_nothing_up(invite, password):
    token = invite("bob")["bob"]
    with pytest.raises(Invalid):
        invitations.accept_invitation(token, password, now=clock.now())
    assert invitations.get_invitee(token, now=clock.now())


def test_people_with_a_password_are_left_out_and_nobody_left_is_told(cast, invite):
    accounts.set_password(cast["bob"].user_id, PASSWORD, by=cast["alice"], now=clock.now())
    assert set(invite("bob", "charlie")) == {"charlie"}
    with pytest.raises(Invalid):
        invite("bob")


@pytest.mark.parametrize("token", ["", "x", "\0", "é" * 50, "x" * 5000])
def test_any_text_is_an_invitation_or_not_found(cast, token):
    no_longer_good(token)


def test_only_who_manages_people_invites_and_revokes(cast):
    with pytest.raises(Forbidden):
        invitations.invite_users([1], valid_for=WEEK, by=cast["bob"], now=clock.now())
    with pytest.raises(Forbidden):
        invitations.revoke_invitation(1, by=cast["bob"], now=clock.now())


def test_many_are_invited_at_once_each_with_a_link_of_their_own(cast):
    now = clock.now()
    ids = [users.create_user(f"p{n}", None, by=cast["alice"], now=now) for n in range(230)]
    made = invitations.invite_users(ids, valid_for=WEEK, by=cast["alice"], now=now)
    assert len({one.token for one in made}) == 230 == rows.count()
    assert rows.count_uninvited() == 3
