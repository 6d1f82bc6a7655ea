"""Which user a provider login belongs to: found, added or refused; and which roles it gets."""

import pytest
from flask import Flask

from broadcast.actions import accounts
from broadcast.actions import users as actions
from broadcast.config.settings import SETTINGS
from broadcast.domain import clock
from broadcast.domain.actor import SYSTEM
from broadcast.store import email_addresses, users
from broadcast.store.database import db
from broadcast.store.models import Role
from broadcast.store.transactions import write_transaction
from tests.support.builders import load_actor
from tests.support.oidc_login import expect_login_refused, sign_in_with_provider
from tests.support.users import BrowserClient


def test_disabled_person_stays_out(organised):
    app = organised()
    with app.app_context():
        actions.disable_user(load_actor("bob").user_id, by=SYSTEM, now=clock.now())
    assert "bob is disabled" in expect_login_refused(sign_in_with_provider(app))


def test_stranger_is_added_only_if_told_so(organised, openid):
    openid.user_claims = {"sub": "7", "preferred_username": "Dana", "name": "Dana Scully"}
    assert "do not have an account here" in expect_login_refused(sign_in_with_provider(organised()))


def test_stranger_is_added_without_a_role(organised, openid):
    openid.user_claims = {"sub": "7", "preferred_username": "Dana", "name": "Dana Scully"}
    app = organised(oidc_create_users=True)
    assert sign_in_with_provider(app).status_code == 303
    with app.app_context():
        dana = users.get_by_username("dana")
        assert (dana.name, dana.roles, dana.password_hash) == ("Dana Scully", frozenset(), None)


@pytest.mark.parametrize("username", ["4711", "a b", "mi\u212ae", "x" * 65, "", 5, ["bob"], None, "a\0b", "<b>"])
def test_name_that_cannot_be_a_username_is_refused(organised, openid, username):
    openid.user_claims = {"sub": "7", "preferred_username": username}
    expect_login_refused(sign_in_with_provider(organised(oidc_create_users=True)))


def test_letter_that_becomes_a_plain_one_in_lower_case_opens_nobodys_account(organised, openid):
    app = organised()
    with app.app_context():
        actions.create_user("mike", None, roles=["admin"], by=SYSTEM, now=clock.now())
    openid.user_claims = {"sub": "7", "preferred_username": "mi\u212ae"}  # the sign of Kelvin
    assert "letters" in expect_login_refused(sign_in_with_provider(app))


def test_username_that_was_given_to_somebody_else_over_there_opens_nothing(organised, openid):
    app = organised()
    assert sign_in_with_provider(app).status_code == 303
    openid.user_claims = {"sub": "another", "preferred_username": "bob"}
    assert "somebody else" in expect_login_refused(sign_in_with_provider(app))
    openid.user_claims = {"sub": "42-bob", "preferred_username": "robert"}
    assert sign_in_with_provider(app).status_code == 303, "a new name over there is the same person here"
    with app.app_context():
        assert users.get_by_username("robert") is None


def test_account_that_was_made_anew_over_there_is_joined_after_the_two_were_parted(organised, openid):
    app = organised()
    sign_in_with_provider(app)
    openid.user_claims = {"sub": "another", "preferred_username": "bob"}
    alice = BrowserClient.for_user(app, "alice")
    with app.app_context():
        url = f"/console/people/{load_actor('bob').user_id}"
    assert "42-bob" in alice.get(url).get_data(as_text=True)
    assert alice.post(f"{url}/unlink").status_code == 303
    assert "42-bob" not in alice.get(url).get_data(as_text=True)
    assert sign_in_with_provider(app).status_code == 303


def test_account_with_a_password_is_taken_over_only_if_told_so(organised, openid):
    app = organised()
    with app.app_context():
        accounts.set_password(load_actor("bob").user_id, "correct horse battery", by=SYSTEM, now=clock.now())
    assert "has a password here" in expect_login_refused(sign_in_with_provider(app))
    SETTINGS.attach(app, SETTINGS.of(app).model_copy(update={"oidc_link_users": "everybody"}))
    assert sign_in_with_provider(app).status_code == 303


def roles_of(app: Flask, username: str) -> set[str]:
    with app.app_context():
        db.session.rollback()
        return set(users.get_by_username(username).roles)


def test_roles_stay_as_they_are_when_no_claim_says_them(organised, openid):
    app = organised()
    openid.user_claims["groups"] = ["admin"]
    assert sign_in_with_provider(app).status_code == 303
    assert roles_of(app, "bob") == {"ops"}


def test_roles_follow_the_claim_and_unknown_ones_give_nothing(organised, openid):
    app = organised(oidc_roles_claim="groups")
    openid.user_claims["groups"] = ["viewer", "Everybody", "*", "no such role", 7]
    assert sign_in_with_provider(app).status_code == 303
    assert roles_of(app, "bob") == {"viewer"}
    with app.app_context():
        assert not db.session.scalars(db.select(Role).where(Role.name.in_(["Everybody", "*", "no such role"]))).all()


def test_roles_go_through_the_map_and_what_it_does_not_name_gives_nothing(organised, openid):
    app = organised(oidc_roles_claim="realm_access.roles", oidc_role_map={"grp-ops": "ops", "grp-boss": "admin"})
    openid.user_claims["realm_access"] = {"roles": ["grp-boss", "ops", "viewer"]}
    assert sign_in_with_provider(app).status_code == 303
    assert roles_of(app, "bob") == {"admin"}


@pytest.mark.parametrize("said", [None, 5, {"admin": True}, "", [["admin"]]])
def test_claim_that_is_no_list_of_roles_gives_none(organised, openid, said):
    app = organised(oidc_roles_claim="groups")
    openid.user_claims["groups"] = said
    assert sign_in_with_provider(app).status_code == 303
    assert roles_of(app, "bob") == set()


def test_last_administrator_stays_one_whatever_the_provider_says(organised, openid):
    app = organised(oidc_roles_claim="groups")
    openid.user_claims = {"sub": "1", "preferred_username": "alice", "groups": ["viewer"]}
    assert sign_in_with_provider(app).status_code == 303
    assert roles_of(app, "alice") == {"admin", "viewer"}


def test_claims_that_the_token_lacks_are_asked_of_userinfo(organised, openid):
    app = organised()
    openid.id_token_overrides = {"preferred_username": None}
    assert sign_in_with_provider(app).status_code == 303
    openid.userinfo_overrides = {"sub": "somebody else"}
    assert "does not answer" in expect_login_refused(sign_in_with_provider(app), status=503)


def test_email_that_was_not_verified_is_no_username(organised, openid):
    app = organised(oidc_username_claim="email", oidc_create_users=True)
    openid.user_claims = {"sub": "9", "email": "dana@example.org", "email_verified": False}
    assert "not verified" in expect_login_refused(sign_in_with_provider(app))
    openid.user_claims["email_verified"] = True
    assert sign_in_with_provider(app).status_code == 303
    assert roles_of(app, "dana@example.org") == set()


def test_verified_address_gets_mail_until_the_person_confirms_another(organised, openid):
    app = organised(oidc_create_users=True)
    claims = {"sub": "9", "preferred_username": "dana", "email": "dana@example.org"}
    openid.user_claims = claims
    assert sign_in_with_provider(app).status_code == 303
    with app.app_context():
        user_id = users.get_by_username("dana").id
        assert email_addresses.get(user_id) is None  # nobody has verified it
    for address, stored in (("dana@example.org", "dana@example.org"), ("d@Bücher.example", "d@xn--bcher-kva.example")):
        openid.user_claims = claims | {"email": address, "email_verified": True}
        assert sign_in_with_provider(app).status_code == 303
        with app.app_context():
            assert email_addresses.get(user_id).address == stored
    with app.app_context():
        with write_transaction() as session:
            email_addresses.set_verified(session, user_id, "my@example.net", at=clock.now(), is_from_provider=False)
        assert sign_in_with_provider(app).status_code == 303
        assert email_addresses.get(user_id).address == "my@example.net"
