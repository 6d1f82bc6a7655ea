"""Typed text is returned to its author, and to nobody else, whatever prevents it from being saved."""

import html
import re

import pytest

from broadcast.actions import accounts, broadcasts, passwords, sessions, users
from broadcast.base.errors import TemporarilyUnavailable
from broadcast.domain import clock
from broadcast.domain.actor import SYSTEM
from broadcast.store import broadcasts as stored
from broadcast.store import users as known
from tests.support.builders import build_message, count_rows, load_actor, publish_message
from tests.support.users import TEST_USERS, BrowserClient

PASSWORD = TEST_USERS[0].password
TEXT = 'Line one <b>\r\nline "two" & so on'
FORMS = [
    ("/console/broadcasts/new", "/console/broadcasts", "content"),
    ("/console/broadcasts/{id}/edit", "/console/broadcasts/{id}/edit", "content"),
    ("/console/library/templates/new", "/console/library/templates", "content"),
    ("/console/broadcasts/{id}", "/console/broadcasts/{id}/cancel", "reason"),
    ("/console/people/new", "/console/people", "name"),
    ("/console/people/1", "/console/people/1/name", "name"),
    ("/console/tokens", "/console/tokens", "label"),
    ("/console/roles", "/console/roles", "name"),
    ("/console/people/invitations", "/console/people/invitations", "usernames"),
    ("/console/people/import", "/console/people/import", "table"),
]


def text_of(response) -> str:
    return response.get_data(as_text=True)


@pytest.fixture
def alice(app, client) -> BrowserClient:
    client()  # the cast exists
    with app.app_context():
        accounts.set_password(load_actor("alice").user_id, PASSWORD, by=SYSTEM, now=clock.now())
        accounts.set_password(load_actor("bob").user_id, PASSWORD, by=SYSTEM, now=clock.now())
    return client("alice")


@pytest.fixture
def live(app, alice) -> int:
    with app.app_context():
        return publish_message(load_actor("alice"))


def end_session(app) -> None:
    with app.app_context():
        sessions.end_sessions(load_actor("alice").user_id, by=SYSTEM, now=clock.now())


def hidden(page: str, form: str) -> dict[str, str]:
    """The hidden fields of the form that goes to `form`."""
    found = next(part for part in page.split("<form")[1:] if f'action="{form}"' in part.partition(">")[0])
    pairs = re.findall(r'<input type="hidden" name="([^"]*)" value="([^"]*)"', found.partition("</form>")[0])
    return {name: html.unescape(value) for name, value in pairs}


def sign_in(browser: BrowserClient, username: str, kept: dict[str, str]):
    return browser.http.post("/login", data=kept | {"username": username, "password": PASSWORD})


@pytest.mark.parametrize(("page", "action", "field"), FORMS)
def test_text_of_an_ended_session_comes_back_after_signing_in_and_nothing_was_done(
    app, alice, live, page, action, field
):
    page, action = page.format(id=live), action.format(id=live)
    alice.get(page)
    end_session(app)
    with app.app_context():
        before = count_rows()
    refused = alice.post(action, {field: TEXT, "live": "yes"} if "edit" in page else {field: TEXT})
    assert refused.status_code == 401
    assert "Sign in" in text_of(refused)
    signed_in = sign_in(alice, "alice", hidden(text_of(refused), "/login"))
    assert signed_in.status_code == 200
    fields = hidden(text_of(signed_in), action)
    assert fields[field] == TEXT
    with app.app_context():
        assert count_rows() == before | {"sessions": before["sessions"] + 1, "audit": before["audit"] + 1}
    back = alice.http.post(action, data=fields)
    assert back.status_code == 200
    assert str(html.escape(TEXT.split("\r\n")[0])) in text_of(back).replace("&#34;", "&quot;")
    with app.app_context():
        assert count_rows()["audit"] == before["audit"] + 1


def test_broadcast_is_sent_once_after_signing_in_again_under_the_same_key(app, alice):
    alice.get("/console/broadcasts/new")
    end_session(app)
    form = {
        "title": "Once",
        "content": TEXT,
        "targetType": "SELECTED",
        "people": "bob",
        "when": "now",
        "idempotencyKey": "k",
    }
    refused = alice.post("/console/broadcasts", form)
    fields = hidden(text_of(sign_in(alice, "alice", hidden(text_of(refused), "/login"))), "/console/broadcasts")
    back = text_of(alice.http.post("/console/broadcasts", data=fields))
    assert re.search(r'name="idempotencyKey" value="k"', back)
    token = re.search(r'name="csrf_token" value="([^"]+)"', back)[1]
    sent = [alice.http.post("/console/broadcasts", data=form | {"csrf_token": token}).location for _ in range(2)]
    assert sent[0] == sent[1]
    assert "/console/broadcasts/" in sent[0]


def test_text_is_given_back_to_nobody_else(app, alice):
    alice.get("/console/broadcasts/new")
    end_session(app)
    refused = alice.post("/console/broadcasts", {"content": "Secret plans"})
    other = sign_in(alice, "bob", hidden(text_of(refused), "/login"))
    assert other.status_code == 303
    assert "Secret plans" not in text_of(alice.get("/inbox"))


def test_text_of_another_persons_page_is_refused_and_not_shown(app, alice):
    """Somebody else has signed in in another tab meanwhile."""
    alice.get("/console/broadcasts/new")
    token = alice.csrf_token
    end_session(app)
    sign_in(alice, "bob", {"csrf_token": token})
    refused = alice.http.post("/console/broadcasts", data={"csrf_token": token, "content": "Secret plans"})
    assert refused.status_code == 403
    assert "Secret plans" not in text_of(refused)


def test_page_of_an_earlier_session_of_the_same_person_gets_its_text_back_and_a_fresh_token(app, alice):
    alice.get("/console/library/templates/new")
    token = alice.csrf_token
    sign_in(alice, "alice", {"csrf_token": token})
    with app.app_context():
        before = count_rows()
    form = {"csrf_token": token, "name": "N", "title": "T", "content": TEXT}
    refused = alice.http.post("/console/library/templates", data=form)
    assert refused.status_code == 403
    fields = hidden(text_of(refused), "/console/library/templates")
    assert fields["content"] == TEXT
    assert fields["csrf_token"] != token
    assert alice.http.post("/console/library/templates", data=fields).status_code == 200
    with app.app_context():
        assert count_rows() == before


def test_stranger_gets_no_text_back(client):
    stranger = client()
    refused = stranger.post("/console/broadcasts", {"content": "Planted"})
    assert "Planted" not in text_of(refused)


@pytest.mark.parametrize("change", [lambda text: text[:-3] + "abc", lambda text: "", lambda text: "x" * 1000])
def test_changed_text_is_not_believed(app, alice, change):
    alice.get("/console/broadcasts/new")
    end_session(app)
    kept = hidden(text_of(alice.post("/console/broadcasts", {"content": TEXT})), "/login")
    assert sign_in(alice, "alice", kept | {"kept": change(kept["kept"])}).status_code == 303


def test_wrong_password_does_not_lose_the_text(app, alice):
    alice.get("/console/broadcasts/new")
    end_session(app)
    kept = hidden(text_of(alice.post("/console/broadcasts", {"content": TEXT})), "/login")
    wrong = alice.http.post("/login", data=kept | {"username": "alice", "password": "wrong wrong"})
    assert wrong.status_code == 401
    assert sign_in(alice, "alice", hidden(text_of(wrong), "/login")).status_code == 200


def test_password_is_never_given_back(app, alice):
    alice.get("/console/people/new")
    end_session(app)
    refused = alice.post("/console/people", {"username": "dana", "password": "very secret words"})
    assert "very secret words" not in text_of(refused)
    assert "very secret words" not in text_of(sign_in(alice, "alice", hidden(text_of(refused), "/login")))


@pytest.mark.parametrize(("page", "action", "field"), FORMS)
def test_text_survives_a_busy_database(app, alice, live, monkeypatch, page, action, field):
    page, action = page.format(id=live), action.format(id=live)
    alice.get(page)

    def busy(*_args, **_options):
        raise TemporarilyUnavailable

    with monkeypatch.context() as patch:
        for place in (
            "broadcasts",
            "edits",
            "library",
            "users",
            "accounts",
            "tokens",
            "roles",
            "invitations",
            "user_import",
        ):
            patch.setattr(f"broadcast.actions.{place}.write_transaction", busy)
        patch.setattr(passwords, "hash_password", busy)
        form = {
            "title": "T",
            "name": "N",
            "username": "dana",
            "label": "L",
            "scopes": "inbox",
            "days": "7",
            "do": "send",
        }
        form |= {"targetType": "ALL", "when": "now", "understood": "yes", "act": "import", "whom": "all"}
        form |= {"live": "yes", "version": version_of(app, live)} if "edit" in page else {}
        texts = {"table": "username\ndana", "name": "night", "usernames": "charlie", "reason": "r", "label": "x"}
        form[field] = texts.get(field, TEXT)
        if "tokens" in page:
            form["username"] = "bob"
        refused = alice.post(action, form)
    assert refused.status_code == 503
    fields = hidden(text_of(refused), action)
    assert fields[field] == form[field]
    assert alice.http.post(action, data=fields).status_code == 200


def version_of(app, broadcast_id: int) -> str:
    with app.app_context():
        return stored.get(broadcast_id).version


def test_text_survives_a_limit_and_coming_back_to_it_is_not_counted(make_app):
    app = make_app(ratelimit_enabled=True, limit_publish_per_user="1/minute")
    with app.app_context():
        users.create_user("dora", None, roles=["admin"], by=SYSTEM, now=clock.now())
    dora = BrowserClient.for_user(app, "dora")
    dora.get("/console/broadcasts/new")
    form = {"title": "T", "content": TEXT, "targetType": "SELECTED", "people": "dora", "when": "now"}
    assert dora.post("/console/broadcasts", form).status_code == 303
    refused = dora.post("/console/broadcasts", form)
    assert refused.status_code == 429
    fields = hidden(text_of(refused), "/console/broadcasts")
    assert fields["content"] == TEXT
    assert dora.http.post("/console/broadcasts", data=fields).status_code == 200


def test_text_of_a_plan_that_went_out_meanwhile_survives(app, alice, live):
    alice.get("/console/broadcasts/new")
    with app.app_context():
        draft = publish_message(load_actor("alice"), build_message(draft=True))
        version = version_of(app, draft)
    form = {"version": version, "title": "T", "content": TEXT, "targetType": "ALL", "when": "now", "understood": "yes"}
    with app.app_context():
        broadcasts.release(draft, by=load_actor("alice"), now=clock.now())
    refused = alice.post(f"/console/broadcasts/{draft}/edit", form)
    assert refused.status_code == 409
    assert "You can no longer edit it" in text_of(refused)
    assert "<ins>" in text_of(refused)


def test_part_of_a_page_never_sends_its_page_elsewhere(app, alice):
    """htmx would leave the page, and what was typed there, for the address of HX-Redirect."""
    alice.get("/inbox")
    end_session(app)
    response = alice.post("/console/preview", {"content": "x"}, headers={"HX-Request": "true"})
    assert response.status_code == 401
    assert not [name for name in dict(response.headers) if name.lower().startswith("hx-")]


def test_script_is_told_where_to_go_and_errors_in_json(app, alice):
    alice.get("/console/library/templates/new")
    script = {"X-Form": "script", "Accept": "application/json, text/html;q=0.9"}
    done = alice.post("/console/library/templates", {"name": "N", "title": "T", "content": "C"}, headers=script)
    assert (done.status_code, done.headers["X-Location"]) == (204, "/console/library")
    end_session(app)
    refused = alice.post("/console/library/templates", {"name": "N"}, headers=script)
    assert (refused.status_code, refused.mimetype) == (401, "application/problem+json")


def test_page_that_was_open_for_long_can_ask_for_the_present_token(app, alice, client):
    told = alice.get("/session").json
    assert told["user"] == known_id(app, "alice")
    assert alice.post("/logout", {"csrf_token": told["csrf"]}).status_code == 303
    assert client().get("/session").json["user"] is None


def known_id(app, username: str) -> int:
    with app.app_context():
        return known.get_by_username(username).id


def test_forms_that_keep_their_text_say_a_page_that_there_is(alice, live):
    """Where sign-in leads back to, for the page's script."""
    pages = {page.format(id=live) for page, _, _ in FORMS} | {"/preferences", "/console/broadcasts"}
    for page in sorted(pages):
        found = re.findall(r'data-keep="([^"]*)"', text_of(alice.get(page)))
        assert found, page
        assert {alice.get(address).status_code for address in found} == {200}, page
