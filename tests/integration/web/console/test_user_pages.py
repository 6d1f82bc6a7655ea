"""Pages for users, tokens and one's own account: plain forms, a 303, and a sentence for each error."""

import io
import re

import pytest

from broadcast.actions import accounts, sessions, tokens
from broadcast.actions import users as actions
from broadcast.domain import clock
from broadcast.domain.actor import SYSTEM
from broadcast.store import users
from tests.support.builders import build_message, count_rows, load_actor, publish_message
from tests.support.users import TEST_USERS

PASSWORD = TEST_USERS[0].password
TOKEN = re.compile(r'<code class="secret-value"[^>]*>([^<]+)</code>')


def text_of(response) -> str:
    return response.get_data(as_text=True)


def user(app, username: str):
    with app.app_context():
        return users.get_by_username(username)


def test_page_of_a_user_names_scheduled_broadcasts_without_any_draft(app, client):
    with app.app_context():
        publish_message(load_actor("alice"), build_message(scheduledAt="2050-01-01T00:00:00Z"))
    page = text_of(client("alice").get(f"/console/people/{user(app, 'alice').id}"))
    assert "1 scheduled broadcast is kept" in page
    assert "draft is kept" not in page


def test_list_is_searched_filtered_and_paged(app, client):
    alice = client("alice")
    with app.app_context():
        for n in range(60):
            actions.create_user(f"p{n:02}", None, name=f"Person {n}", roles=["sales"], by=SYSTEM, now=clock.now())
        actions.disable_user(users.get_by_username("p07").id, by=SYSTEM, now=clock.now())
    page = text_of(alice.get("/console/people"))
    assert "63 users" in page
    following = re.search(r'hx-get="(/console/people\?[^"]*after=[^"]+)"', page)[1].replace("&amp;", "&")
    rest = text_of(alice.get(following, headers={"HX-Request": "true"}))
    assert "<html" not in rest
    assert len(re.findall(r'class="user-link"', page + rest)) == 63
    for query, found in [("q=PERSON+5", 11), ("role=ops", 1), ("role=sales&state=disabled", 1), ("q=100%25", 0)]:
        assert f"{found} {'user' if found == 1 else 'users'}" in text_of(alice.get(f"/console/people?{query}"))


@pytest.mark.parametrize("query", ["q=%00", "state=x", "role=%27", "after=%00", "after=" + "z" * 200, "q=%5C%25_"])
def test_list_takes_any_query(client, query):
    assert client("alice").get(f"/console/people?{query}").status_code == 200


def test_person_is_made_by_the_form(app, client):
    alice = client("alice")
    form = {
        "username": "Dana",
        "name": "Dana Diaz",
        "password": PASSWORD,
        "roles": "ops",
        "newRoles": "sales, night-shift",
    }
    response = alice.post("/console/people", form)
    assert (response.status_code, response.location) == (303, f"/console/people/{user(app, 'dana').id}")
    assert user(app, "dana").roles == {"ops", "sales", "night-shift"}
    assert alice.post("/console/people", form).status_code == 409


def test_refused_form_comes_back_as_it_was_typed_without_the_password(app, client):
    alice = client("alice")
    alice.get("/inbox")
    with app.app_context():
        before = count_rows()
    page = alice.post(
        "/console/people", {"username": "1 x", "name": "<b>Dana", "password": "secret-secret", "roles": "ops"}
    )
    assert page.status_code == 422
    assert 'value="1 x"' in text_of(page)
    assert "&lt;b&gt;Dana" in text_of(page)
    assert re.search(r'value="ops" checked', text_of(page))
    assert "secret-secret" not in text_of(page)
    with app.app_context():
        assert count_rows() == before


def test_roles_are_replaced_and_the_page_says_so(app, client):
    alice, bob = client("alice"), user(app, "bob")
    response = alice.post(f"/console/people/{bob.id}/roles", {"roles": ["author", "ops"]})
    assert response.status_code == 303
    assert user(app, "bob").roles == {"author", "ops"}
    assert "Roles saved" in text_of(alice.get(response.location))
    assert alice.post(f"/console/people/{bob.id}/roles", {"newRoles": "1st"}).status_code == 422
    assert user(app, "bob").roles == {"author", "ops"}


def test_last_administrator_stays(app, client):
    alice, own = client("alice"), user(app, "alice").id
    for path, form in (("roles", {"roles": "ops"}), ("disable", {})):
        response = alice.post(f"/console/people/{own}/{path}", form)
        assert response.status_code == 409
        assert "only administrator" in text_of(response)
    assert user(app, "alice").is_admin
    alice.post(f"/console/people/{user(app, 'bob').id}/roles", {"roles": "admin"})
    assert alice.post(f"/console/people/{own}/roles", {"roles": "ops"}).status_code == 303
    assert alice.get("/console/").status_code == 403


def test_disabled_and_enabled_again(app, client):
    alice, bob = client("alice"), client("bob")
    url = f"/console/people/{user(app, 'bob').id}"
    assert bob.get("/inbox").status_code == 200
    alice.post(f"{url}/disable")
    assert bob.get("/inbox").status_code == 303
    assert "Disabled" in text_of(alice.get(url))
    for _ in range(2):
        assert alice.post(f"{url}/enable").status_code == 303
    assert user(app, "bob").disabled_at is None
    assert bob.get("/inbox").status_code == 303  # the ended session stays ended


def test_reset_password_is_shown_once_and_works(app, client):
    alice, bob = client("alice"), client("bob")
    url = f"/console/people/{user(app, 'bob').id}"
    password = TOKEN.search(text_of(alice.post(f"{url}/password")))[1]
    assert password not in text_of(alice.get(url))
    assert bob.get("/inbox").status_code == 303
    nobody = client()
    nobody.get("/login")
    assert nobody.post("/login", {"username": "bob", "password": password}).status_code == 303


@pytest.mark.parametrize("act", ["roles", "disable", "enable", "password", "sign-out"])
def test_person_who_does_not_exist_is_not_found(client, act):
    alice = client("alice")
    assert alice.post(f"/console/people/99999/{act}").status_code == 404
    assert alice.get("/console/people/99999").status_code == 404


# ---- import


@pytest.mark.parametrize(
    ("message", "sentence"),
    [({"draft": True}, "1 draft is kept"), ({"scheduledAt": "2098-01-01T00:00:00Z"}, "1 scheduled broadcast is kept")],
)
def test_page_says_which_unsent_broadcasts_outlive_the_account(app, client, message, sentence):
    with app.app_context():
        publish_message(load_actor("alice"), build_message(**message))
    assert sentence in text_of(client("alice").get(f"/console/people/{user(app, 'alice').id}"))


def test_table_is_checked_then_imported_from_text_and_from_a_file(app, client):
    alice, table = client("alice"), "username,name,roles\ndana,Dana,ops\nbob,,\n"
    checked = text_of(alice.post("/console/people/import", {"table": table, "act": "check"}))
    assert "will be added" in checked
    assert "dana,Dana,ops" in checked  # kept, to import it next
    assert user(app, "dana") is None
    file = (io.BytesIO(b"\xef\xbb\xbf" + table.encode()), "people.csv")
    done = text_of(
        alice.post("/console/people/import", {"file": file, "act": "import"}, content_type="multipart/form-data")
    )
    assert "There is a user called bob already" in done
    assert user(app, "dana").roles == {"ops"}


@pytest.mark.parametrize("data", [b"\xff\xfe\x00", b"", b"no,columns"])
def test_file_that_is_no_table_is_told(client, data):
    form = {"file": (io.BytesIO(data), "x.csv"), "act": "import"}
    response = client("alice").post("/console/people/import", form, content_type="multipart/form-data")
    assert response.status_code == 422


def test_table_may_be_larger_than_other_requests_and_no_larger_than_that(client):
    alice = client("alice")
    rows = "username\n" + "bob\n" * 100_000
    response = alice.post("/console/people/import", {"table": rows[: 400 * 1024], "act": "check"})
    assert response.status_code == 200
    assert alice.post("/console/people/import", {"table": "x" * 9 * 1024 * 1024}).status_code == 413


# ---- tokens


def test_token_is_made_shown_once_used_and_revoked(app, client):
    alice = client("alice")
    form = {"username": "bob", "label": "Dashboard <1>", "scopes": "inbox", "days": "30"}
    token = TOKEN.search(text_of(alice.post("/console/tokens", form)))[1]
    http, headers = app.test_client(), {"Authorization": f"Bearer {token}"}
    assert http.get("/api/user/messages", headers=headers).status_code == 200
    page = text_of(alice.get("/console/tokens"))
    assert token not in page
    assert "Dashboard &lt;1&gt;" in page
    alice.post(re.search(r'action="(/console/tokens/\d+/revoke)"', page)[1])
    assert http.get("/api/user/messages", headers=headers).status_code == 401
    assert "Revoked" in text_of(alice.get("/console/tokens"))
    assert alice.post("/console/tokens/99999/revoke").status_code == 404


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"username": "nobody"}, "username"), ({"label": " "}, "label"), ({"label": "x" * 101}, "label"),
        ({"scopes": []}, "scope"), ({"scopes": "root"}, "scope"), ({"scopes": "admin"}, "scope"), ({"days": "1e9"}, "days"),
        ({"username": "\0"}, "username"),
    ],
)  # fmt: skip
def test_token_that_cannot_be_is_told_at_its_field(app, client, change, field):
    alice = client("alice")
    response = alice.post("/console/tokens", {"username": "bob", "label": "x", "scopes": "inbox", "days": "7"} | change)
    assert response.status_code == 422
    assert f'id="{field}-error"' in text_of(response)
    with app.app_context():
        assert count_rows()["api_tokens"] == 0


# ---- one's own account


def test_own_password_is_changed_and_other_sessions_end(app, client):
    with app.app_context():
        client()
        accounts.set_password(load_actor("bob").user_id, PASSWORD, by=SYSTEM, now=clock.now())
    here, elsewhere = client("bob"), client("bob")
    form = {"current": PASSWORD, "new": "another long one", "again": "another long one"}
    assert here.post("/account/password", form).status_code == 303
    assert here.get("/account").status_code == 200
    assert elsewhere.get("/account").status_code == 303
    with app.app_context():
        assert sessions.sign_in("bob", "another long one", client=sessions.SignInClient(), now=clock.now())


@pytest.mark.parametrize(
    ("change", "field"),
    [({"current": "wrong"}, "current"), ({"again": "other"}, "again"), ({"new": "bob", "again": "bob"}, "new")],
)
def test_refused_change_of_password_is_told_and_changes_nothing(app, client, change, field):
    with app.app_context():
        client()
        accounts.set_password(load_actor("bob").user_id, PASSWORD, by=SYSTEM, now=clock.now())
    before = user(app, "bob").password_hash
    form = {"current": PASSWORD, "new": "another long one", "again": "another long one"} | change
    response = client("bob").post("/account/password", form)
    assert response.status_code == 422
    assert f'id="{field}-error"' in text_of(response)
    assert user(app, "bob").password_hash == before


def test_own_sessions_are_ended_one_by_one_or_all_others(app, client):
    here, second, third = client("bob"), client("bob"), client("bob")
    ended = max(map(int, re.findall(r"/account/sessions/(\d+)/end", text_of(here.get("/account")))))
    assert here.post(f"/account/sessions/{ended}/end").status_code == 303
    assert third.get("/inbox").status_code == 303
    assert second.get("/inbox").status_code == 200
    here.post("/account/sessions/end-others")
    assert second.get("/inbox").status_code == 303
    assert here.get("/inbox").status_code == 200


def test_nobody_ends_the_session_of_another_there(app, client):
    bob, alice = client("bob"), client("alice")
    [session] = [row.id for row in sessions_of(app, "bob")]
    assert alice.post(f"/account/sessions/{session}/end").status_code == 404
    assert bob.get("/inbox").status_code == 200


def sessions_of(app, username: str):
    with app.app_context():
        return users.list_open_sessions(load_actor(username).user_id)


def test_account_is_for_people_at_a_browser(app, client):
    client()
    with app.app_context():
        token = tokens.create_token(
            load_actor("alice").user_id, scopes=["admin"], label="x", by=SYSTEM, now=clock.now()
        )
    response = app.test_client().get("/account", headers={"Authorization": f"Bearer {token}"})
    assert response.status_code == 403


# ---- the audit


def test_audit_is_shown_filtered_and_downloaded(app, client):
    alice = client("alice")
    page = text_of(alice.get("/console/audit?who=system&what=person.created"))
    assert page.count("person.created</code>") == 3
    assert "No matching entries" in text_of(alice.get("/console/audit?objectType=broadcast"))
    response = alice.get("/console/audit/csv?what=person.")
    assert response.mimetype == "text/csv"
    lines = response.get_data(as_text=True).splitlines()
    assert len(lines) == 5
    assert lines[-1].startswith("# signature")


@pytest.mark.parametrize(
    "query", ["before=x", "since=2026-13-01", "until=9999-12-31", "who=%00&what=%25", "objectId=%27"]
)
def test_audit_takes_any_query(client, query):
    alice = client("alice")
    for path in ("/console/audit", "/console/audit/csv"):
        assert alice.get(f"{path}?{query}").status_code == 200
