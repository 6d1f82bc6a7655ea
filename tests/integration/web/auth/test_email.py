"""The person's own address, and the links in mails."""

import re
from datetime import timedelta

import pytest

from broadcast.actions import users as user_actions
from broadcast.channels.email import EMAIL
from broadcast.channels.links import Links
from broadcast.domain import clock
from broadcast.domain.actor import SYSTEM
from broadcast.store import email_addresses, users
from broadcast.store.database import db
from broadcast.store.models import Digest, EmailAddress
from broadcast.store.transactions import write_transaction
from tests.support.builders import count_rows, load_actor


def read_newest_mail(app) -> str:
    return EMAIL.of(app).folder.list_newest(1)[0].text


def ask_for(app, browser, address: str) -> str:
    """Ask for an address; return the path of the link in the mail."""
    page = browser.post("/account/email", data={"email": address}, follow_redirects=True).text
    assert "A link was sent to" in page
    return re.search(r"http://127\.0\.0\.1:8000(/email/confirm/\S+)", read_newest_mail(app))[1]


def forget_request(username: str) -> None:
    """As if a minute had passed since the last link."""
    with write_transaction() as session:
        session.get(EmailAddress, load_actor(username).user_id).pending_since = clock.now() - timedelta(minutes=2)


def get_address(app, username: str = "bob") -> EmailAddress | None:
    with app.app_context():
        return email_addresses.get(load_actor(username).user_id)


def test_address_is_used_once_its_link_was_followed_and_the_button_pressed(app, client):
    bob = client("bob")
    path = ask_for(app, bob, "Bob@Bücher.example")
    assert get_address(app).verified_at is None
    assert "waits to be confirmed" in bob.get("/account").text
    nobody = app.test_client()
    page = nobody.get(path)
    assert (page.status_code, "Confirm this address" in page.text) == (200, True)
    assert get_address(app).verified_at is None  # a scanner follows links
    assert "is confirmed" in nobody.post(path).text
    row = get_address(app)
    assert (row.address, row.pending_address) == ("Bob@xn--bcher-kva.example", None)
    assert "is confirmed" in nobody.post(path).text  # once more is no mistake
    assert "Confirmed" in bob.get("/account").text


def test_older_address_gets_mail_until_the_new_one_is_confirmed(app, client):
    bob = client("bob")
    app.test_client().post(ask_for(app, bob, "old@example.com"))
    first = ask_for(app, bob, "first@example.com")
    with app.app_context():
        forget_request("bob")
    second = ask_for(app, bob, "second@example.com")
    assert get_address(app).address == "old@example.com"
    assert app.test_client().post(first).status_code == 404
    assert get_address(app).address == "old@example.com"
    assert app.test_client().post(second).status_code == 200
    assert get_address(app).address == "second@example.com"


@pytest.mark.parametrize("address", ["", "bob", "bob@example.com\nBcc: eve@example.com", "ö@example.com"])
def test_what_is_no_address_is_refused(app, client, address):
    response = client("bob").post("/account/email", data={"email": address})
    assert response.status_code == 422
    assert get_address(app) is None


def test_links_are_sent_once_a_minute(app, client):
    bob = client("bob")
    ask_for(app, bob, "bob@example.com")
    response = bob.post("/account/email", data={"email": "eve@example.com"})
    assert response.status_code == 409
    assert "less than a minute ago" in response.text
    assert get_address(app).pending_address == "bob@example.com"


def test_address_that_fails_is_told_and_works_again_once_confirmed(app, client):
    bob = client("bob")
    app.test_client().post(ask_for(app, bob, "bob@example.com"))
    with app.app_context(), write_transaction() as session:
        user_id = load_actor("bob").user_id
        email_addresses.mark_failing(session, user_id, "other@example.com", "not this one", at=clock.now())
        email_addresses.mark_failing(session, user_id, "bob@example.com", "550 No <such> user", at=clock.now())
    assert "550 No &lt;such&gt; user" in bob.get("/account").text
    console = client("alice").get(f"/console/people/{user_id}").text
    assert "Failing" in console
    assert "550 No &lt;such&gt; user" in console
    app.test_client().post(ask_for(app, bob, "bob@example.com"))
    assert get_address(app).failing_since is None


def test_address_is_removed_with_a_press_and_with_the_account(app, client):
    bob = client("bob")
    app.test_client().post(ask_for(app, bob, "bob@example.com"))
    assert "Your address was removed" in bob.post("/account/email/remove", follow_redirects=True).text
    assert get_address(app) is None
    app.test_client().post(ask_for(app, bob, "bob@example.com"))
    user_id = get_address(app).user_id
    client("alice").post(f"/console/people/{user_id}/delete", data={"typedUsername": "bob"})
    with app.app_context():
        assert users.get(user_id).deleted_at is not None
        assert email_addresses.get(user_id) is None


def test_one_click_unsubscribes_without_a_session(app, client):
    """RFC 8058: a POST of the mail program, from anywhere, without cookies."""
    client()
    with app.app_context():
        user_id = load_actor("bob").user_id
        path = EMAIL.current.links.build_unsubscribe_url(user_id).removeprefix("http://127.0.0.1:8000")
        before = count_rows()
    nobody = app.test_client()
    assert "not even urgent messages" in nobody.get(path).text
    with app.app_context():
        assert users.get_preferences(user_id).email is not None
        assert count_rows() == before
    headers = {"Origin": "https://mail.example", "Sec-Fetch-Site": "cross-site"}
    response = nobody.post(path, data={"List-Unsubscribe": "One-Click"}, headers=headers)
    assert response.status_code == 200
    assert nobody.post(path).status_code == 200
    with app.app_context():
        assert users.get_preferences(user_id).email is None
    assert '<option value="NEVER" selected>' in client("bob").get("/preferences").text


def test_token_of_one_link_is_none_for_the_other_and_keys_may_be_rotated(app, client):
    client()
    old, new = "o" * 40, "n" * 40
    before, after = Links("https://a", [old]), Links("https://a", [old, new])
    unsubscribe = before.build_unsubscribe_url(7).rpartition("/")[2]
    confirm = before.build_confirm_url(7, "a@example.com").rpartition("/")[2]
    assert after.read_unsubscribe_token(unsubscribe) == (7, "email")
    assert after.read_confirm_token(confirm) == (7, "a@example.com")
    assert (after.read_unsubscribe_token(confirm), after.read_confirm_token(unsubscribe)) == (None, None)
    assert Links("https://a", [new]).read_unsubscribe_token(unsubscribe) is None
    for path in ("unsubscribe/x", "unsubscribe/Nw.x", "confirm/x", f"unsubscribe/{unsubscribe}", "confirm/%FF"):
        assert app.test_client().post(f"/email/{path}").status_code == 404
        assert app.test_client().get(f"/email/{path}").status_code == 404


def test_link_expires_after_a_day(monkeypatch):
    links = Links("https://a", ["k" * 40])
    token = links.build_confirm_url(7, "a@example.com").rpartition("/")[2]
    monkeypatch.setattr("broadcast.channels.links.CONFIRMATION_SECONDS", -1)
    assert links.read_confirm_token(token) is None


def test_disabled_account_confirms_nothing(app, client):
    path = ask_for(app, client("bob"), "bob@example.com")
    with app.app_context():
        user_actions.disable_user(load_actor("bob").user_id, by=SYSTEM, now=clock.now())
    assert app.test_client().post(path).status_code == 404
    assert get_address(app).verified_at is None


def test_administrator_sets_and_removes_an_address_on_the_page_of_the_user(app, client):
    client("bob")
    alice = client("alice")
    with app.app_context():
        path = f"/console/people/{load_actor('bob').user_id}"
    assert alice.post(f"{path}/email", data={"email": "Bob@Example.com"}).status_code == 303
    assert get_address(app).address == "Bob@example.com"
    assert get_address(app).verified_at is not None
    assert 'value="Bob@example.com"' in alice.get(path).text
    refused = alice.post(f"{path}/email", data={"email": "<b>bob"})
    assert refused.status_code == 422
    assert "not an e-mail address" in refused.text
    assert 'value="&lt;b&gt;bob"' in refused.text
    assert get_address(app).address == "Bob@example.com"
    alice.post(f"{path}/email", data={"email": " "})
    assert get_address(app) is None
    assert client("bob").post(f"{path}/email", data={"email": "eve@example.com"}).status_code == 403


def test_link_of_a_digest_ends_digests_and_no_other_mail(app, client):
    client("bob").post("/preferences", data={"digest": "daily", "digestTime": "07:00", "email": "LOW"})
    with app.app_context():
        user_id = load_actor("bob").user_id
        path = EMAIL.current.links.build_unsubscribe_url(user_id, "digest").removeprefix("http://127.0.0.1:8000")
        assert db.session.get(Digest, user_id) is not None
    nobody = app.test_client()
    assert "No more digests?" in nobody.get(path).text
    assert "You get no more digests" in nobody.post(path, data={"List-Unsubscribe": "One-Click"}).text
    with app.app_context():
        preferences = users.get_preferences(user_id)
        assert (preferences.digest, preferences.email) == ("off", "LOW")
        assert db.session.get(Digest, user_id) is None
    assert 'value="07:00"' in client("bob").get("/preferences").text


@pytest.mark.parametrize("form", [{"digest": "weekly"}, {"digest": "daily", "digestTime": "25:00"}])
def test_digest_that_does_not_exist_is_refused(client, form):
    assert client("bob").post("/preferences", data=form).status_code == 422
