"""A program that asks for its list again is told that nothing has changed, and only then."""

from datetime import timedelta

import pytest

from broadcast.actions import broadcasts, edits, receipts, tokens
from broadcast.actions import users as user_actions
from broadcast.domain import clock
from broadcast.domain.actor import SYSTEM
from broadcast.store import log
from broadcast.store.transactions import write_transaction
from tests.support.builders import build_message, build_role_message, load_actor, publish_message

PATH = "/api/user/messages"


class Program:
    """A program with a token, which remembers the ETag of the last list."""

    def __init__(self, app, username: str):
        self.client = app.test_client()
        user_id = load_actor(username).user_id
        token = tokens.create_token(user_id, scopes=["inbox"], label="x", by=SYSTEM, now=clock.now())
        self.headers = {"Authorization": f"Bearer {token}"}

    def get(self, path: str = PATH):
        response = self.client.get(path, headers=self.headers)
        if "ETag" in response.headers:
            self.headers["If-None-Match"] = response.headers["ETag"]
        return response


@pytest.fixture
def ids(cast) -> dict[str, int]:
    alice, until = load_actor("alice"), clock.to_rfc3339(clock.now() + timedelta(hours=1))
    publish_message(alice, build_role_message("ops", title="ops"))
    return {title: publish_message(alice, build_message(title=title, expiresAt=until)) for title in ("one", "two")}


@pytest.fixture
def bob(app, ids) -> Program:
    program = Program(app, "bob")
    assert program.get().status_code == 200
    assert program.get().status_code == 304
    return program


def test_unchanged_list_is_not_sent_again(bob):
    unchanged = bob.get()
    assert (unchanged.status_code, unchanged.data, "Set-Cookie" in unchanged.headers) == (304, b"", False)
    assert unchanged.headers["Cache-Control"] == "private, no-cache"
    assert bob.get(f"{PATH}?view=archived").status_code == 200
    assert bob.get(f"{PATH}?limit=1").status_code == 200


def publish(ids):
    publish_message(load_actor("alice"))


def edit(ids):
    edits.edit(ids["one"], {"content": "They run."}, by=load_actor("alice"), now=clock.now(), version=None)


def recall(ids):
    broadcasts.cancel(ids["one"], reason="wrong", by=load_actor("alice"), now=clock.now())


def read(ids):
    receipts.mark_read([ids["one"]], by=load_actor("bob"), now=clock.now())


def archive(ids):
    receipts.archive([ids["one"]], by=load_actor("bob"), now=clock.now())


def restore_database(ids):
    with write_transaction() as session:
        log.start_epoch(session)


def lose_role(ids):
    user_actions.set_roles(load_actor("bob").user_id, [], by=SYSTEM, now=clock.now())


@pytest.mark.parametrize("change", [publish, edit, recall, read, archive, restore_database, lose_role])
def test_every_change_is_seen_at_once(bob, ids, change):
    before = bob.client.get(PATH, headers={"Authorization": bob.headers["Authorization"]}).json
    change(ids)
    after = bob.get()
    assert after.status_code == 200
    assert after.json != before
    assert bob.get().status_code == 304


def test_message_that_ends_and_a_snooze_that_ends_are_seen_by_the_clock_alone(bob, ids, monkeypatch):
    began = clock.now()
    receipts.snooze([ids["two"]], until=began + timedelta(minutes=5), by=load_actor("bob"), now=began)
    counts = [len(bob.get().json["items"])]
    for minutes in (6, 61):
        monkeypatch.setattr(clock, "now", lambda minutes=minutes: began + timedelta(minutes=minutes))
        counts.append(len(bob.get().json["items"]))
        assert bob.get().status_code == 304
    assert counts == [2, 3, 1]


def test_what_concerns_others_is_no_change(bob, ids):
    publish_message(load_actor("alice"), build_role_message("admin"))
    receipts.mark_read([ids["one"]], by=load_actor("charlie"), now=clock.now())
    assert bob.get().status_code == 304


def test_tag_of_one_user_is_not_that_of_another(app, bob, ids):
    alice = Program(app, "alice")
    alice.headers["If-None-Match"] = bob.headers["If-None-Match"]
    response = alice.get()
    assert (response.status_code, response.json["userId"]) == (200, load_actor("alice").user_id)


def test_what_one_user_did_is_not_told_to_another(app, bob, ids):
    receipts.mark_read([ids["one"]], by=load_actor("bob"), now=clock.now())
    states = {item["id"]: item["read"] for item in bob.get().json["items"]}
    assert (states[ids["one"]], states[ids["two"]]) == (True, False)
    assert {item["read"] for item in Program(app, "charlie").get().json["items"]} == {False}


def test_browser_keeps_nothing(client, ids):
    response = client("bob").get(PATH)
    assert (response.headers["Cache-Control"], "ETag" in response.headers) == ("no-store", False)
    assert client("bob").get(PATH, headers={"If-None-Match": "*"}).status_code == 200
