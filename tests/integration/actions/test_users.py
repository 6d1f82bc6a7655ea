"""Users, sessions and tokens: who gets access, and how soon it ends."""

from datetime import timedelta

import pytest

from broadcast.actions import accounts, passwords, tokens
from broadcast.actions import sessions as session_actions
from broadcast.actions import users as actions
from broadcast.actions.user_import import import_users
from broadcast.base.errors import Conflict, Forbidden, Invalid, NotFound, SignInRefused
from broadcast.domain import clock
from broadcast.domain.actor import SYSTEM
from broadcast.domain.audience import EveryoneAudience, make_role_audience, make_user_audience
from broadcast.domain.events import EventType
from broadcast.store import audiences, log
from broadcast.store import users as people
from broadcast.store.database import db
from broadcast.store.fast.last_used_buffer import LastUsedBuffer
from broadcast.store.models import ApiToken, AuditEntry, User, UserSession
from tests.support.builders import count_rows, load_actor
from tests.support.databases import DATABASE_URL

NOW = clock.now()
PASSWORD = "correct horse battery"


def create(username: str = "dana", password: str | None = None, **more) -> int:
    return actions.create_user(username, password, by=SYSTEM, now=NOW, **more)


def sign_in(username: str, password: str = PASSWORD) -> tuple[str, int]:
    return session_actions.sign_in(
        username, password, client=session_actions.SignInClient("192.0.2.1", "tests"), now=NOW
    )


def sessions() -> list[UserSession]:
    db.session.rollback()
    return list(db.session.scalars(db.select(UserSession).order_by(UserSession.id)))


def last_audit() -> AuditEntry:
    return db.session.scalars(db.select(AuditEntry).order_by(AuditEntry.id.desc())).first()


@pytest.fixture
def dana(cast) -> int:
    return create(password=PASSWORD)


# ---- making people


def test_new_person_has_a_hash_and_no_password(dana):
    user = db.session.get(User, dana)
    assert user.password_hash.startswith("$argon2id$v=19$m=19456,t=2,p=1$")
    assert PASSWORD not in str({**vars(user)})
    assert (last_audit().action, PASSWORD in str(last_audit().detail)) == ("person.created", False)


def test_names_and_roles_are_lower_case(cast):
    user = db.session.get(User, create(" Dana ", roles=["OPS", " Sales "]))
    assert (user.username, user.name, user.roles) == ("dana", "Dana", {"ops", "sales"})
    actions.set_roles(user.id, ["SALES"], by=SYSTEM, now=NOW)
    assert people.get_by_username("dana").roles == {"sales"}
    assert people.list_role_names() == ["admin", "ops", "sales"]


@pytest.mark.parametrize("username", ["", "1", "42", "a b", "-a", "ä", "a" * 65, "a\0", "a\nb", "../a", "<b>"])
def test_username_is_plain(cast, username):
    with pytest.raises(Invalid) as caught:
        create(username)
    assert set(caught.value.fields) == {"username"}


@pytest.mark.parametrize("role", ["", "1st", "a b", "a,b", "a" * 65, "\0", "ü"])
def test_role_is_plain(cast, role):
    before = count_rows()
    with pytest.raises(Invalid):
        create(roles=["ops", role])
    with pytest.raises(Invalid):
        actions.set_roles(cast["bob"].user_id, [role], by=SYSTEM, now=NOW)
    assert count_rows() == before


@pytest.mark.parametrize("name", ["x" * 201, "a\x1b[2J", "a\0b"])
def test_shown_name_is_one_line(cast, name):
    with pytest.raises(Invalid):
        create(name=name)


@pytest.mark.parametrize("password", ["", "1234567", "x" * 201, "password", "PASSWORD123", "dana", "Broadcast1"])
def test_easy_password_is_refused(cast, password):
    with pytest.raises(Invalid) as caught:
        create("danadana" if password == "dana" else "dana", "danadana" if password == "dana" else password)
    assert set(caught.value.fields) == {"password"}


def test_person_exists_once(cast, monkeypatch):
    with pytest.raises(Conflict):
        create("Bob")
    monkeypatch.setattr(people, "get_by_username", lambda username: None)  # another process was faster
    with pytest.raises(Conflict):
        create("bob")


@pytest.mark.parametrize("name", ["bob", "charlie"])
def test_only_administrators_change_people(cast, name):
    by, bob = cast[name], cast["alice"].user_id
    before = count_rows()
    for act in (
        lambda: actions.create_user("eve", None, by=by, now=NOW),
        lambda: actions.set_roles(by.user_id, ["admin"], by=by, now=NOW),
        lambda: actions.disable_user(bob, by=by, now=NOW),
        lambda: accounts.set_password(bob, PASSWORD, by=by, now=NOW),
        lambda: tokens.create_token(by.user_id, scopes=["inbox"], label="x", by=by, now=NOW),
    ):
        with pytest.raises(Forbidden):
            act()
    assert count_rows() == before


def test_person_who_does_not_exist_is_not_found(cast):
    for act in (
        lambda: actions.set_roles(99_999, [], by=SYSTEM, now=NOW),
        lambda: actions.disable_user(99_999, by=SYSTEM, now=NOW),
        lambda: accounts.set_password(99_999, PASSWORD, by=SYSTEM, now=NOW),
        lambda: tokens.create_token(99_999, scopes=["inbox"], label="x", by=SYSTEM, now=NOW),
    ):
        with pytest.raises(NotFound):
            act()


# ---- signing in


def test_session_begins_and_only_its_hash_is_kept(dana):
    token, user_id = sign_in("DANA")
    [row] = sessions()
    assert user_id == row.user_id == dana
    assert row.token_hash == tokens.hash_token(token) != token
    assert (row.address, row.agent, row.ended_at) == ("192.0.2.1", "tests", None)
    assert last_audit().action == "person.signed_in"


def test_every_sign_in_is_another_session(dana):
    assert sign_in("dana")[0] != sign_in("dana")[0]
    assert len(sessions()) == 2


def test_unknown_name_wrong_password_and_disabled_account_get_one_answer(cast, dana):
    actions.disable_user(create("eve", PASSWORD), by=SYSTEM, now=NOW)
    before = count_rows()
    told = set()
    for username, password in [
        ("nobody", PASSWORD), ("dana", "wrong"), ("dana", ""), ("eve", PASSWORD), ("bob", ""), ("bob", PASSWORD),
        ("dana\0", PASSWORD), ("x" * 5000, PASSWORD), ("dana", PASSWORD * 1000),
    ]:  # fmt: skip
        with pytest.raises(SignInRefused) as caught:
            sign_in(username, password)
        told.add(str(caught.value))
    assert len(told) == 1
    assert count_rows() == before


def test_unknown_name_takes_the_work_of_a_known_one(dana, monkeypatch):
    verified: list[str] = []
    monkeypatch.setattr(passwords, "_verify_all_spellings", lambda password, given: verified.append(given) or False)
    for username in ("nobody", "dana"):
        with pytest.raises(SignInRefused):
            sign_in(username)
    assert [given.split("$")[3] for given in verified] == ["m=19456,t=2,p=1"] * 2


# ---- leaving


def test_sign_out_ends_one_session_and_tells_its_streams(dana):
    for _ in range(2):
        sign_in("dana")
    first, second = (row.id for row in sessions())
    for _ in range(2):  # ending an ended one is fine
        session_actions.sign_out(first, by=load_actor("dana"), now=NOW)
    assert [row.ended_at is None for row in sessions()] == [False, True]
    [event] = log.read_events(0)
    assert (event.type, event.payload) == (EventType.SESSION_ENDED, {"session": f"session:{first}"})
    assert event.audience == make_user_audience([dana])
    assert second != first


def test_nobody_ends_the_session_of_another(cast, dana):
    sign_in("dana")
    session_actions.sign_out(sessions()[0].id, by=cast["bob"], now=NOW)
    assert sessions()[0].ended_at is None
    assert log.read_events(0) == []


def test_disabled_person_is_out_everywhere(dana):
    sign_in("dana")
    actions.disable_user(dana, by=SYSTEM, now=NOW)
    assert sessions()[0].ended_at == NOW
    [event] = log.read_events(0)
    assert (event.type, event.audience) == (EventType.VIEWER_CHANGED, make_user_audience([dana]))
    assert event.payload == {"roles": [], "disabled": True}
    assert last_audit().action == "person.disabled"


def test_new_roles_are_an_event_of_the_log(cast):
    bob = cast["bob"].user_id
    actions.set_roles(bob, ["sales", "ops"], by=cast["alice"], now=NOW)
    [event] = log.read_events(0)
    assert (event.type, event.audience) == (EventType.VIEWER_CHANGED, make_user_audience([bob]))
    assert event.payload == {"roles": ["ops", "sales"], "disabled": False}
    assert last_audit().detail == {"before": ["ops"], "after": ["ops", "sales"]}


def test_change_of_roles_without_its_event_is_no_change(cast, monkeypatch):
    def fail(*args, **options):
        raise ZeroDivisionError

    before = count_rows()
    with monkeypatch.context() as patched:
        patched.setattr(log, "append", fail)
        for act in (actions.disable_user, lambda *a, **o: actions.set_roles(*a, ["sales"], **o)):
            with pytest.raises(ZeroDivisionError):
                act(cast["bob"].user_id, by=SYSTEM, now=NOW)
    assert count_rows() == before
    assert load_actor("bob").roles == {"ops"}


def test_new_password_ends_every_session(dana):
    sign_in("dana")
    sign_in("dana")
    accounts.set_password(dana, "another long one", by=load_actor("alice"), now=NOW)
    assert all(row.ended_at for row in sessions())
    assert [event.type for event in log.read_events(0)] == [EventType.SESSION_ENDED] * 2
    with pytest.raises(SignInRefused):
        sign_in("dana")
    assert sign_in("dana", "another long one")


def test_session_in_use_is_noted_at_most_every_few_minutes(dana):
    sign_in("dana")
    notes = LastUsedBuffer()
    for minutes, seen in [(4, 0), (6, 6), (10, 6)]:
        now = NOW + timedelta(minutes=minutes)
        notes.note_session(sessions()[0].id, sessions()[0].seen_at, now=now)
        notes.flush(now)
        assert sessions()[0].seen_at == NOW + timedelta(minutes=seen)


@pytest.mark.skipif(not DATABASE_URL, reason="SQLite locks no rows")
def test_use_of_sessions_is_noted_without_waiting_for_a_session_that_is_being_ended(dana):
    """Two workers note the same ones: if they waited for each other's rows, they would deadlock."""
    sign_in("dana")
    sign_in("dana")
    (locked, free), later, notes = sessions(), NOW + timedelta(minutes=6), LastUsedBuffer()
    for row in (locked, free):
        notes.note_session(row.id, row.seen_at, now=later)
    with db.engine.connect() as other:
        other.execute(db.select(UserSession.id).where(UserSession.id == locked.id).with_for_update())
        notes.flush(later)
    assert [row.seen_at for row in sessions()] == [NOW, later]


# ---- tokens


def test_token_is_shown_once_and_kept_as_a_hash(cast):
    token = tokens.create_token(
        cast["bob"].user_id, scopes=["inbox"], label="x", by=SYSTEM, now=NOW, valid_for=timedelta(days=1)
    )
    [row] = db.session.scalars(db.select(ApiToken))
    assert row.token_hash == tokens.hash_token(token)
    assert token not in str({**vars(row)}) + str(last_audit().detail)
    assert (row.scopes, row.expires_at) == ("inbox", NOW + timedelta(days=1))


@pytest.mark.parametrize("scopes", [["root"], ["inbox", "ADMIN"], ["inbox admin"]])
def test_unknown_scope_is_refused(cast, scopes):
    with pytest.raises(Invalid):
        tokens.create_token(cast["alice"].user_id, scopes=scopes, label="x", by=SYSTEM, now=NOW)


def test_token_cannot_give_a_right_that_its_person_lacks(cast):
    before = count_rows()
    with pytest.raises(Invalid) as caught:
        tokens.create_token(cast["bob"].user_id, scopes=["admin"], label="x", by=SYSTEM, now=NOW)
    assert set(caught.value.fields) == {"scope"}
    assert count_rows() == before


def test_count_of_people_is_exact_after_every_change(cast, monkeypatch):
    """Counts that take long are kept until somebody changes: here every count counts as one of those."""
    monkeypatch.setattr("broadcast.store.fast.count_cache.MIN_CACHED_SECONDS", -1.0)
    everyone, ops = EveryoneAudience(), make_role_audience(["ops"])

    def counts() -> tuple[int, int, int | None]:
        db.session.rollback()
        return audiences.count(everyone), audiences.count(ops), people.count_users_by_role().get("ops")

    assert counts() == (3, 1, 1)
    dana = create(roles=["ops"])
    assert counts() == (4, 2, 2)
    actions.set_roles(dana, [], by=SYSTEM, now=NOW)
    assert counts() == (4, 1, 1)
    actions.disable_user(cast["bob"].user_id, by=SYSTEM, now=NOW)
    assert counts() == (3, 0, 0)
    actions.enable_user(cast["bob"].user_id, by=SYSTEM, now=NOW)
    assert counts() == (4, 1, 1)
    import_users("username,roles\nerin,ops\n", by=SYSTEM, now=NOW)
    assert counts() == (5, 2, 2)
