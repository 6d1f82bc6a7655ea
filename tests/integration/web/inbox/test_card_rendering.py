"""Cards are rendered once for many users: each still gets their own forms, their own state and the present time."""

import re
from datetime import timedelta

from broadcast.actions import edits, receipts, tokens
from broadcast.domain import clock
from broadcast.domain.actor import SYSTEM
from broadcast.streams.receipt_buffer import RECEIPT_BUFFER
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


def test_frame_of_a_page_has_nothing_of_another_user(app, client):
    with app.app_context():
        id = publish_message(load_actor("alice"))
        publish_message(load_actor("alice"))
        receipts.mark_read([id], by=load_actor("bob"), now=clock.now())
    clients = {name: client(name) for name in ("bob", "charlie")}
    for name in ("bob", "charlie", "bob"):
        page = clients[name].get("/inbox").text
        unread_count = {"bob": 1, "charlie": 2}[name]
        assert re.findall(r'data-unread="(\d+)"', page) == [str(unread_count)] * 2
        assert f'<span class="muted">{name}</span>' in page
        for other in {"bob", "charlie"} - {name}:
            assert re.search(other, page, re.IGNORECASE) is None


def test_program_gets_no_session_for_a_page(app, client):
    with app.app_context():
        token = tokens.create_token(load_actor("bob").user_id, scopes=["inbox"], label="x", by=SYSTEM, now=clock.now())
    page = client().get("/inbox", headers={"Authorization": f"Bearer {token}"})
    assert (page.status_code, "Set-Cookie" in page.headers) == (200, False)


def test_message_that_has_reached_a_user_is_not_recorded_again(app, client, monkeypatch):
    with app.app_context():
        id = publish_message(load_actor("alice"))
        recorded, buffer = [], RECEIPT_BUFFER.of(app)
        monkeypatch.setattr(
            buffer, "add", lambda id, user_ids, add=buffer.add: recorded.append(id) or add(id, user_ids)
        )
        client("bob").get("/inbox")
        buffer.flush(clock.now())
        for path in ("/inbox", "/api/user/messages"):
            client("bob").get(path)
    assert recorded == [id]


def test_text_beyond_ascii_arrives_whole(app, client):
    with app.app_context():
        publish_message(load_actor("alice"), build_message(title="Aufzüge 電梯 🛗", content="“Still”"))
    page = client("bob").get("/inbox")
    assert page.mimetype == "text/html"
    assert "Aufzüge 電梯 🛗" in page.data.decode()
    assert "“Still”" in page.data.decode()
