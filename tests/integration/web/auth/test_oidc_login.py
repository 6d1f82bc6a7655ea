"""Login at the organisation's OpenID provider: a small real one, and every error it may make."""

import base64
import json
from datetime import timedelta
from urllib.parse import parse_qs, urlsplit

import pytest

from broadcast.actions import accounts
from broadcast.config.settings import SETTINGS
from broadcast.domain import clock
from broadcast.domain.actor import SYSTEM
from broadcast.store import audit
from broadcast.store.database import db
from broadcast.store.models import UserSession
from broadcast.store.transactions import write_transaction
from tests.support.builders import count_rows, load_actor
from tests.support.oidc_login import (
    BASE_URL,
    CALLBACK_PATH,
    authorize_at_provider,
    expect_login_refused,
    sign_in_with_provider,
)
from tests.support.oidc_provider import CLIENT_ID, generate_key
from tests.support.users import BrowserClient


def test_somebody_signs_in_and_is_led_to_where_they_were_stopped(organised, openid):
    browser = BrowserClient.for_user(organised(), None)
    answer = sign_in_with_provider(None, browser=browser, next_path="/inbox?view=unread")
    assert (answer.status_code, answer.location) == (303, "/inbox?view=unread")
    assert "Bob" in browser.get("/account").get_data(as_text=True)


def test_what_is_asked_of_the_provider_holds_state_nonce_and_a_challenge(organised):
    begun = BrowserClient.for_user(organised(), None).get("/login/organisation")
    asked = {name: value for name, [value] in parse_qs(urlsplit(begun.location).query).items()}
    assert asked["redirect_uri"] == f"{BASE_URL}{CALLBACK_PATH}"
    assert (asked["response_type"], asked["client_id"], asked["scope"]) == ("code", CLIENT_ID, "openid profile email")
    assert asked["code_challenge_method"] == "S256"
    assert all(len(asked[name]) >= 20 for name in ("state", "nonce", "code_challenge"))


def test_session_is_a_new_one_like_any_other_and_audited(organised):
    app = organised()
    browser = BrowserClient.for_user(app, None)
    browser.get("/login")
    planted = browser.http.get_cookie("broadcast").value
    sign_in_with_provider(app, browser=browser)
    assert browser.http.get_cookie("broadcast").value != planted
    with app.app_context():
        [row] = db.session.scalars(db.select(UserSession))
        assert row.user_id == load_actor("bob").user_id
        [first, *_] = audit.list_page(audit.AuditFilters(what="person.signed_in"), limit=5)
        assert first.detail["vouched_by"] == SETTINGS.of(app).oidc_issuer


@pytest.mark.parametrize(
    "changes",
    [
        {"nonce": "another"}, {"nonce": None}, {"aud": "somebody-else"}, {"aud": ["somebody-else"], "azp": CLIENT_ID},
        {"aud": None}, {"iss": "http://evil.example"}, {"iss": None}, {"exp": 1_000_000_000}, {"exp": None},
        {"sub": None}, {"iat": 4_000_000_000},
    ],
    ids=str,
)  # fmt: skip
def test_id_token_that_is_not_for_this_sign_in_is_refused(organised, openid, changes):
    app = organised()
    openid.id_token_overrides = changes
    with app.app_context():
        before = count_rows()
    assert "did not confirm" in expect_login_refused(sign_in_with_provider(app))
    with app.app_context():
        assert count_rows() == before


def test_token_signed_by_a_key_that_the_provider_does_not_have_is_refused(organised, openid):
    openid.signing_key = generate_key()
    assert "did not confirm" in expect_login_refused(sign_in_with_provider(organised()))


def test_key_under_a_known_name_is_no_other_key(organised, openid):
    forged = generate_key().as_dict(private=True) | {"kid": openid.published_key.kid}
    openid.signing_key = type(openid.published_key).import_key(forged)
    assert "did not confirm" in expect_login_refused(sign_in_with_provider(organised()))


@pytest.mark.parametrize("algorithm", ["none", "HS256"])
def test_token_without_a_signature_of_the_provider_is_refused(organised, openid, algorithm):
    """Even though the provider says that it signs so."""
    real, said = openid.exchange_code, {}

    def exchange(form, authorization):
        status, answer = real(form, authorization)
        _, claims, _ = answer["id_token"].split(".")
        said["id_token"] = f"{_encoded({'alg': algorithm})}.{claims}." + ("" if algorithm == "none" else "c2lnbmF0dXJl")
        return status, answer | said

    openid.exchange_code = exchange
    assert "did not confirm" in expect_login_refused(sign_in_with_provider(organised()))


def test_new_key_of_the_provider_is_asked_for(organised, openid):
    app = organised()
    assert sign_in_with_provider(app).status_code == 303
    openid.published_key = openid.signing_key = generate_key()
    assert sign_in_with_provider(app).status_code == 303
    assert openid.requested_paths.count("/keys") == 2


@pytest.mark.parametrize(
    "query", ["", "?code=x", "?state=x", "?code=x&state=y", "?error=access_denied&state=x", "?code=%00&state=%00"]
)
def test_answer_that_nobody_asked_for_writes_nothing(organised, query):
    app = organised()
    with app.app_context():
        before = count_rows()
    expect_login_refused(BrowserClient.for_user(app, None).get(CALLBACK_PATH + query))
    with app.app_context():
        assert count_rows() == before


def test_answer_to_another_browser_is_refused(organised):
    """Somebody is sent the address of an answer that a stranger got, to be signed in as the stranger."""
    app = organised()
    address, victim = authorize_at_provider(BrowserClient.for_user(app, None)), BrowserClient.for_user(app, None)
    authorize_at_provider(victim)
    expect_login_refused(victim.get(address))
    assert victim.get("/inbox").status_code == 303


def test_answer_counts_once(organised):
    app = organised()
    browser = BrowserClient.for_user(app, None)
    address = authorize_at_provider(browser)
    assert browser.get(address).status_code == 303
    expect_login_refused(BrowserClient.for_user(app, None).get(address))


@pytest.mark.parametrize("fault", ["500", "nonsense", "list"])
@pytest.mark.parametrize("path", ["/.well-known", "/token", "/keys"])
def test_provider_that_is_down_or_talks_nonsense_is_a_sentence(organised, openid, fault, path):
    openid.fault, openid.faulty_path = fault, path
    browser = BrowserClient.for_user(organised(), None)
    answer = browser.get("/login/organisation")
    if answer.status_code == 302:
        answer = browser.get(authorize_at_provider(browser))
    assert "does not answer" in expect_login_refused(answer, status=503)
    openid.fault = ""
    assert sign_in_with_provider(None, browser=browser).status_code == 303, "and it is well again by itself"


def test_provider_that_is_not_there_is_a_sentence(organised):
    nobody = organised(oidc_issuer="http://127.0.0.1:1")
    assert "does not answer" in expect_login_refused(
        BrowserClient.for_user(nobody, None).get("/login/organisation"), status=503
    )
    assert BrowserClient.for_user(nobody, None).get("/signed-out").status_code == 200


def test_provider_that_refuses_the_code_is_a_sentence(organised, openid):
    openid.fault, openid.faulty_path = "error", "/token"
    assert "did not confirm" in expect_login_refused(sign_in_with_provider(organised()))


def test_description_of_another_issuer_is_not_believed(organised, openid):
    openid.discovery_overrides = {"issuer": "https://evil.example"}
    assert "does not answer" in expect_login_refused(
        BrowserClient.for_user(organised(), None).get("/login/organisation"), status=503
    )


@pytest.mark.parametrize("target", ["//evil.example", "https://evil.example", "/\\evil.example", "javascript:alert(1)"])
def test_next_never_leads_elsewhere(organised, target):
    assert sign_in_with_provider(organised(), next_path=target).location == "/inbox"


def test_form_is_out_of_sight_and_opens_for_administrators_alone(organised):
    app = organised(password_sign_in="administrators")
    with app.app_context():
        for name in ("alice", "bob"):
            accounts.set_password(load_actor(name).user_id, "correct horse battery", by=SYSTEM, now=clock.now())
    browser = BrowserClient.for_user(app, None)
    assert 'name="password"' not in browser.get("/login").get_data(as_text=True)
    assert 'name="password"' in browser.get("/login?with=password").get_data(as_text=True)
    form = {"username": "bob", "password": "correct horse battery"}
    assert "Wrong username or password" in expect_login_refused(browser.post("/login", form))
    assert browser.post("/login", form | {"username": "alice"}).status_code == 303


def test_signing_out_offers_to_sign_out_at_the_provider_too(organised, openid):
    app = organised()
    browser = BrowserClient.for_user(app, None)
    sign_in_with_provider(app, browser=browser)
    browser.csrf_token = ""
    answer = browser.post("/logout")
    assert (answer.status_code, answer.location) == (303, "/signed-out")
    page = browser.get("/signed-out").get_data(as_text=True)
    assert f'href="{openid.issuer}/leave?post_logout_redirect_uri=' in page
    assert browser.get("/inbox").status_code == 303


def test_who_has_no_password_confirms_by_having_just_signed_in(organised, openid):
    app = organised()
    openid.user_claims = {"sub": "1", "preferred_username": "alice"}
    alice = BrowserClient.for_user(app, None)
    sign_in_with_provider(app, browser=alice)
    urgent = {
        "title": "Fire",
        "content": "Leave.",
        "targetType": "ALL",
        "priority": "URGENT",
        "do": "send",
        "understood": "yes",
    }
    with app.app_context(), write_transaction() as session:
        [row] = session.scalars(db.select(UserSession))
        row.created_at = clock.now() - timedelta(minutes=11)
    alice.csrf_token = ""
    answer = alice.post("/console/broadcasts", urgent)
    assert answer.status_code == 422
    assert "no password here" in answer.get_data(as_text=True)
    alice.http.get("/logout")
    sign_in_with_provider(app, browser=alice)
    alice.csrf_token = ""
    assert alice.post("/console/broadcasts", urgent).status_code == 303


def test_without_a_provider_there_is_no_such_door(client):
    for path in ("/login/organisation", CALLBACK_PATH):
        assert client().get(path).status_code == 404
    assert "organisation" not in client().get("/login").get_data(as_text=True)


def _encoded(header: dict) -> str:
    return base64.urlsafe_b64encode(json.dumps(header).encode()).rstrip(b"=").decode()
