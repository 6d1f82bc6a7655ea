"""Invitation links: created in bulk and shown once, revoked, and accepted without a session."""

import csv
import io
import re

import pytest

from broadcast.actions import accounts
from broadcast.actions import users as actions
from broadcast.domain import clock
from broadcast.domain.actor import SYSTEM
from broadcast.store import users
from tests.support.builders import count_rows, load_actor, publish_message
from tests.support.users import BrowserClient

PASSWORD = "correct horse battery"
LINK = re.compile(r"http://localhost(/invitation/[\w-]+)")


def text_of(response) -> str:
    return response.get_data(as_text=True)


def user_id(app, username: str) -> int:
    with app.app_context():
        return users.get_by_username(username).id


def test_ticked_people_get_a_link_each_that_is_told_once(app, client):
    alice = client("alice")
    ids = [user_id(app, "bob"), user_id(app, "charlie")]
    page = text_of(alice.post("/console/people/invitations", {"ids": ids}))
    links = LINK.findall(page)
    assert len(set(links)) == 2
    assert not LINK.findall(text_of(alice.get("/console/people/invitations")))


def test_everybody_without_a_password_is_invited_as_csv(app, client):
    alice = client("alice")
    with app.app_context():
        accounts.set_password(users.get_by_username("alice").id, PASSWORD, by=SYSTEM, now=clock.now())
    alice = BrowserClient.for_user(app, "alice")
    answer = alice.post("/console/people/invitations", {"whom": "all", "as": "csv"})
    assert answer.mimetype == "text/csv"
    assert "attachment" in answer.headers["Content-Disposition"]
    rows = list(csv.DictReader(io.StringIO(text_of(answer).split("# signature")[0])))
    assert [row["username"] for row in rows] == ["bob", "charlie"]
    assert LINK.fullmatch(rows[0]["link"])


def test_invited_person_chooses_a_password_and_is_signed_in(app, client):
    alice, nobody = client("alice"), client()
    page = text_of(alice.post("/console/people/invitations", {"usernames": "Bob"}))
    [link] = LINK.findall(page)
    assert "Bob" in text_of(nobody.get(link))
    mistaken = nobody.post(link, {"password": PASSWORD, "again": "another"})
    assert mistaken.status_code == 422
    assert PASSWORD not in text_of(mistaken)
    done = nobody.post(link, {"password": PASSWORD, "again": PASSWORD})
    assert (done.status_code, done.location) == (303, "/inbox")
    assert nobody.get("/account").status_code == 200
    assert client().get(link).status_code == 404


def test_invitation_is_not_accepted_without_the_token_of_its_page(app, client):
    alice, nobody = client("alice"), client()
    [link] = LINK.findall(text_of(alice.post("/console/people/invitations", {"usernames": "bob"})))
    refused = nobody.http.post(link, data={"password": PASSWORD, "again": PASSWORD})
    assert refused.status_code == 403


def test_revoked_invitation_says_to_ask_for_another(app, client):
    alice, bob = client("alice"), user_id(app, "bob")
    [link] = LINK.findall(text_of(alice.post("/console/people/invitations", {"ids": bob})))
    assert "Not used yet" in text_of(alice.get("/console/people/invitations"))
    assert alice.post(f"/console/people/{bob}/invitation/revoke").status_code == 303
    gone = client().get(link)
    assert gone.status_code == 404
    assert "no longer valid" in text_of(gone)


@pytest.mark.parametrize(
    "form", [{}, {"ids": "x"}, {"ids": "9" * 30}, {"usernames": "nobody-here"}, {"usernames": "\0"}, {"whom": "some"}]
)
def test_nobody_to_invite_is_said_and_the_form_keeps_what_was_typed(app, client, form):
    alice = client("alice")
    alice.get("/inbox")
    with app.app_context():
        before = count_rows()
    refused = alice.post("/console/people/invitations", form)
    assert refused.status_code == 422
    assert 'role="alert"' in text_of(refused)
    if form.get("usernames", "\0") != "\0":
        assert f"{form['usernames']}</textarea>" in text_of(refused)
    with app.app_context():
        assert count_rows() == before


def test_where_the_organisation_signs_people_in_nobody_is_invited(make_app, settings):
    app = make_app(password_sign_in="administrators")
    with app.app_context():
        for name, roles in (("dora", ["admin"]), ("emil", [])):
            actions.create_user(name, None, roles=roles, by=SYSTEM, now=clock.now())
    refused = BrowserClient.for_user(app, "dora").post("/console/people/invitations", {"usernames": "emil"})
    assert refused.status_code == 422
    assert "Other users sign in through your organisation" in text_of(refused)


def test_person_is_renamed_and_deleted_by_their_page(app, client):
    alice, bob = client("alice"), user_id(app, "bob")
    refused = alice.post(f"/console/people/{bob}/name", {"name": "x" * 201})
    assert refused.status_code == 422
    assert "x" * 201 in text_of(refused)
    assert alice.post(f"/console/people/{bob}/name", {"name": "Robert"}).status_code == 303
    assert "Robert" in text_of(alice.get("/console/people"))
    mistyped = alice.post(f"/console/people/{bob}/delete", {"typedUsername": "bop"})
    assert mistyped.status_code == 422
    assert "Type bob" in text_of(mistyped)
    assert alice.post(f"/console/people/{bob}/delete", {"typedUsername": "bob"}).status_code == 303
    assert alice.get(f"/console/people/{bob}").status_code == 404
    assert "Robert" not in text_of(alice.get("/console/people"))


def test_last_administrator_keeps_the_account_and_the_ticks(app, client):
    alice, me = client("alice"), user_id(app, "alice")
    refused = alice.post(f"/console/people/{me}/delete", {"typedUsername": "alice"})
    assert refused.status_code == 409
    assert "only administrator" in text_of(refused)
    roles = alice.post(f"/console/people/{me}/roles", {"roles": "ops"})
    assert roles.status_code == 409
    assert re.search(r'value="ops" checked', text_of(roles))


def test_person_whose_username_is_taken_keeps_the_form(app, client):
    alice = client("alice")
    form = {"username": "bob", "name": "Another Bob", "roles": "ops", "newRoles": "night", "password": PASSWORD}
    refused = alice.post("/console/people", form)
    assert refused.status_code == 409
    page = text_of(refused)
    assert 'value="Another Bob"' in page
    assert re.search(r'value="ops" checked', page)
    assert re.search(r'value="night" checked', page)
    assert "There is a user called bob already" in page
    assert PASSWORD not in page


def test_count_of_the_page_is_of_invitations_and_not_of_unread_messages(app, client):
    """The bell of every page has a count of its own."""
    alice = client("alice")
    with app.app_context():
        publish_message(load_actor("alice"))
    assert (
        '<h2 id="open-title">Not used yet <span class="count">0</span>' in alice.get("/console/people/invitations").text
    )
