"""Cards are rendered once for many users: each still gets their own forms, their own state and the present time."""

import re
from datetime import timedelta

from broadcast.actions import edits, receipts
from broadcast.domain import clock
from tests.support.builders import build_message, load_actor, publish_message


def read_tokens(page: str) -> set[str]:
    return set(re.findall(r'name="csrf_token" value="([^"]*)"', page))


def test_each_user_gets_their_own_token_in_every_card(app, client):
    with app.app_context():
        publish_message(load_actor("alice"))
        publish_message(load_actor("alice"), build_message(requiresAck=True))
    pages = [client(name).get("/inbox").text for name in ("bob", "charlie", "bob")]
    tokens = [read_tokens(page) for page in pages]
    assert [len(found) for found in tokens] == [1, 1, 1]
    assert len(set.union(*tokens)) == 3  # one for each session


def test_forms_lead_back_to_the_list_that_they_are_in(app, client):
    with app.app_context():
        publish_message(load_actor("alice"), build_message(category="A&B"))
    bob = client("bob")
    for address in ("/inbox?view=unread&category=A%26B&priority=&q=", "/inbox?view=inbox&category=&priority=&q="):
        card = re.search(r"<article.*</article>", bob.get(address).text, re.DOTALL)[0]
        assert set(re.findall(r'name="back" value="([^"]*)"', card)) == {address.replace("&", "&amp;")}


def test_what_one_user_did_is_not_shown_to_another(app, client):
    with app.app_context():
        id = publish_message(load_actor("alice"), build_message(requiresAck=True))
        receipts.acknowledge([id], by=load_actor("bob"), now=clock.now())
        receipts.mark_unread([id], by=load_actor("bob"), now=clock.now())
    states = {}
    for name in ("bob", "charlie", "bob"):
        article = re.search(r"<article[^>]*>", client(name).get("/inbox").text, re.DOTALL)[0]
        states.setdefault(name, set()).add(("data-acked" in article, "data-unread" in article))
    assert states == {"bob": {(True, True)}, "charlie": {(False, True)}}


def test_times_are_those_of_the_present_minute(app, client, monkeypatch):
    with app.app_context():
        publish_message(load_actor("alice"))
    bob, began = client("bob"), clock.now()
    assert ">just now</time>" in bob.get("/inbox").text
    monkeypatch.setattr(clock, "now", lambda: began + timedelta(minutes=5, seconds=1))
    assert ">5 min ago</time>" in bob.get("/inbox").text


def test_edited_text_is_shown_at_once(app, client):
    with app.app_context():
        id = publish_message(load_actor("alice"))
    bob = client("bob")
    assert "The lifts stand still." in bob.get("/inbox").text
    with app.app_context():
        edits.edit(id, {"content": "They run."}, by=load_actor("alice"), now=clock.now(), version=None)
    page = bob.get("/inbox").text
    assert ("They run." in page, "The lifts stand still." in page) == (True, False)
