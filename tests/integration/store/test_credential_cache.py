"""The credential cache: it answers as the database does once the worker has heard of every change."""

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest

from broadcast.actions import accounts, roles, sessions, tokens, users
from broadcast.domain import clock
from broadcast.domain.actor import SYSTEM
from broadcast.store import credentials, log
from broadcast.store.credentials import Credential
from broadcast.store.fast.credential_cache import CREDENTIAL_CACHE, CredentialCache
from broadcast.store.fast.last_used_buffer import LAST_USED_BUFFER
from broadcast.store.transactions import write_transaction
from tests.conftest import deliver_new_events
from tests.support.builders import build_user_message, load_actor, publish_message

SITE = "https://intranet.example"


class Bob:
    """A session, a token and an embedded session of Bob, all of them used just now."""

    def __init__(self, app):
        self.app = app
        with app.app_context():
            now = clock.now()
            self.id = load_actor("bob").user_id
            self.session_token = self._begin_session(now)
            self.api_token = tokens.create_token(self.id, scopes=["inbox"], label="x", by=SYSTEM, now=now)
            site = tokens.create_token(load_actor("alice").user_id, scopes=["embed"], label="site", by=SYSTEM, now=now)
            self.site_id = credentials.find_by_api_token(tokens.hash_token(site)).id
            self.api_token_id = credentials.find_by_api_token(tokens.hash_token(self.api_token)).id
            self.embedded_id, _ = sessions.begin_embedded_session("bob", origin=SITE, token_id=self.site_id, now=now)
            self.session_id = self.find(credentials)["session"].id
            LAST_USED_BUFFER.current.note_token(self.api_token_id, None, now=now)
            LAST_USED_BUFFER.current.flush(now)

    def _begin_session(self, now: datetime) -> str:
        with write_transaction() as session:
            user = users.get_user_for_update(session, self.id)
            return sessions.begin_session(session, user, sessions.SignInClient(), now)

    def find(self, source: Any) -> dict[str, Credential | None]:
        return {
            "session": source.find_by_session_token(tokens.hash_token(self.session_token)),
            "token": source.find_by_api_token(tokens.hash_token(self.api_token)),
            "embedded": source.find_by_embedded_session(self.embedded_id),
        }


CHANGES: dict[str, Callable[[Bob], Any]] = {
    "roles": lambda bob: users.set_roles(bob.id, ["sales"], by=SYSTEM, now=clock.now()),
    "no role": lambda bob: users.set_roles(bob.id, [], by=SYSTEM, now=clock.now()),
    "role renamed": lambda bob: roles.rename("ops", "operations", by=SYSTEM, now=clock.now()),
    "role deleted": lambda bob: roles.delete("ops", by=SYSTEM, now=clock.now()),
    "disabled": lambda bob: users.disable_user(bob.id, by=SYSTEM, now=clock.now()),
    "signed out": lambda bob: sessions.sign_out(bob.session_id, by=load_actor("bob"), now=clock.now()),
    "session ended": lambda bob: sessions.end_session(bob.session_id, by=SYSTEM, now=clock.now()),
    "signed out everywhere": lambda bob: sessions.end_sessions(bob.id, by=SYSTEM, now=clock.now()),
    "signed out elsewhere": lambda bob: sessions.end_sessions(
        bob.id, by=SYSTEM, now=clock.now(), kept_session_id=bob.session_id
    ),
    "password": lambda bob: accounts.reset_password(bob.id, by=SYSTEM, now=clock.now()),
    "token revoked": lambda bob: tokens.revoke_token(bob.api_token_id, by=SYSTEM, now=clock.now()),
    "site's token revoked": lambda bob: tokens.revoke_token(bob.site_id, by=SYSTEM, now=clock.now()),
    "account deleted": lambda bob: accounts.delete(bob.id, typed_username="bob", by=SYSTEM, now=clock.now()),
    "message that signs out": lambda bob: publish_message(
        load_actor("alice"), build_user_message("bob", closeSessions=True)
    ),
    "nothing": lambda bob: None,
}


@pytest.mark.parametrize("name", CHANGES)
def test_what_changed_is_read_again_as_soon_as_the_worker_has_heard_of_it(app, client, name):
    client()
    bob, cache = Bob(app), CREDENTIAL_CACHE.of(app)
    with app.app_context():
        assert bob.find(cache) == bob.find(credentials)
        assert len(cache) == 3
        CHANGES[name](bob)
    deliver_new_events(app)
    with app.app_context():
        assert bob.find(cache) == bob.find(credentials)


def test_what_is_remembered_asks_no_database(app, client, monkeypatch):
    client()
    bob, cache = Bob(app), CREDENTIAL_CACHE.of(app)
    with app.app_context():
        found = bob.find(cache)
        for name in ("find_by_session_token", "find_by_api_token", "find_by_embedded_session"):
            monkeypatch.setattr(credentials, name, None)
        assert bob.find(cache) == found


def test_token_of_a_session_is_no_api_token_though_it_is_remembered(app, client):
    client()
    bob, cache = Bob(app), CREDENTIAL_CACHE.of(app)
    with app.app_context():
        bob.find(cache)
        assert cache.find_by_api_token(tokens.hash_token(bob.session_token)) is None
        assert cache.find_by_session_token(tokens.hash_token(bob.api_token)) is None


def test_change_between_reading_and_remembering_is_not_missed(app, client, monkeypatch):
    client()
    bob, cache = Bob(app), CREDENTIAL_CACHE.of(app)
    read = credentials.find_by_api_token

    def read_then_change(token_hash: str) -> Credential | None:
        credential = read(token_hash)
        users.set_roles(bob.id, ["sales"], by=SYSTEM, now=clock.now())
        deliver_new_events(app)
        return credential

    with app.app_context():
        monkeypatch.setattr(credentials, "find_by_api_token", read_then_change)
        cache.find_by_api_token(tokens.hash_token(bob.api_token))
        monkeypatch.setattr(credentials, "find_by_api_token", read)
        assert bob.find(cache)["token"].roles == {"sales"}


def test_database_that_was_set_back_makes_the_worker_forget_all(app, client):
    client()
    bob, cache = Bob(app), CREDENTIAL_CACHE.of(app)
    with app.app_context():
        bob.find(cache)
        with write_transaction() as session:
            log.start_epoch(session)
    deliver_new_events(app)
    assert len(cache) == 0


def test_use_that_is_to_be_written_is_read_again(app, client):
    """So that idle time is compared with what all workers have written."""
    client()
    bob, cache = Bob(app), CREDENTIAL_CACHE.of(app)
    with app.app_context():
        key = tokens.hash_token(bob.session_token)
        remembered = cache.find_by_session_token(key)
        later = clock.now() + timedelta(minutes=6)
        with write_transaction() as session:
            credentials.record_use(session, session_ids=[bob.session_id], token_ids=[], at=later)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(clock, "now", lambda: later)
            assert cache.find_by_session_token(key) == replace(remembered, used_at=later)


def test_oldest_make_room(app, client):
    client()
    bob, cache = Bob(app), CredentialCache(max_credentials=2)
    with app.app_context():
        assert bob.find(cache) == bob.find(credentials)
        assert len(cache) == 2
        assert bob.find(cache) == bob.find(credentials)
        sessions.end_sessions(bob.id, by=SYSTEM, now=clock.now())
        for event in log.read_events(0):
            if not event.is_for_clients:
                cache.apply(event)
        assert len(cache) == 0
