"""Passwords: which are refused, who may change whose, and what a change ends."""

import hashlib
from pathlib import Path

import pytest
from argon2 import PasswordHasher

from broadcast.actions import accounts, passwords, sessions, tokens
from broadcast.actions import users as actions
from broadcast.base.errors import Conflict, Invalid, SignInRefused
from broadcast.domain import clock
from broadcast.domain.actor import SYSTEM
from broadcast.store.database import db
from broadcast.store.models import User, UserSession
from broadcast.store.transactions import write_transaction
from tests.support.builders import count_rows, load_actor

NOW = clock.now()
PASSWORD, OTHER = "correct horse battery", "another long sentence"


@pytest.fixture
def dana(cast) -> int:
    return actions.create_user("dana", PASSWORD, name="Dana Diaz-Ünal", roles=["admin"], by=SYSTEM, now=NOW)


def sign_in(password: str = PASSWORD, **more) -> str:
    return sessions.sign_in("dana", password, client=sessions.SignInClient(), now=NOW, **more)[0]


def is_open(token: str) -> bool:
    db.session.rollback()
    query = db.select(UserSession).where(UserSession.token_hash == tokens.hash_token(token))
    row = db.session.scalar(query)
    return row is not None and row.ended_at is None


@pytest.mark.parametrize(
    "password",
    [
        "password", "iloveyou", "Trustno1", "dragon99", "Summer2026!", "monkey!!!!", "p a s s w o r d", "baseball", "letmein1",
        "       ", "        ", "\u2003" * 8, "\u200b" * 9, "aaaaaaaa", "AaAaAaAaA", "abababababab", "xyzqxyzqxyzq", "12121212",
        "qwertyuiop", "QWERTZUIOP", "asdf1234qwer", "1q2w3e4r5t6y", "zyxwvuts", "abcdefgh1234", "9876543210",
        "1111222233334444", "qazwsxedcrfv", "azertyuiop12", "danadana", "Dana1984!", "dana.diaz", "diaz-ünal", "zaid anad",
        "UNALDANA1",
        "Dana Diaz-Ünal", "broadcast1", "Broadcast!Dana", "seven77", "ｐａｓｓｗｏｒｄ", "ﬁﬁﬁﬁ",
    ],
)  # fmt: skip
def test_password_that_would_be_tried_first_is_refused(cast, password):
    before = count_rows()
    with pytest.raises(Invalid) as caught:
        actions.create_user("dana", password, name="Dana Diaz-Ünal", by=SYSTEM, now=NOW)
    assert set(caught.value.fields) == {"password"}
    assert count_rows() == before


@pytest.mark.parametrize(
    "password",
    [
        PASSWORD,
        "x9#kQ!2p",
        "mein hund bellt laut",
        "dana likes horses",
        "Пароль-не-простой",
        "犬が西向きゃ尾は東",
        "a1b2-c3d4-e5f6-0718",
    ],
)
def test_password_that_is_long_enough_and_not_common_is_taken(cast, password):
    actions.create_user("dana", password, name="Dana Diaz-Ünal", by=SYSTEM, now=NOW)
    assert sign_in(password)


def test_list_of_common_passwords_is_the_one_that_was_published():
    folder = Path(passwords.__file__).with_name("common_passwords")
    for line in (folder / "sha256sums").read_text().splitlines():
        digest, name = line.split()
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == digest, name
    assert sum(len(word) >= passwords.MIN_LENGTH for word in passwords._load_common_passwords()) > 3000


def test_password_is_the_same_however_it_was_typed(cast):
    actions.create_user("dana", "Gru\u0308ße aus dem Büro", by=SYSTEM, now=NOW)
    assert sign_in("Gr\u00fcße aus dem Bu\u0308ro")
    with pytest.raises(SignInRefused):
        sign_in("Grüße aus dem Buro")


@pytest.mark.parametrize("password", ["password", "Gru\u0308ße aus dem Bu\u0308ro", "kurz", "x" * 200])
def test_password_of_before_is_still_good(dana, password):
    hashed = PasswordHasher(time_cost=2, memory_cost=19 * 1024, parallelism=1).hash(password)
    with write_transaction() as session:
        session.get(User, dana).password_hash = hashed
    assert sign_in(password)


@pytest.mark.parametrize("password", ["\ud800" * 8, "a\ud800bcdefgh", "\0" * 8, "x" * 100_000, "\ufdfa" * 900])
def test_odd_password_is_refused_and_matches_nothing(dana, password):
    with pytest.raises(Invalid):
        passwords.check_password(password, username="dana", name="Dana")
    assert not passwords.verify_password(password, db.session.get(User, dana).password_hash)


# ---- one's own, another's


def test_own_password_is_never_changed_without_the_old_one(dana):
    before = db.session.get(User, dana).password_hash
    for change in (
        lambda: accounts.set_password(dana, OTHER, by=load_actor("dana"), now=NOW),
        lambda: accounts.reset_password(dana, by=load_actor("dana"), now=NOW),
    ):
        with pytest.raises(Conflict):
            change()
    db.session.rollback()
    assert db.session.get(User, dana).password_hash == before
    accounts.set_password(dana, OTHER, by=SYSTEM, now=NOW)
    assert sign_in(OTHER)


def test_change_of_the_own_password_gives_this_browser_another_cookie_and_ends_the_others(dana):
    here, elsewhere = sign_in(), sign_in()
    query = db.select(UserSession.id).where(UserSession.token_hash == tokens.hash_token(here))
    session_id = db.session.scalar(query)
    token = accounts.change_password(PASSWORD, OTHER, by=load_actor("dana"), now=NOW, kept_session_id=session_id)
    assert (is_open(here), is_open(elsewhere), is_open(token)) == (False, False, True)
    assert (
        db.session.scalar(db.select(UserSession.id).where(UserSession.token_hash == tokens.hash_token(token)))
        == session_id
    )


# ---- at the same time


@pytest.mark.parametrize("what", ["reset", "disabled", "no administrator any more"])
def test_sign_in_that_is_under_way_loses_against_an_administrator(dana, monkeypatch, what):
    real, before = passwords.verify_password, count_rows()["sessions"]

    def meanwhile(password: str, password_hash: str | None) -> bool:
        answer = real(password, password_hash)
        monkeypatch.setattr(passwords, "verify_password", real)
        match what:
            case "reset":
                accounts.reset_password(dana, by=load_actor("alice"), now=NOW)
            case "disabled":
                actions.disable_user(dana, by=load_actor("alice"), now=NOW)
            case _:
                actions.set_roles(dana, ["ops"], by=load_actor("alice"), now=NOW)
        return answer

    monkeypatch.setattr(passwords, "verify_password", meanwhile)
    with pytest.raises(SignInRefused):
        sign_in(is_admin_only=what.startswith("no"))
    assert count_rows()["sessions"] == before


def test_change_of_password_that_is_under_way_loses_against_a_reset(dana, monkeypatch):
    sign_in()
    session_id = db.session.scalar(db.select(UserSession.id))
    real, given = passwords.hash_password, []

    def meanwhile(password: str) -> str:
        monkeypatch.setattr(passwords, "hash_password", real)
        given.append(accounts.reset_password(dana, by=load_actor("alice"), now=NOW))
        return real(password)

    monkeypatch.setattr(passwords, "hash_password", meanwhile)
    with pytest.raises(Invalid) as caught:
        accounts.change_password(PASSWORD, OTHER, by=load_actor("dana"), now=NOW, kept_session_id=session_id)
    assert set(caught.value.fields) == {"current"}
    assert sign_in(given[0])
