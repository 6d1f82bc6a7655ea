"""A session does not outlive the provider's: it ends with a logout there, or after some time."""

import base64
import json
import time
from datetime import timedelta

import pytest

from broadcast.domain import clock
from broadcast.store import audit
from broadcast.store.database import db
from broadcast.store.models import User, UserSession
from broadcast.store.transactions import write_transaction
from broadcast.streams.hub import HUB
from tests.conftest import deliver_new_events
from tests.support.builders import count_rows, load_actor
from tests.support.oidc_login import authorize_at_provider, expect_login_refused, sign_in_with_provider
from tests.support.oidc_provider import LOGOUT_EVENT, generate_key
from tests.support.stream_reader import StreamReader
from tests.support.users import BrowserClient

PATH = "/login/organisation/logout"


@pytest.fixture
def app(organised):
    return organised()


def signed_in(app, openid, sid: str | None = "there-1") -> BrowserClient:
    openid.id_token_overrides = {"sid": sid}
    browser = BrowserClient.for_user(app, None)
    assert sign_in_with_provider(app, browser=browser).status_code == 303
    return browser


def tell(app, token: str, **options):
    return app.test_client().post(PATH, data={"logout_token": token}, **options)


def is_in(browser: BrowserClient) -> bool:
    return browser.get("/inbox").status_code == 200


def test_signing_out_at_the_provider_ends_that_session_and_its_streams(app, openid):
    here, elsewhere = signed_in(app, openid, "there-1"), signed_in(app, openid, "there-2")
    password = BrowserClient.for_user(app, "bob")
    stream = StreamReader(here.http)
    stream.read_until("CONNECTED")
    answer = tell(app, openid.build_logout_token(sid="there-1"))
    assert (answer.status_code, answer.data, answer.headers["Cache-Control"]) == (200, b"", "no-store")
    deliver_new_events(app)
    assert [stream.next_frame().event, stream.next_frame()] == ["SIGNED_OUT", None]
    assert (is_in(here), is_in(elsewhere), is_in(password)) == (False, True, True)
    with app.app_context():
        [ended, *_] = audit.list_page(audit.AuditFilters(what="person.session_ended"), limit=5)
        assert ended.actor_name == openid.issuer


@pytest.mark.parametrize("changes", [{}, {"sid": None}])
def test_without_a_session_all_of_the_person_end(app, openid, changes):
    first, second, password = (
        signed_in(app, openid, "a"),
        signed_in(app, openid, None),
        BrowserClient.for_user(app, "bob"),
    )
    openid.user_claims = {"sub": "43-charlie", "preferred_username": "charlie"}
    charlie = signed_in(app, openid, "c")
    assert tell(app, openid.build_logout_token(sub="42-bob", **changes)).status_code == 200
    assert [is_in(browser) for browser in (first, second, password, charlie)] == [False, False, True, True]


def test_session_whose_name_there_is_not_known_ends_with_any_of_the_person(app, openid):
    unknown, other = signed_in(app, openid, None), signed_in(app, openid, "other")
    assert tell(app, openid.build_logout_token(sid="there-1")).status_code == 200
    assert (is_in(unknown), is_in(other)) == (False, True)


def test_session_alone_is_enough(app, openid):
    here = signed_in(app, openid, "there-1")
    assert tell(app, openid.build_logout_token(sub=None, sid="there-1")).status_code == 200
    assert not is_in(here)


@pytest.mark.parametrize(
    "changes",
    [
        {"iss": "http://evil.example"}, {"iss": None}, {"aud": "somebody-else"}, {"aud": ["a", "b"]}, {"aud": None},
        {"iat": 1_000_000_000}, {"iat": 4_000_000_000}, {"iat": None}, {"iat": "now"}, {"iat": True}, {"iat": 10**30},
        {"exp": 1_000_000_000}, {"exp": "later"}, {"jti": None}, {"jti": 7}, {"jti": "x" * 300}, {"jti": "a\0b"},
        {"events": None}, {"events": {}}, {"events": [LOGOUT_EVENT]}, {"events": {LOGOUT_EVENT: None}},
        {"nonce": "n"}, {"nonce": ""}, {"sub": None}, {"sub": None, "sid": ""}, {"sub": ["42-bob"]}, {"sid": {"a": 1}},
    ],
    ids=str,
)  # fmt: skip
def test_token_that_is_no_logout_token_of_now_ends_nothing(app, openid, changes):
    here = signed_in(app, openid)
    with app.app_context():
        before = count_rows()
    answer = tell(app, openid.build_logout_token(**changes))
    assert (answer.status_code, answer.json["error"], answer.headers["Cache-Control"]) == (
        400,
        "invalid_request",
        "no-store",
    )
    assert is_in(here)
    with app.app_context():
        assert count_rows() == before


def test_id_token_is_no_logout_token(app, openid):
    here = signed_in(app, openid)
    authorize_at_provider(BrowserClient.for_user(app, None))
    [asked] = openid.codes.values()
    claims = {"events": None, "jti": "x", "nonce": asked["nonce"]}
    assert tell(app, openid.build_logout_token(header={"typ": "JWT"}, **claims)).status_code == 400
    assert is_in(here)


def unsigned(token: str) -> str:
    _, body, _ = token.split(".")
    head = base64.urlsafe_b64encode(json.dumps({"alg": "none"}).encode()).rstrip(b"=").decode()
    return f"{head}.{body}."


@pytest.mark.parametrize("text", ["", "x", "a.b.c", "....", "é" * 50, "x" * 200_000, "e30.e30.e30", "{}"])
def test_odd_token_is_refused(app, openid, text):
    here = signed_in(app, openid)
    assert tell(app, text).status_code == 400
    assert app.test_client().post(PATH, json={"logout_token": text}).status_code == 400
    assert is_in(here)


def test_token_that_nobody_signed_or_somebody_else_did_is_refused(app, openid):
    here, good = signed_in(app, openid), openid.build_logout_token()
    openid.signing_key = generate_key()
    foreign = openid.build_logout_token()
    for token in (unsigned(good), foreign, good[:-8] + "AAAAAAAA"):
        assert tell(app, token).status_code == 400
    assert is_in(here)
    openid.signing_key = openid.published_key
    assert tell(app, good).status_code == 200


def test_keys_of_strangers_make_us_ask_the_provider_once_in_a_while_only(app, openid):
    signed_in(app, openid)
    openid.signing_key = generate_key()
    before = openid.requested_paths.count("/keys")
    for _ in range(5):
        assert tell(app, openid.build_logout_token()).status_code == 400
    assert openid.requested_paths.count("/keys") - before == 1


def test_new_key_of_the_provider_is_found(app, openid):
    here = signed_in(app, openid)
    openid.published_key = openid.signing_key = generate_key()
    assert tell(app, openid.build_logout_token()).status_code == 200
    assert not is_in(here)


def test_notice_counts_once(app, openid):
    token = openid.build_logout_token()
    signed_in(app, openid)
    assert tell(app, token).status_code == 200
    with app.app_context(), write_transaction() as session:  # it signed in again since
        for row in session.scalars(db.select(UserSession)):
            row.ended_at = None
    assert tell(app, token).status_code == 400
    with app.app_context():
        assert all(row.ended_at is None for row in db.session.scalars(db.select(UserSession)))


def test_notice_without_anybody_to_sign_out_is_fine(app, openid):
    assert tell(app, openid.build_logout_token(sub="nobody")).status_code == 200


@pytest.mark.parametrize("changes", [{"sid": "there-1"}, {}])
def test_who_was_coming_from_there_just_then_is_not_let_in(app, openid, changes):
    """The provider ended what it had vouched for a moment before: the notice was faster than the browser."""
    openid.id_token_overrides = {"sid": "there-1", "iat": int(time.time()) - 5}
    browser = BrowserClient.for_user(app, None)
    back = authorize_at_provider(browser)
    assert tell(app, openid.build_logout_token(**changes)).status_code == 200
    assert "signed out at your organisation" in expect_login_refused(browser.get(back))
    openid.id_token_overrides = {"sid": "there-2", "iat": int(time.time()) + 2}
    assert sign_in_with_provider(app).status_code == 303, "who signs in there anew comes in"


def test_no_cookie_and_no_other_site_makes_a_difference(app, openid):
    here = signed_in(app, openid)
    headers = {"Origin": "https://evil.example", "Sec-Fetch-Site": "cross-site"}
    assert here.http.post(PATH, data={"logout_token": "x"}, headers=headers).status_code == 400
    assert tell(app, openid.build_logout_token(), headers=headers).status_code == 200, (
        "the signature is all that counts"
    )
    assert not is_in(here)


def test_without_a_provider_there_is_nothing_to_tell(client, make_app):
    client()
    assert make_app().test_client().post(PATH, data={"logout_token": "x"}).status_code == 404


def test_session_that_the_provider_vouched_for_ends_after_its_hours(organised, openid):
    app = organised(oidc_session_hours=2)
    bob, password = signed_in(app, openid), BrowserClient.for_user(app, "bob")
    for hours, expected in ((1.9, (True, True)), (2.1, (False, True))):
        with app.app_context(), write_transaction() as session:
            for row in session.scalars(db.select(UserSession)):
                row.created_at = clock.now() - timedelta(hours=hours)
        assert (is_in(bob), is_in(password)) == expected


def test_stream_ends_with_its_session(organised, openid):
    app = organised(oidc_session_hours=2)
    bob = signed_in(app, openid)
    with app.app_context(), write_transaction() as session:
        for row in session.scalars(db.select(UserSession)):
            row.created_at = clock.now() - timedelta(hours=2) + timedelta(seconds=30)
    stream = StreamReader(bob.http)
    [connection] = HUB.of(app).connections
    assert connection.ends_at - time.monotonic() <= 30
    stream.close()


# ---- whose address it is


@pytest.mark.parametrize("verified", [None, False, "false", 0, 1, "1", "True", "yes", [True], {}])
@pytest.mark.parametrize("claim", ["email", "preferred_username", "upn"])
def test_address_that_is_not_verified_names_no_account_and_makes_none(organised, openid, claim, verified):
    app = organised(oidc_username_claim=claim, oidc_create_users=True, oidc_link_users="everybody")
    address = "bob@example.org"
    with app.app_context(), write_transaction() as session:
        session.get(User, load_actor("bob").user_id).username = address
    openid.user_claims = {"sub": "9", claim: address}
    if verified is not None:
        openid.user_claims |= {"email": address, "email_verified": verified}
    with app.app_context():
        before = count_rows()
    assert "not verified your e-mail address" in expect_login_refused(sign_in_with_provider(app))
    with app.app_context():
        assert count_rows() == before


@pytest.mark.parametrize("verified", [True, "true"])
def test_address_that_is_verified_names_its_account(organised, openid, verified):
    app = organised(oidc_username_claim="email", oidc_create_users=True)
    openid.user_claims = {"sub": "9", "email": "dana@example.org", "email_verified": verified}
    assert sign_in_with_provider(app).status_code == 303


def test_verified_address_is_no_proof_of_another(organised, openid):
    app = organised(oidc_username_claim="upn", oidc_create_users=True)
    openid.user_claims = {"sub": "9", "upn": "ceo@example.org", "email": "me@example.org", "email_verified": True}
    assert "not verified" in expect_login_refused(sign_in_with_provider(app))


def test_verification_is_found_where_only_userinfo_tells_it(organised, openid):
    app = organised(oidc_username_claim="email", oidc_create_users=True)
    openid.user_claims = {"sub": "9", "email": "dana@example.org"}
    openid.userinfo_overrides = {"email_verified": True}
    assert sign_in_with_provider(app).status_code == 303


def test_account_that_is_known_by_its_subject_needs_no_address(organised, openid):
    app = organised(oidc_username_claim="email", oidc_create_users=True)
    openid.user_claims = {"sub": "9", "email": "dana@example.org", "email_verified": True}
    assert sign_in_with_provider(app).status_code == 303
    openid.user_claims["email_verified"] = False
    assert sign_in_with_provider(app).status_code == 303


def test_provider_that_says_nothing_of_addresses_may_be_believed(organised, openid):
    app = organised(oidc_create_users=True, oidc_addresses_are_verified=True)
    openid.user_claims = {"sub": "9", "preferred_username": "dana@example.org"}
    assert sign_in_with_provider(app).status_code == 303
    openid.user_claims = {"sub": "10", "preferred_username": "erin@example.org", "email_verified": False}
    assert "not verified" in expect_login_refused(sign_in_with_provider(app))
